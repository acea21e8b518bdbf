//! infra/ without Docker and without root: what can be parsed is parsed by what will read it, what names
//! something else is held against it, and what runs is run.

mod agreement;
mod compose;
#[path = "../support/deployment.rs"]
mod deployment;
mod image;
mod postgres;
mod settings;
mod units;
mod yaml;
