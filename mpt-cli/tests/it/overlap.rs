//! Overlap of two processes: the first is stopped while it holds its lock.
#![cfg(target_os = "linux")]

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::job::Job;
use crate::{mpt, robust};

/// Maximum number of starts of a process that ends before it can be stopped.
const ATTEMPTS: u32 = 300;

/// Shell that sends signals. It runs from the beginning, because starting `kill` takes longer than some commands hold
/// their locks.
struct Signals(Child);

impl Signals {
    fn new() -> Self {
        Self(Command::new("sh").stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a shell"))
    }

    fn send(&mut self, signal: &str, to: &Child) {
        let shell = self.0.stdin.as_mut().expect("a pipe");
        shell.write_all(format!("kill -{signal} {}\n", to.id()).as_bytes()).expect("it listens");
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().expect("a shell without input ends");
    }
}

fn start(dir: &Path, line: &[&str]) -> Child {
    let mut command = mpt();
    command.current_dir(dir).args(line).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().expect("starts")
}

/// Exit code and stderr of a process.
fn end(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().expect("ends");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Whether a process is stopped (`T`) or has ended (`Z`), by its state in Linux.
fn is_still(child: &Child) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("it is not waited for");
    stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T") || rest.starts_with(" Z"))
}

fn is_locked(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Starts a command and stops it once it has created the lock file `lock`; `None` if it did not hold the lock then.
fn stopped_in_place(dir: &Path, line: &[&str], lock: &Path, signals: &mut Signals) -> Option<Child> {
    let mut child = start(dir, line);
    while !lock.exists() {
        if child.try_wait().expect("waitable").is_some() {
            return None;
        }
    }
    signals.send("STOP", &child);
    while !is_still(&child) {
        std::thread::yield_now();
    }
    if is_locked(lock) {
        return Some(child);
    }
    signals.send("CONT", &child);
    child.wait().expect("ends");
    None
}

/// Runs a command twice, the second time while the first holds the lock: the second is refused, and the first succeeds.
fn refused_meanwhile(job: &Job, line: &[&str], out: &str, lock: &str) {
    let (lock, mut signals) = (job.path(lock), Signals::new());
    let first = (0..ATTEMPTS).find_map(|_| {
        remove(&job.path(out));
        stopped_in_place(job.dir(), line, &lock, &mut signals)
    });
    let mut first = first.unwrap_or_else(|| panic!("{line:?} was never stopped in its place"));
    let (code, said) = end(start(job.dir(), line));
    assert!(code == Some(4) && said.contains("another process is writing here"), "{line:?}: {code:?} {said}");
    assert!(first.try_wait().expect("waitable").is_none(), "{line:?}: the first was there all the time");
    signals.send("CONT", &first);
    let (code, said) = end(first);
    assert_eq!(code, Some(0), "{line:?}: {said}");
    assert!(job.path(out).exists() && !lock.exists(), "{line:?}");
}

fn remove(path: &Path) {
    if path.is_dir() {
        fs::remove_dir_all(path).expect("removable");
    } else if path.exists() {
        fs::remove_file(path).expect("removable");
    }
}

#[test]
fn writers_of_models_and_numbers_refuse_a_second_one() {
    let job = robust::job();
    for line in robust::WRITERS {
        refused_meanwhile(&job, line, "out", ".out.lock");
    }
}

#[test]
fn builds_and_conversions_of_data_refuse_a_second_one() {
    let job = Job::new();
    refused_meanwhile(&job, &["data", "build", "mix.toml", "--out", "data"], "data", "data/.units/lock");
    refused_meanwhile(&job, &["data", "convert", "data", "mds", "--to", "mds"], "mds", ".mds.lock");
}
