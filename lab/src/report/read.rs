//! Reads what a report was written of.

use crate::figures::Figures;
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Some messages: number, due, after (us).
type Messages = Vec<(u64, u64, u64)>;

/// The runs in a folder that [`super::Folder`] was, in order.
pub fn read(folder: &Path) -> Result<Vec<Figures>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        files.extend(path.extension().is_some_and(|of| of == "json").then_some(path));
    }
    files.sort();
    ensure!(!files.is_empty(), "there are no runs in {}", folder.display());
    files.into_iter().map(|file| run(&file).with_context(|| file.display().to_string())).collect()
}

fn run(file: &Path) -> Result<Figures> {
    let mut figures: Figures = serde_json::from_str(&fs::read_to_string(file)?)?;
    (figures.acks, figures.deliveries) = messages(&file.with_extension(""))?;
    Ok(figures)
}

/// Of the file beside it, if it is there: those acknowledged, and those delivered.
fn messages(run: &Path) -> Result<(Messages, Messages)> {
    let file = PathBuf::from(format!("{}-messages.csv", run.display()));
    let Ok(text) = fs::read_to_string(&file) else { return Ok(Default::default()) };
    let (mut acks, mut deliveries) = (Vec::new(), Vec::new());
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let &[number, due_us, until, after_us] = &fields[..] else { continue };
        let message = (number.parse()?, due_us.parse()?, after_us.parse()?);
        if until == "acked" { acks.push(message) } else { deliveries.push(message) }
    }
    Ok((acks, deliveries))
}
