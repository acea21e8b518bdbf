//! The program `fastchat-dashboards`: writes the JSON that Grafana reads.

use anyhow::{Context, bail};
use fastchat_dashboards::{boards, grafana};
use std::path::Path;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [command, folder] = &arguments[..] else { bail!("fastchat-dashboards write FOLDER") };
    if command != "write" {
        bail!("there is no {command}: fastchat-dashboards write FOLDER");
    }
    for board in boards::all() {
        let path = Path::new(folder).join(format!("{}.json", board.file()));
        std::fs::write(&path, grafana::text(&board)).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
