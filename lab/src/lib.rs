//! The laboratory: puts loads on FastChat and on its peers, holds what comes out against the promises,
//! and reports what it cost.

pub mod arrivals;
pub mod compare;
pub mod crowd;
pub mod drive;
pub mod experiment;
pub mod figures;
pub mod floors;
pub mod knee;
pub mod logins;
pub mod loops;
pub mod machine;
pub mod matrix;
pub mod offline;
pub mod order;
pub mod pacer;
pub mod plan;
pub mod priority;
pub mod record;
pub mod report;
pub mod span;
pub mod stamp;
pub mod tally;
pub mod target;
