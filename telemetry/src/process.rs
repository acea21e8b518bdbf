//! What Linux knows of this process, under the names that Prometheus' own libraries use.
//!
//! Written out here because a recorder's counters are whole numbers, and CPU seconds are not.

use crate::Metric;
use metrics::Unit;
use std::{fmt::Write, fs};

/// Ticks a second in /proc: USER_HZ, which is 100 wherever Rust runs on Linux.
const TICKS: f64 = 100.0;

const CPU: Metric =
    Metric::counter("process_cpu_seconds_total", "CPU time of this process, user and system.")
        .in_unit(Unit::Seconds);
const MEMORY: Metric =
    Metric::gauge("process_resident_memory_bytes", "Memory of this process that is in RAM.")
        .in_unit(Unit::Bytes);
const FILES: Metric = Metric::gauge("process_open_fds", "Open file descriptors; each connection is one.");
const MAX_FILES: Metric = Metric::gauge("process_max_fds", "File descriptors that this process may open.");
const THREADS: Metric = Metric::gauge("process_threads", "Threads of this process.");
const START: Metric =
    Metric::gauge("process_start_time_seconds", "When this process started, in seconds since 1970.")
        .in_unit(Unit::Seconds);

/// What every program shows of its process.
pub const PROCESS: &[Metric] = &[CPU, MEMORY, FILES, MAX_FILES, THREADS, START];

/// The process's own lines. What the kernel does not say is left out.
pub(crate) fn render() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (stat, status, limits) =
        (read("/proc/self/stat"), read("/proc/self/status"), read("/proc/self/limits"));
    // The program's name is in brackets and may hold anything.
    let stat: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect())
        .unwrap_or_default();
    let ticks = |place: usize| stat.get(place).map(|ticks| ticks / TICKS);
    let boot = number_after(&read("/proc/stat"), "btime");
    let kilobytes = number_after(&status, "VmRSS:");
    let values = [
        (CPU, "counter", ticks(11).zip(ticks(12)).map(|(user, system)| user + system)),
        (MEMORY, "gauge", kilobytes.map(|kilobytes| kilobytes * 1024.0)),
        (FILES, "gauge", fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64)),
        (MAX_FILES, "gauge", number_after(&limits, "Max open files")),
        (THREADS, "gauge", number_after(&status, "Threads:")),
        (START, "gauge", ticks(19).zip(boot).map(|(after_boot, boot)| boot + after_boot)),
    ];
    let mut text = String::new();
    for (metric, kind, value) in values {
        let Some(value) = value else { continue };
        let Metric { name, help, .. } = metric;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    }
    text
}

/// The first number after a word at the beginning of a line.
fn number_after(text: &str, word: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_threads_files_and_a_beginning() {
        let text = render();
        for metric in PROCESS {
            let value = number_after(&text, &format!("{} ", metric.name));
            assert!(value.is_some_and(|value| value > 0.0 || metric.name == CPU.name), "{}", metric.name);
        }
        let start = number_after(&text, START.name).expect("a start");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        assert!((0.0..86_400.0).contains(&(now.as_secs_f64() - start)), "{start}");
    }
}
