//! How many instructions the functions take that every message passes (tests/src/bin/hot.rs), beside a
//! committed baseline: a clock says nothing on a busy machine, a count does.
//!
//! The counts are of the build that tests use, whose own crates are not optimised: they show work that was
//! added, not what the compiler makes of it. `FASTCHAT_WRITE_DOCS=1` writes the baseline anew.

use fastchat_tests::process;
use std::{collections::BTreeMap, env, fs, path::Path, process::Command, thread};

/// More than this share off, either way, is a change to look at (or a baseline to write anew).
const MARGIN: f64 = 0.10;
/// Repetitions; the first ones fill caches and tables.
const COUNT: u64 = 200;
/// Of what takes millions of instructions.
const COUNT_OF_SEALING: u64 = 10;

type Counts = BTreeMap<String, u64>;

#[test]
fn hot_functions_take_as_many_instructions_as_they_did() {
    let program = process::program("hot").expect("it is built with the tests");
    let names = Command::new(&program).output().expect("hot lists its functions");
    let names = String::from_utf8(names.stdout).expect("names are text");
    let count = |name: &str| (name.to_owned(), instructions(&program, name));
    let counts: Counts = thread::scope(|scope| {
        let counting: Vec<_> = names.lines().map(|name| scope.spawn(move || count(name))).collect();
        counting.into_iter().map(|one| one.join().expect("callgrind counts")).collect()
    });
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/instructions.toml");
    if env::var_os("FASTCHAT_WRITE_DOCS").is_some() {
        let text = toml::to_string(&counts).expect("counts are numbers");
        return fs::write(&file, format!("# Instructions each; see instructions.rs.\n{text}"))
            .expect("a baseline");
    }
    let baseline = fs::read_to_string(&file).expect("the baseline is beside this test");
    let baseline: Counts = toml::from_str(&baseline).expect("the baseline is TOML");
    let off: Vec<_> = counts.iter().filter(|(name, now)| is_off(baseline.get(*name), **now)).collect();
    let known = baseline.keys().eq(counts.keys());
    assert!(
        off.is_empty() && known,
        "instructions are not those of {}: {off:#?}\nnow: {counts:#?}\nbefore: {baseline:#?}\n\
         If that is meant: FASTCHAT_WRITE_DOCS=1 cargo nextest run --workspace --test instructions",
        file.display()
    );
}

fn is_off(before: Option<&u64>, now: u64) -> bool {
    before.is_none_or(|before| (now as f64 / *before as f64 - 1.0).abs() > MARGIN)
}

/// For each repetition.
fn instructions(program: &Path, name: &str) -> u64 {
    let count = if name.starts_with("seal") { COUNT_OF_SEALING } else { COUNT };
    let ran = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=hot::repeat"])
        .arg(program)
        .args([name, &count.to_string()])
        .output()
        .expect("valgrind is there: scripts/test installs it");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "`hot \"{name}\"` failed: {said}");
    let collected =
        said.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, n)| n.trim().parse::<u64>());
    let Some(Ok(collected)) = collected else { panic!("callgrind collected nothing: {said}") };
    assert!(collected > count, "callgrind did not find `repeat`: {said}");
    collected / count
}
