//! Lets the driver's threads go first while a run lasts.
//!
//! Clients and driver stand for machines of other people; here they share the cores with the servers. A
//! thread that waits for a core behind a server sends late and notices late, and both would count as the
//! server's latency. The servers keep their ordinary priority: they have been started before, and nothing
//! is started while it lasts.

use anyhow::{Context, Result};
use rustix::process::{Pid, getpriority_process, setpriority_process};
use std::fs;

/// Of the driver's threads, as `nice` counts: the lower, the earlier.
const NICE: i32 = -10;

/// Threads that go first, until it is dropped.
#[derive(Debug)]
pub struct First {
    before: i32,
}

impl First {
    /// All threads of this process, and those that they start. An error where the system does not let it:
    /// it takes root, or `CAP_SYS_NICE`.
    pub fn raise() -> Result<Self> {
        let first = Self { before: getpriority_process(None)? };
        set_all(NICE)?;
        Ok(first)
    }
}

impl Drop for First {
    fn drop(&mut self) {
        // Lowering is always allowed.
        let _ = set_all(self.before);
    }
}

/// What threads of this process run at now.
pub fn nice() -> i32 {
    getpriority_process(None).unwrap_or(0)
}

/// On Linux the priority belongs to the thread.
fn set_all(nice: i32) -> Result<()> {
    for entry in fs::read_dir("/proc/self/task").context("/proc/self/task")? {
        let name = entry?.file_name();
        let thread = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let thread = thread.context("a thread has a number")?;
        match setpriority_process(Some(thread), nice) {
            // It has ended meanwhile.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error).context("the driver's threads cannot go first"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_go_first_for_a_while_if_the_system_lets_them() {
        let before = nice();
        let Ok(first) = First::raise() else {
            assert_eq!(nice(), before, "nothing is half done");
            return;
        };
        let child = std::thread::spawn(nice).join().expect("it ends");
        assert_eq!((nice(), child), (NICE, NICE));
        drop(first);
        assert_eq!(nice(), before);
    }
}
