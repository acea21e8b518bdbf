//! `fastchat-gateway restored`: what an operator runs after a backup was restored.

use anyhow::Context;
use fastchat_gateway::store::Store;
use std::{
    io::{IsTerminal, Write},
    time::{SystemTime, UNIX_EPOCH},
};

/// Asks on the terminal. Without one there is nobody to ask, and nothing happens.
pub(crate) fn confirm(store: &str) -> anyhow::Result<bool> {
    anyhow::ensure!(std::io::stdin().is_terminal(), "nobody is here to ask: give --yes");
    let mut out = std::io::stderr();
    write!(
        out,
        "{store} was restored from a backup, and no gateway serves it now?\n\
         A new incarnation begins, which cannot be undone. [y/N] "
    )?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("standard input")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Begins an incarnation, and says what it did.
pub(crate) async fn restored(store: &dyn Store, above: Option<u32>) -> anyhow::Result<String> {
    let done = store.begin_incarnation(at_least(now_s(), above)?).await?;
    Ok(format!(
        "the store is in incarnation {} now; it was in {}\n\
         {} conversations marked: clients that have read beyond the backup keep what they have\n\
         {} one-time key packages dropped: devices publish new ones when they connect\n\
         start the gateways now\n",
        done.now, done.before, done.conversations, done.key_packages
    ))
}

/// The least number that the new incarnation may have. The seconds since 1970: the same backup, restored
/// twice, does not give the same incarnation twice, although nothing in it remembers the first time.
fn at_least(now_s: u64, above: Option<u32>) -> anyhow::Result<u32> {
    let above =
        above.map_or(Some(0), |above| above.checked_add(1)).context("--above: there is no higher one")?;
    Ok(u32::try_from(now_s).unwrap_or(u32::MAX).max(above))
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_incarnation_comes_twice() {
        let cases = [
            (1_700_000_000, None, Some(1_700_000_000)),
            (1_700_000_000, Some(5), Some(1_700_000_000)),
            (1_700_000_000, Some(1_800_000_000), Some(1_800_000_001)),
            (0, None, Some(0)),
            (u64::MAX, None, Some(u32::MAX)),
            (0, Some(u32::MAX), None),
        ];
        for (now, above, want) in cases {
            assert_eq!(at_least(now, above).ok(), want, "{now} {above:?}");
        }
    }
}
