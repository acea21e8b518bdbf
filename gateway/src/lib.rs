pub mod bus;
pub mod store;
pub mod writer;
