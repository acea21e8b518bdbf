//! How late the event loop is: what a task that should run now waits for a thread.

use crate::Metric;
use metrics::{gauge, histogram};
use std::time::Duration;
use tokio::{runtime::Handle, time::Instant};

/// Between looks.
const PERIOD: Duration = Duration::from_millis(250);

const LAG: Metric = Metric::seconds(
    "fastchat_runtime_lag_seconds",
    "How late a timer of the event loop fires; the timer itself is good to a millisecond.",
);
const TASKS: Metric = Metric::gauge("fastchat_runtime_tasks", "Tasks of the event loop that have not ended.");
const QUEUE: Metric =
    Metric::gauge("fastchat_runtime_queue_depth", "Tasks that wait in the event loop's shared queue.");

/// What every program shows of its event loop.
pub const EVENT_LOOP: &[Metric] = &[LAG, TASKS, QUEUE];

/// Measures for ever.
pub async fn watch_lag() {
    loop {
        let due = Instant::now() + PERIOD;
        tokio::time::sleep_until(due).await;
        histogram!(LAG.name).record(due.elapsed());
        let runtime = Handle::current().metrics();
        gauge!(TASKS.name).set(runtime.num_alive_tasks() as f64);
        gauge!(QUEUE.name).set(runtime.global_queue_depth() as f64);
    }
}
