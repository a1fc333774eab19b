//! Tests of the `mpt` binary: stdout, stderr and exit codes. A file per command.

mod bench;
mod contract;
mod data_convert;
mod data_hostile;
mod data_order;
mod formats;
mod job;
mod json_shapes;
mod killed;
mod main_job;
mod messages;
mod models;
#[cfg(feature = "remote")]
mod network;
mod no_tokenizer;
mod overlap;
mod pull;
mod quantize;
mod robust;
#[path = "../../../mpt-core/tests/it/shared.rs"]
mod shared;
mod steps;
mod tokenizer;
mod verify;

use std::path::Path;
use std::process::{Command, Output};

/// Result of a run of the binary.
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

/// Command of the binary, without `MPT_*` variables and without a terminal.
fn mpt() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mpt"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MPT_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs `mpt` with arguments in `dir`.
fn run_in(dir: &Path, args: &[&str]) -> Run {
    finish(mpt().current_dir(dir).args(args))
}

/// Runs `mpt` with arguments.
fn run(args: &[&str]) -> Run {
    run_in(Path::new("."), args)
}

fn finish(command: &mut Command) -> Run {
    let Output { status, stdout, stderr } = command.output().expect("the binary starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    Run { code: status.code().expect("no signal"), stdout: text(stdout), stderr: text(stderr) }
}
