//! Rules of every command: help, exit codes, format of errors, closed pipes.

use std::process::Stdio;

use crate::{finish, mpt, run, run_in};

/// Commands and subcommands, as the help lists them.
fn commands_below(path: &[String]) -> Vec<Vec<String>> {
    let args: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
    let help = run(&args);
    assert_eq!((help.code, help.stderr.as_str()), (0, ""), "{args:?}");
    let list = help.stdout.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
    let names = list.lines().take_while(|line| !line.is_empty()).filter_map(|line| {
        let name = line.strip_prefix("  ")?.split(' ').next()?;
        (!name.is_empty() && name != "help").then(|| name.to_owned())
    });
    let below = names.map(|name| [path, &[name]].concat());
    below.flat_map(|path| [vec![path.clone()], commands_below(&path)].concat()).collect()
}

#[test]
fn every_command_has_a_help_with_examples() {
    let commands = commands_below(&[]);
    assert!(!commands.is_empty());
    for path in commands {
        let args: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let help = run(&args);
        assert_eq!(help.code, 0, "{args:?}");
        assert!(help.stdout.contains("Usage: mpt"), "{args:?}");
        if !help.stdout.contains("\nCommands:\n") {
            assert!(help.stdout.contains("Example"), "{args:?} shows no example");
        }
    }
}

#[test]
fn no_arguments_print_the_help_with_the_usage_code() {
    let run = run(&[]);
    assert_eq!((run.code, run.stdout.as_str()), (2, ""));
    assert!(run.stderr.contains("Usage: mpt"));
}

#[test]
fn unknown_flags_and_commands_are_usage_errors_with_the_nearest_name() {
    let flag = run(&["completions", "bash", "--threds", "2"]);
    assert_eq!((flag.code, flag.stdout.as_str()), (2, ""));
    assert!(flag.stderr.contains("--threads"), "{}", flag.stderr);
    let command = run(&["completion", "bash"]);
    assert_eq!(command.code, 2);
    assert!(command.stderr.contains("completions"), "{}", command.stderr);
}

#[test]
fn usage_errors_are_json_where_json_logs_are_asked_for() {
    let run = run(&["completions", "--log-format", "json", "basj"]);
    assert_eq!(run.code, 2);
    let record: serde_json::Value = serde_json::from_str(&run.stderr).expect("one JSON line");
    assert_eq!((&record["level"], &record["exit_code"]), (&"error".into(), &2.into()));
    assert!(record["message"].as_str().is_some_and(|message| message.contains("basj")), "{record}");
}

#[test]
fn completions_name_every_command() {
    let script = run(&["completions", "bash"]);
    assert_eq!((script.code, script.stderr.as_str()), (0, ""));
    for path in commands_below(&[]) {
        assert!(script.stdout.contains(path.last().expect("a name")), "{path:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = mpt()
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn a_full_disk_under_stdout_is_a_system_error() {
    let Ok(full) = std::fs::File::create("/dev/full") else {
        println!("skipped: no /dev/full here");
        return;
    };
    let run = finish_with_stdout(full);
    assert_eq!(run.0, 4);
    assert!(run.1.starts_with("error: standard output cannot be written\n  caused by: "), "{}", run.1);
}

fn finish_with_stdout(stdout: std::fs::File) -> (i32, String) {
    let output =
        mpt().args(["completions", "zsh"]).stdout(stdout).stderr(Stdio::piped()).spawn().expect("starts");
    let output = output.wait_with_output().expect("ends");
    (output.status.code().expect("no signal"), String::from_utf8(output.stderr).expect("UTF-8"))
}

#[test]
fn the_environment_stands_in_for_flags() {
    let run = finish(mpt().env("MPT_THREADS", "0").args(["completions", "bash"]));
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("--threads"), "{}", run.stderr);
    let run = finish(mpt().env("MPT_CPU_LEVEL", "avx9").args(["completions", "bash"]));
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("`avx9`, expected one of baseline, avx2"), "{}", run.stderr);
}

/// Valid command line of every command.
pub(crate) const COMMAND_LINES: [&str; 33] = [
    "quickstart --dir new",
    "pull owner/name --dir new",
    "tokenizer train text.txt --vocab-size 300 --out new",
    "tokenizer encode --tokenizer nowhere text",
    "tokenizer decode --tokenizer nowhere --ids 1",
    "tokenizer apply-template --template chatml --messages nowhere",
    "data build mix.toml --out new",
    "data inspect nowhere",
    "data verify nowhere",
    "data cat nowhere",
    "data trace nowhere --sample 1",
    "data simulate nowhere --samples 10 --batch 1",
    "data convert nowhere new --to mds",
    "data plan mix.toml",
    "data unit mix.toml id --out new",
    "data commit mix.toml --out new",
    "train run.toml",
    "eval --model nowhere --text text.txt",
    "generate --model nowhere --prompt-ids 1",
    "score --model nowhere --ids-file ids.json --out new",
    "grad --model nowhere --ids-file ids.json --out new",
    "steps --model nowhere --batches-file b.json --optimizer lion --lr 1 --betas 0,0 --weight-decay 0 --clip-norm 0 --out new",
    "init new --preset mpt-125m",
    "convert nowhere new --to hf",
    "quantize nowhere new --type q4_k",
    "merge --model nowhere --adapter nowhere --out new",
    "verify nowhere",
    "info nowhere",
    "bench train --config config.json",
    "bench infer --model nowhere",
    "bench tokenizer --tokenizer nowhere text.txt",
    "bench data nowhere",
    "completions bash",
];

#[test]
fn a_device_this_build_lacks_is_refused_by_every_command_before_any_work() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let lines = COMMAND_LINES.map(|line| line.split(' ').collect::<Vec<_>>());
    for path in commands_below(&[]) {
        let is_group = !commands_below(&path).is_empty();
        let is_covered = lines.iter().any(|line| line.iter().zip(&path).all(|(word, name)| word == name));
        assert!(is_group || is_covered, "{path:?} has no command line here");
    }
    for line in lines {
        let run = run_in(temp.path(), &[&line[..], &["--device", "cuda:1"]].concat());
        assert_eq!((run.code, run.stdout.as_str()), (4, ""), "{line:?}: {}", run.stderr);
        assert!(run.stderr.contains("`cuda:1` is not supported by this build"), "{line:?}: {}", run.stderr);
        let left = std::fs::read_dir(temp.path()).expect("a folder").count();
        assert_eq!(left, 0, "{line:?} began its work");
    }
    let by_environment = finish(mpt().env("MPT_DEVICE", "cuda").args(["info", "nowhere"]));
    assert_eq!(by_environment.code, 4, "{}", by_environment.stderr);
}
