//! `fastchat`: the command line. Everything it can do is in the library; this reads arguments, prints,
//! and turns errors into exit codes.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test says what it expects by failing"))]

mod cli;

use clap::Parser;
use fastchat_client::files::picture;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == picture::COMMAND) {
        // Before there are threads: what it may take is limited.
        return picture::worker::run(words);
    }
    let args = cli::Args::parse();
    cli::logging();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("fastchat: no runtime: {error}");
            return ExitCode::from(1);
        }
    };
    let code = runtime.block_on(cli::run(args));
    // A password prompt that nobody answers must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    code
}
