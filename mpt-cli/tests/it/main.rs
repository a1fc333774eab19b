//! Tests of the `mpt` binary: what it prints, where, and the code it ends with. A file per command.

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

/// What a run of the binary left behind.
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

/// The binary with an environment of its own: no `MPT_*` variable, no terminal.
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
