//! The commands, and how they write.

pub(crate) mod operate;
pub(crate) mod serve;
pub(crate) mod simulate;

use anyhow::Context;
use std::io::Write;

/// Writes to standard output.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("standard output")
}
