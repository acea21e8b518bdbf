//! Places at which a test can make the process die: `FASTCHAT_FAILPOINT=name[:n]` aborts it at the
//! n-th pass. Unset, a pass costs one load.

use std::sync::{
    LazyLock,
    atomic::{AtomicU32, Ordering},
};

struct Armed {
    name: String,
    left: AtomicU32,
}

static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
    let text = std::env::var("FASTCHAT_FAILPOINT").ok()?;
    let (name, nth) =
        text.split_once(':').map_or((text.as_str(), 1), |(name, n)| (name, n.parse().unwrap_or(1)));
    Some(Armed { name: name.to_owned(), left: AtomicU32::new(nth.max(1)) })
});

/// Passes the place `name`. docs/client.md lists all of them.
pub fn pass(name: &str) {
    let Some(armed) = ARMED.as_ref() else { return };
    if armed.name == name && armed.left.fetch_sub(1, Ordering::Relaxed) == 1 {
        tracing::error!(name, "failpoint: aborting");
        std::process::abort();
    }
}
