//! What processes use, and what else the machine does: read from /proc.

use crate::priority::Priority;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, path::Path};

/// One or more processes that count as one part of what is measured.
#[derive(Debug, Clone)]
pub struct Component {
    /// Its name in reports.
    pub name: String,
    /// Its first processes.
    pub pids: Vec<u32>,
    /// Whether their descendants count as well.
    pub descendants: bool,
}

impl Component {
    /// Of these processes and all that descend from them.
    pub fn new(name: &str, pids: impl IntoIterator<Item = u32>) -> Self {
        Self { name: name.to_owned(), pids: pids.into_iter().collect(), descendants: true }
    }

    /// This very process, without the servers that it has started.
    pub fn driver() -> Self {
        Self { descendants: false, ..Self::new(DRIVER, [std::process::id()]) }
    }
}

impl Component {
    fn of<'a>(&self, processes: &'a [Process]) -> Vec<&'a Process> {
        if self.descendants {
            return family(processes, &self.pids);
        }
        processes.iter().filter(|process| self.pids.contains(&process.pid)).collect()
    }
}

/// What the driver is called among components.
pub const DRIVER: &str = "driver";

/// Microseconds of a tick in /proc: USER_HZ is 100 on every kernel that this builds for.
const TICK_US: u64 = 10_000;

/// What a component has used since its processes began, and holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Processor time in the user's and the kernel's mode, of ended children too.
    pub cpu_us: u64,
    /// Resident memory. Pages that processes share count for each of them.
    pub rss_bytes: u64,
    /// Threads.
    pub threads: u64,
}

/// Reads what these components use, by name.
pub fn usage(components: &[Component]) -> Result<BTreeMap<String, Usage>> {
    let processes = processes()?;
    let mut all: BTreeMap<String, Usage> = BTreeMap::new();
    for component in components {
        let usage = all.entry(component.name.clone()).or_default();
        for process in component.of(&processes) {
            usage.cpu_us += process.ticks * TICK_US;
            usage.rss_bytes += rss_bytes(process.pid);
            usage.threads += process.threads;
        }
    }
    Ok(all)
}

/// What was used between two readings.
pub fn between(before: &BTreeMap<String, Usage>, after: &BTreeMap<String, Usage>) -> BTreeMap<String, Usage> {
    let since = |(name, after): (&String, &Usage)| {
        let earlier = before.get(name).map_or(0, |before| before.cpu_us);
        (name.clone(), Usage { cpu_us: after.cpu_us.saturating_sub(earlier), ..*after })
    };
    after.iter().map(since).collect()
}

#[derive(Debug, Clone, Copy)]
struct Process {
    pid: u32,
    parent: u32,
    ticks: u64,
    threads: u64,
}

/// This process and all that descend from it, now.
pub fn descendants(pid: u32) -> Result<Vec<u32>> {
    Ok(family(&processes()?, &[pid]).into_iter().map(|process| process.pid).collect())
}

/// Whether a process is there and has not ended; one whose end nobody has asked for counts as ended.
pub fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z')))
}

fn processes() -> Result<Vec<Process>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").context("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended meanwhile.
        if let Ok(stat) = fs::read_to_string(Path::new("/proc").join(&name).join("stat")) {
            all.extend(parse(pid, &stat));
        }
    }
    Ok(all)
}

/// Fields of proc(5), counted after the name, which may hold anything.
fn parse(pid: u32, stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = (14..=17).map(number).sum::<Option<u64>>()?;
    Some(Process { pid, parent: number(4)? as u32, ticks, threads: number(20)? })
}

/// These processes and all that descend from them.
fn family<'a>(processes: &'a [Process], pids: &[u32]) -> Vec<&'a Process> {
    let mut found: Vec<&Process> = Vec::new();
    let mut pids = pids.to_vec();
    while let Some(pid) = pids.pop() {
        if found.iter().any(|process| process.pid == pid) {
            continue;
        }
        found.extend(processes.iter().filter(|process| process.pid == pid));
        pids.extend(processes.iter().filter(|process| process.parent == pid).map(|process| process.pid));
    }
    found
}

/// 0 for one that has ended.
fn rss_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok()).unwrap_or(0) * 1024
}

/// Bytes of the kernel's own tables (sockets among them), which no process' resident memory shows.
pub fn slab_bytes() -> Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("Slab:")).context("no Slab in meminfo")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? * 1024)
}

/// Time of all processors since the machine began: what its host gave to other machines meanwhile, and all
/// of it.
#[derive(Debug, Clone, Copy)]
pub struct Time {
    stolen: u64,
    all: u64,
}

impl Time {
    /// Until now.
    pub fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        let line = stat.lines().next().unwrap_or_default();
        // proc(5): user, nice, system, idle, iowait, irq, softirq, steal; guests count as users already.
        let ticks: Vec<u64> =
            line.split_whitespace().skip(1).take(8).map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { stolen: ticks.get(7).copied().unwrap_or(0), all: ticks.iter().sum() })
    }

    /// The share that was stolen since then.
    pub fn stolen_since(self, before: Self) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        self.stolen.saturating_sub(before.stolen) as f64 / all as f64
    }
}

/// What shares the processors, for the report.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// Processors.
    pub cores: usize,
    /// Their name.
    pub processor: String,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// Runnable threads, a mean over the last minute, before the run began.
    pub load_before: f64,
    /// How the driver's threads stood among the servers' in the run.
    pub driver_priority: Priority,
}

impl Machine {
    /// This one, now.
    pub fn look(driver_priority: Priority) -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| path.to_owned());
        let cpuinfo = read("/proc/cpuinfo")?;
        let processor = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let meminfo = read("/proc/meminfo")?;
        let memory = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).context("MemTotal")?;
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            processor: processor.unwrap_or_default().trim_start_matches([' ', '\t', ':']).to_owned(),
            memory_bytes: memory.trim().trim_end_matches(" kB").trim().parse::<u64>()? * 1024,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            load_before: read("/proc/loadavg")?.split(' ').next().unwrap_or_default().parse()?,
            driver_priority,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn fields_are_counted_after_the_name() {
        let fields = "S 7 1 1 0 -1 0 0 0 0 0 11 12 13 14 20 0 3 0 99 1000 250 18446744073709551615";
        let process = parse(5, &format!("5 (a) b) {fields}")).expect("a process");
        assert_eq!((process.parent, process.ticks), (7, 50));
        assert_eq!(process.threads, 3);
        assert!(parse(5, "5 (a) S 7").is_none());
    }

    #[test]
    fn children_count_and_strangers_do_not() {
        let mut child = Command::new("sleep").arg("30").spawn().expect("it starts");
        let all = processes().expect("it reads");
        let own = family(&all, &[std::process::id()]);
        assert!(own.iter().any(|process| process.pid == child.id()));
        assert!(own.iter().all(|process| process.pid != 1));
        assert_eq!(Component::driver().of(&all).len(), 1);
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }

    #[test]
    fn a_share_is_stolen_or_not() {
        let (before, after) = (Time { stolen: 10, all: 1_000 }, Time { stolen: 30, all: 1_200 });
        assert_eq!(after.stolen_since(before), 0.1);
        assert!(Time::now().expect("it reads").all > 0);
    }

    #[test]
    fn work_shows() {
        let component = [Component::driver()];
        let before = usage(&component).expect("it reads");
        let mut sum = 0_u64;
        let begin = std::time::Instant::now();
        while begin.elapsed().as_millis() < 200 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        let used = between(&before, &usage(&component).expect("it reads"))[DRIVER];
        assert!(used.cpu_us >= 20_000 && used.rss_bytes > 1 << 20, "{used:?}");
    }
}
