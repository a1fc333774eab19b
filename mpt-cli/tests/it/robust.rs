//! Mistakes with sound models and commands: each is named with its exit code, and no sound file is lost.

use std::fs;
use std::process::Stdio;

use crate::job::Job;
use crate::mpt;

const CONFIG: &str = r#"{"model_type": "mpt", "d_model": 32, "n_heads": 4, "n_layers": 1, "vocab_size": 320,
    "max_seq_len": 32, "expansion_ratio": 2, "attn_config": {"alibi": true}}"#;

/// Job with a random model in the folder `model`, with the job's tokenizer.
pub(crate) fn job() -> Job {
    let job = Job::new();
    job.write("config.json", CONFIG);
    job.done(&["init", "model", "--config", "config.json", "--seed", "4"]);
    fs::copy(job.path("tokenizer.json"), job.path("model/tokenizer.json")).expect("copied");
    job.write("ids.json", "[[1, 2, 3, 4]]");
    job.write("batches.json", "[[[1, 2, 3, 4]]]");
    job
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn weights_that_are_no_numbers_have_an_exit_code() {
    let job = job();
    let path = job.path("model/model.safetensors");
    let mut bytes = fs::read(&path).expect("readable");
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(path, bytes).expect("writable");
    let files = ["--model", "model", "--ids-file", "ids.json", "--out", "out.safetensors"];
    assert_says(&job.fails(5, &[&["score"], &files[..]].concat()), &["a logit is NaN", "mpt verify"]);
    assert_says(&job.fails(5, &[&["grad"], &files[..]].concat()), &["the loss is NaN"]);
    assert!(!job.path("out.safetensors").exists());
    assert_says(&job.fails(5, &["eval", "--model", "model", "--text", "verse.jsonl"]), &["the loss is NaN"]);
}

/// No later loss shows that the weights overflowed in the last step.
#[test]
fn weights_that_overflow_in_the_last_step_have_an_exit_code() {
    let job = job();
    let steps = |lr: &str| {
        let line = WRITERS.last().expect("steps").join(" ").replace("--lr 1 ", &format!("--lr {lr} "));
        job.run(&line.split(' ').collect::<Vec<_>>())
    };
    assert_eq!(steps("0.001").code, 0);
    fs::remove_file(job.path("out")).expect("written");
    let run = steps("1e39");
    assert_eq!(run.code, 5, "{}", run.stderr);
    assert_says(&run.stderr, &["after the last step is"]);
    assert!(!job.path("out").exists());
}

#[test]
fn one_quickstart_at_a_time_has_a_folder() {
    let job = job();
    fs::create_dir(job.path("quick")).expect("creatable");
    let lock = fs::File::create(job.path("quick/.lock")).expect("creatable");
    lock.lock().expect("locked");
    let said = job.fails(4, &["quickstart", "--dir", "quick", "--corpus", "verse.jsonl", "--steps", "1"]);
    assert_says(&said, &["quick: another process is writing here"]);
}

#[test]
fn labels_and_sequences_are_numbers_of_their_kind() {
    let job = job();
    let score = |flag: &str, numbers: &str| {
        job.write("numbers.json", numbers);
        let files = ["--ids-file", "ids.json", flag, "numbers.json", "--out", "out.safetensors"];
        job.run(&[&["score", "--model", "model"], &files[..]].concat())
    };
    assert_eq!(score("--labels-file", "[[1, -100, 3, 4]]").code, 0);
    let bad = [
        ("[[1, 2, -5, 4]]", "position 2 is -5"),
        ("[[1, 1099511627776, 3, 4]]", "position 1 is 1099511627776"),
    ];
    for (numbers, at) in bad {
        let run = score("--labels-file", numbers);
        assert_eq!(run.code, 3, "{numbers}");
        assert_says(&run.stderr, &["numbers.json: row 0, ", at, "-100"]);
    }
    let run = score("--sequence-id-file", "[[0, 0, 4294967296, 4294967296]]");
    assert_eq!(run.code, 3);
    assert_says(&run.stderr, &["position 2 is 4294967296", "32 bits"]);
}

#[test]
fn nothing_that_is_read_is_written_over() {
    let job = job();
    let before = fs::read(job.path("model/model.safetensors")).expect("readable");
    for command in ["score", "grad"] {
        for out in ["model/model.safetensors", "./model/config.json", "ids.json"] {
            let args = [command, "--model", "model", "--ids-file", "ids.json", "--out", out];
            assert_says(&job.fails(2, &args), &[out, "a file that the command reads"]);
        }
    }
    assert_says(&job.fails(2, &["convert", "model", "model", "--to", "hf"]), &["there is something already"]);
    assert!(fs::read(job.path("model/model.safetensors")).expect("readable") == before);
}

/// Commands that write to `out`.
pub(crate) const WRITERS: [&[&str]; 8] = [
    &["convert", "model", "out", "--to", "hf"],
    &["convert", "model", "out", "--to", "gguf"],
    &["quantize", "model", "out", "--type", "q8_0"],
    &["init", "out", "--config", "config.json"],
    &["score", "--model", "model", "--ids-file", "ids.json", "--out", "out"],
    &["grad", "--model", "model", "--ids-file", "ids.json", "--out", "out"],
    &["tokenizer", "train", "verse.jsonl", "--vocab-size", "300", "--out", "out"],
    &[
        "steps",
        "--model",
        "model",
        "--batches-file",
        "batches.json",
        "--optimizer",
        "lion",
        "--lr",
        "1",
        "--betas",
        "0,0",
        "--weight-decay",
        "0",
        "--clip-norm",
        "0",
        "--out",
        "out",
    ],
];

#[test]
fn a_place_that_somebody_has_is_left_to_him() {
    let job = job();
    for line in WRITERS {
        let lock = fs::File::create(job.path(".out.lock")).expect("creatable");
        lock.lock().expect("locked");
        assert_says(&job.fails(4, line), &["out: another process is writing here", "wait for it"]);
        assert!(!job.path("out").exists(), "{line:?}");
    }
}

/// After two commands at once the output is complete, and each command that did not write it reports that.
#[test]
fn two_at_once_leave_one_whole_output() {
    let job = job();
    for line in WRITERS {
        let start = || {
            let mut command = mpt();
            command.current_dir(job.dir()).args(line).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().expect("starts")
        };
        let mut children = [start(), start()];
        let codes = children.each_mut().map(|child| child.wait().expect("ends").code().expect("no signal"));
        assert!(
            codes.contains(&0) && codes.iter().all(|code| [0, 2, 4].contains(code)),
            "{line:?}: {codes:?}"
        );
        assert!(!job.path(".out.partial").exists() && !job.path(".out.lock").exists(), "{line:?}");
        let out = job.path("out");
        if out.is_dir() {
            assert!(out.join("model.safetensors").is_file() && out.join("config.json").is_file(), "{line:?}");
            fs::remove_dir_all(out).expect("removable");
        } else {
            fs::remove_file(out).expect("removable");
        }
    }
}

/// No path or argument that is not UTF-8 is a bug of `mpt`.
#[cfg(unix)]
mod odd_names {
    use std::ffi::{OsStr, OsString};
    use std::fs;
    use std::os::unix::ffi::OsStrExt;

    use super::job;
    use crate::contract::COMMAND_LINES;
    use crate::job::Job;
    use crate::mpt;

    const ODD: &[u8] = b"odd-\xff-name";
    const ODD_NEW: &[u8] = b"new-\xff-name";

    fn run(job: &Job, line: &[OsString]) -> (i32, String) {
        let output = mpt().current_dir(job.dir()).args(line).arg("--json").output().expect("starts");
        (output.status.code().expect("no signal"), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Replaces each value of each command line in turn, except where the command would run for long.
    #[test]
    fn values_that_are_no_text_are_refused() {
        let job = job();
        for line in COMMAND_LINES {
            let words: Vec<&str> = line.split(' ').collect();
            for at in (1..words.len()).filter(|&at| !words[at].starts_with("--")) {
                if ["new", "mpt-125m"].contains(&words[at])
                    && ["init", "pull", "quickstart"].contains(&words[0])
                {
                    continue;
                }
                let mut line: Vec<OsString> = words.iter().map(OsString::from).collect();
                line[at] = OsStr::from_bytes(if words[at] == "new" { ODD_NEW } else { ODD }).to_owned();
                let (code, stderr) = run(&job, &line);
                let may_be_made = words[at] == "new";
                assert!([2, 3, 4].contains(&code) || code == 0 && may_be_made, "{line:?}: {code}: {stderr}");
            }
        }
    }

    #[test]
    fn paths_that_lead_somewhere_work() {
        let job = job();
        let odd = job.path("model").with_file_name(OsStr::from_bytes(ODD));
        fs::rename(job.path("model"), &odd).expect("renamed");
        let new = |name: &[u8]| job.path("x").with_file_name(OsStr::from_bytes(name)).into_os_string();
        let word = OsString::from;
        let odd = odd.into_os_string();
        let lines = [
            vec![word("init"), new(b"i-\xfe"), word("--config"), word("config.json")],
            vec![word("info"), odd.clone()],
            vec![word("convert"), odd.clone(), new(b"c-\xfe"), word("--to"), word("hf")],
            vec![word("quantize"), odd.clone(), new(b"q-\xfe"), word("--type"), word("q8_0")],
            vec![word("generate"), word("--model"), odd.clone(), word("--prompt-ids"), word("1")],
            vec![
                word("score"),
                word("--model"),
                odd,
                word("--ids-file"),
                word("ids.json"),
                word("--out"),
                new(b"s-\xfe"),
            ],
        ];
        for line in lines {
            let (code, stderr) = run(&job, &line);
            assert_eq!(code, 0, "{line:?}: {stderr}");
        }
        for name in [&b"i-\xfe"[..], b"c-\xfe", b"q-\xfe", b"s-\xfe"] {
            assert!(job.path("x").with_file_name(OsStr::from_bytes(name)).exists(), "{name:?}");
        }
    }

    /// Puts the odd name in place of `DATA`, `RUN` or `NEW`.
    #[test]
    fn data_and_runs_of_odd_names_work() {
        let job = job();
        let named = |name: &[u8]| job.path("x").with_file_name(OsStr::from_bytes(name)).into_os_string();
        let words = [("DATA", named(b"d-\xfe")), ("RUN", named(b"r-\xfe.toml")), ("NEW", named(b"n-\xfe"))];
        fs::copy(job.path("run.toml"), &words[1].1).expect("copied");
        fs::copy(job.path("tokenizer.json"), named(b"t-\xfe")).expect("copied");
        job.done(&["data", "build", "mix.toml", "--out", "data"]);
        for line in [
            "data build mix.toml --out DATA",
            "data inspect DATA",
            "data verify DATA",
            "data cat DATA --split train --start 0 --count 1",
            "data trace DATA --sample 1",
            "data simulate DATA --samples 10 --batch 1",
            "data convert DATA NEW --to mds",
            "bench data DATA",
            "train RUN --set train.steps=2",
            "train RUN --set train.steps=2",
        ] {
            let word = |word: &str| {
                words
                    .iter()
                    .find(|(name, _)| *name == word)
                    .map_or_else(|| word.into(), |(_, odd)| odd.clone())
            };
            let line: Vec<OsString> = line.split(' ').map(word).collect();
            let (code, stderr) = run(&job, &line);
            assert_eq!(code, 0, "{line:?}: {stderr}");
        }
    }
}

#[test]
fn texts_may_begin_with_hyphens() {
    let job = job();
    let generate = ["generate", "--model", "model", "--max-new-tokens", "2"];
    job.done(&[&generate[..], &["--prompt", "- Buy milk"]].concat());
    job.done(&[&generate[..], &["--prompt", "a", "--stop", "---"]].concat());
}

#[test]
fn numbers_at_their_ends_are_refused_or_work() {
    let job = job();
    let generate = ["generate", "--model", "model", "--prompt-ids", "1", "--max-new-tokens", "1", "--n", "2"];
    for (seed, code) in [("9223372036854775807", 0), ("9223372036854775808", 2), ("18446744073709551615", 2)]
    {
        let run = job.run(&[&generate[..], &["--seed", seed]].concat());
        assert_eq!(run.code, code, "{seed}: {}", run.stderr);
    }
    job.write("model/config.json", &CONFIG.replace("\"max_seq_len\": 32", "\"max_seq_len\": 1"));
    let eval = ["eval", "--model", "model", "--text", "verse.jsonl"];
    assert_says(&job.fails(3, &eval), &["`max_seq_len` is 1", "--max-seq-len"]);
    job.done(&[&eval[..], &["--max-seq-len", "16"]].concat());
    let deep = format!("{}=1", "a.".repeat(20_000));
    assert_says(&job.fails(2, &["train", "run.toml", "--set", &deep]), &["more than 16 parts"]);
}

#[test]
fn what_was_quantized_is_what_is_said() {
    let job = job();
    let text = job.done(&["quantize", "model", "a.gguf", "--type", "q4_k"]);
    assert_says(&text, &[" of q8_0,"]);
    let said = job.json(&["quantize", "model", "b.gguf", "--type", "q4_k"]);
    assert_eq!((&said["type"], &said["dtype"]), (&"q4_k".into(), &"q8_0".into()));
    assert_eq!(job.json(&["info", "a.gguf"])["metadata"]["general.file_type"], 7);
}

#[test]
fn the_token_that_ends_a_turn_is_seen() {
    let job = job();
    let generated = || {
        let args = ["generate", "--model", "model", "--prompt-ids", "1,2", "--max-new-tokens", "6"];
        job.json(&args)["choices"][0].clone()
    };
    let free = generated();
    let first = free["ids"][0].as_u64().expect("an id");
    let table = format!(r#""added_tokens_decoder": {{"{first}": {{"content": "x-end"}}}}"#);
    job.write("model/tokenizer_config.json", &format!(r#"{{"eos_token": "x-end", {table}}}"#));
    job.write("model/generation_config.json", r#"{"eos_token_id": 0}"#);
    let ended = generated();
    assert_eq!(ended["finish_reason"], "stop", "{free} {ended}");
    assert!(ended["ids"].as_array().expect("ids").len() < 2, "{ended}");
}

#[test]
fn contents_of_messages_are_texts_or_parts_that_are() {
    let job = job();
    let apply = ["tokenizer", "apply-template", "--template", "chatml", "--messages", "chat.json"];
    let parts =
        r#"[{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]"#;
    job.write("chat.json", parts);
    let joined = job.done(&apply);
    job.write("chat.json", r#"[{"role": "user", "content": "ab"}]"#);
    assert_eq!(job.done(&apply), joined);
    for (bad, said) in [
        (r#"{"role": "assistant", "content": null}"#, "message 1: `content` is null"),
        (r#"{"role": "user", "content": [{"type": "image"}]}"#, "message 1: `content` has a part `image`"),
        (r#"{"content": "x"}"#, "message 1: `role` is missing"),
    ] {
        job.write("chat.json", &format!(r#"[{{"role": "user", "content": "a"}}, {bad}]"#));
        assert_says(&job.fails(3, &apply), &["chat.json: ", said]);
    }
}

#[test]
fn other_things_than_models_are_named() {
    let job = job();
    let info = |path: &str| job.fails(3, &["info", path]);
    assert_says(&info("model/model.safetensors"), &["a weights file", "name the folder"]);
    assert_says(&info("mosaicml/mpt-7b"), &["nothing on this machine", "mpt pull"]);
    job.write("model/tokenizer.json", "version https://git-lfs.github.com/spec/v1\noid sha256:00\n");
    let encode = ["tokenizer", "encode", "--tokenizer", "model/tokenizer.json", "a"];
    assert_says(&job.fails(3, &encode), &["Git LFS pointer", "git lfs pull"]);
}

#[test]
fn sound_models_of_few_bits_pass_and_a_zero_layer_does_not() {
    let job = job();
    job.write("wide.json", &CONFIG.replace("\"d_model\": 32", "\"d_model\": 256"));
    job.done(&["init", "wide", "--config", "wide.json"]);
    let wide = job.path("wide/model.safetensors");
    for form in ["q8_0", "q4_k"] {
        job.done(&["quantize", "wide", &format!("{form}.gguf"), "--type", form]);
        job.done(&["verify", &format!("{form}.gguf")]);
        job.done(&["verify", &format!("{form}.gguf"), "--against", "wide"]);
    }
    let mut bytes = fs::read(&wide).expect("there");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).expect("JSON");
    let offsets = &header["transformer.blocks.0.attn.out_proj.weight"]["data_offsets"];
    let at = |end: usize| 8 + length + offsets[end].as_u64().expect("an offset") as usize;
    bytes[at(0)..at(1)].fill(0);
    fs::create_dir(job.path("zero")).expect("creatable");
    fs::write(job.path("zero/model.safetensors"), bytes).expect("writable");
    fs::copy(job.path("wide/config.json"), job.path("zero/config.json")).expect("copied");
    job.done(&["quantize", "zero", "zero.gguf", "--type", "q4_k"]);
    let run = job.run(&["verify", "zero.gguf", "--against", "wide"]);
    assert_eq!(run.code, 1, "{}", run.stdout);
    assert_says(
        &run.stdout,
        &["FAILED matrices are the other model's, rounded: `transformer.blocks.0.attn.out_proj.weight`"],
    );
}

#[test]
fn a_finished_run_says_so_and_what_to_do_to_go_on() {
    let job = job();
    job.done(&["data", "build", "mix.toml", "--out", "data"]);
    let train = ["train", "run.toml", "--set", "train.steps=2"];
    assert_says(&job.done(&train), &["done after step 2: loss "]);
    let again = job.run(&train);
    assert_says(&again.stdout, &["done after step 2: loss "]);
    assert_says(&again.stderr, &["this run is done; to go on, raise `train.steps`"]);
}

#[test]
fn info_says_whose_defaults_hold() {
    let job = job();
    let (class, remote) =
        ("\"architectures\": [\"MptForCausalLM\"]", "\"architectures\": [\"MPTForCausalLM\"]");
    for (key, name) in [(class, "transformers"), (remote, "llm-foundry")] {
        let keys = format!("{{{key}, \"no_bias\": true, \"learned_pos_emb\": false, ");
        job.write("model/config.json", &CONFIG.replacen('{', &keys, 1));
        assert_eq!(job.json(&["info", "model"])["defaults"], name);
        assert_says(&job.done(&["info", "model"]), &[&format!("have the defaults of {name}")]);
    }
}

#[test]
fn sizes_that_no_machine_has_are_refused_with_their_bytes() {
    let job = job();
    job.done(&["data", "build", "mix.toml", "--out", "data"]);
    let train = |setting: &str| job.fails(4, &["train", "run.toml", "--set", setting]);
    assert_says(&train("train.batch_size=1000000000000000"), &["bytes of memory cannot be had"]);
    job.write("huge.json", &CONFIG.replace("\"vocab_size\": 320", "\"vocab_size\": 1073741824"));
    job.write(
        "huge.json",
        &fs::read_to_string(job.path("huge.json")).expect("there").replace("32,", "268435456,"),
    );
    for line in [&["init", "huge", "--config", "huge.json"][..], &["bench", "train", "--config", "huge.json"]]
    {
        assert_says(&job.fails(4, line), &["bytes of memory cannot be had"]);
    }
    assert!(!job.path("huge").exists());
    let generate =
        ["generate", "--model", "model", "--prompt-ids", "1", "--max-new-tokens", "18446744073709551615"];
    job.done(&[&generate[..], &["--max-seq-len", "3"]].concat());
}

/// A run that exceeds the process's memory limit ends with a message, not an abort.
#[cfg(target_os = "linux")]
#[test]
fn memory_that_is_not_given_is_an_error() {
    let job = job();
    job.done(&["data", "build", "mix.toml", "--out", "data"]);
    let line =
        ["train", "run.toml", "--threads", "2", "--set", "model.d_model=1024", "--set", "model.n_layers=4"];
    let limited = std::process::Command::new("sh")
        .args(["-c", "ulimit -v 800000; exec \"$0\" \"$@\""])
        .arg(mpt().get_program())
        .args(line)
        .current_dir(job.dir())
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&limited.stderr);
    assert_eq!(limited.status.code(), Some(4), "{said}");
    assert_says(&said, &["bytes of memory cannot be had"]);
}

#[cfg(unix)]
#[test]
fn an_interrupt_is_told_to_programs() {
    let job = job();
    let args = ["generate", "--model", "model", "--prompt-ids", "1", "--max-new-tokens", "1000000", "--json"];
    // an interrupt before the handler is installed ends the process by the signal: then later
    let interrupted = |wait: u64| {
        let command =
            mpt().current_dir(job.dir()).args(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let child = command.expect("starts");
        std::thread::sleep(std::time::Duration::from_millis(wait));
        let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        sent.expect("kill is there");
        let output = child.wait_with_output().expect("ends");
        output.status.code().map(|code| (code, output.stdout))
    };
    let (code, stdout) =
        [200, 1000, 5000, 20_000].into_iter().find_map(interrupted).expect("it listens by then");
    assert_eq!(code, 130);
    let said: serde_json::Value = serde_json::from_slice(&stdout).expect("one document");
    assert_eq!(said["choices"][0]["finish_reason"], "interrupted");
}
