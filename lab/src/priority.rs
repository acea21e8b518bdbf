//! Lets the driver's threads go first while a run lasts.
//!
//! Clients and driver stand for machines of other people; here they share the cores with the servers. A
//! thread that waits for a core behind a server sends late and notices late, and both would count as the
//! server's latency. The servers keep their ordinary priority: they have been started before, and nothing
//! is started while it lasts.

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, getpriority_process, setpriority_process};
use serde::{Deserialize, Serialize};
use std::{
    fmt, fs,
    process::{Command, Stdio},
};

/// Of util-linux: what the kernel's call for real-time priorities has no safe wrapper for.
const CHRT: &str = "chrt";
/// What the driver's threads have where the system does not give them more, as `nice` counts.
const NICE: i32 = -10;

/// How the driver's threads stand among those of the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// They go before all others, at once.
    RealTime,
    /// They get more than others, and may wait for the end of another's turn.
    Nice,
    /// As everybody: more takes root.
    Ordinary,
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RealTime => "before the servers (real-time)",
            Self::Nice => "before the servers (nice -10)",
            Self::Ordinary => "as an equal of the servers",
        })
    }
}

/// Threads that go first, until it is dropped.
#[derive(Debug)]
pub struct First {
    priority: Priority,
    nice_before: i32,
}

impl First {
    /// All threads of this process, and those that they start, as far as the system lets them.
    pub fn raise() -> Self {
        let nice_before = getpriority_process(None).unwrap_or(0);
        let mut first = Self { priority: Priority::RealTime, nice_before };
        if all_threads(["--rr", "1"]).is_err() {
            first.priority = Priority::Nice;
            if all_threads_nice(NICE).is_err() {
                first.priority = Priority::Ordinary;
            }
        }
        first
    }

    /// What they got.
    pub fn priority(&self) -> Priority {
        self.priority
    }
}

impl Drop for First {
    fn drop(&mut self) {
        // Lowering is always allowed.
        let _ = match self.priority {
            Priority::RealTime => all_threads(["--other", "0"]),
            Priority::Nice => all_threads_nice(self.nice_before),
            Priority::Ordinary => Ok(()),
        };
    }
}

fn all_threads([policy, priority]: [&str; 2]) -> Result<()> {
    let mut chrt = Command::new(CHRT);
    chrt.args(["--all-tasks", policy, "--pid", priority, &std::process::id().to_string()]);
    let status = chrt.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    ensure!(status.success(), "{CHRT}: {status}");
    Ok(())
}

/// On Linux a nice value belongs to the thread.
fn all_threads_nice(nice: i32) -> Result<()> {
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

    /// Nice value and policy of the calling thread: fields 19 and 41 of proc(5).
    fn own() -> (i32, u32) {
        let stat = fs::read_to_string("/proc/thread-self/stat").expect("a thread");
        let (_, rest) = stat.rsplit_once(')').expect("a name");
        let fields: Vec<&str> = rest.split_whitespace().collect();
        (fields[16].parse().expect("a number"), fields[38].parse().expect("a number"))
    }

    #[test]
    fn threads_go_first_for_a_while_if_the_system_lets_them() {
        const SCHED_RR: u32 = 2;
        let before = own();
        let first = First::raise();
        let (nice, policy) = std::thread::spawn(own).join().expect("it ends");
        match first.priority() {
            Priority::RealTime => assert_eq!(policy, SCHED_RR),
            Priority::Nice => assert_eq!(nice, NICE),
            Priority::Ordinary => assert_eq!((nice, policy), before),
        }
        assert_eq!(own(), (nice, policy));
        drop(first);
        assert_eq!(own(), before);
    }
}
