//! What a program measures, said once: a [`Metric`] has a name, a kind, a unit, help and labels whose
//! values are known, or it does not compile.
//!
//! - A program has one catalogue. [`Recorder::install`] describes it, and shows every listed label value
//!   as zero from the start: a rate over the first event is right, and a panel is never empty for want
//!   of faults.
//! - [`Recorder::render`] adds what the kernel knows of the process (`process_*`), read at that moment.
//! - docs/metrics.md is made from the catalogues; a system test holds them against what is scraped.

pub mod catalogue;
mod lag;
mod process;
mod recorder;

pub use catalogue::{Kind, Label, Metric, Values};
pub use lag::{EVENT_LOOP, watch_lag};
pub use process::PROCESS;
pub use recorder::{Buckets, Recorder};
