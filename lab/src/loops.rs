//! The threads that clients live on: as many as there are processors, each with an event loop of its own.
//!
//! Every client of a run stays on one of them as long as it is connected. A runtime that moves
//! tasks between its threads wakes a second thread for every event, which finds nothing to do nearly always:
//! a seventh of the driver's processor time with 3,600 messages a second, taken from the servers beside it.

use std::{num::NonZero, sync::LazyLock, thread};
use tokio::runtime::{Builder, Handle};

static LOOPS: LazyLock<Vec<Handle>> = LazyLock::new(|| {
    let count = thread::available_parallelism().map_or(1, NonZero::get);
    (0..count).map(start).collect()
});

/// Where this client lives.
pub fn of(client: usize) -> &'static Handle {
    &LOOPS[client % LOOPS.len()]
}

/// Ends with the process.
fn start(number: usize) -> Handle {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let handle = runtime.handle().clone();
    let name = format!("clients-{number}");
    let run = move || runtime.block_on(std::future::pending::<()>());
    thread::Builder::new().name(name).spawn(run).expect("a thread");
    handle
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_stays_on_its_thread_and_what_it_starts_stays_with_it() {
        let thread = || thread::current().name().unwrap_or_default().to_owned();
        let lives_on = |client| async move {
            let inner = async move {
                let begun = tokio::spawn(async move { thread() });
                tokio::task::yield_now().await;
                (thread(), begun.await.expect("it ends"))
            };
            of(client).spawn(inner).await.expect("it ends")
        };
        let here = lives_on(0).await;
        assert_eq!(here, ("clients-0".to_owned(), "clients-0".to_owned()));
        assert_eq!(lives_on(LOOPS.len()).await, here, "around");
        let last = format!("clients-{}", LOOPS.len() - 1);
        assert_eq!(lives_on(LOOPS.len() - 1).await.0, last);
    }
}
