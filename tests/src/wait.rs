//! Waiting for what comes about by itself.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Waits until it is so. `what` is for the error.
pub async fn until(patience: Duration, what: &str, mut so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + patience;
    while !so().await? {
        if Instant::now() > end {
            bail!("it does not come to this: {what}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
