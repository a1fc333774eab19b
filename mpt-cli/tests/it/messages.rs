//! Messages and exit codes of common mistakes, as recorded in `messages.txt` beside this file.
//!
//! `UPDATE_SNAPSHOTS=1` records the current messages.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::job::Job;
use crate::{finish, mpt};

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/messages.txt");
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 13298\n";
const CONFIG: &str = r#"{"model_type": "mpt", "d_model": 32, "n_heads": 4, "n_layers": 1, "vocab_size": 320,
    "max_seq_len": 32, "expansion_ratio": 2, "attn_config": {"alibi": true}}"#;

/// Mistake: its preparation, and the command lines that run into it.
type Mistake = (&'static str, fn(&Job), &'static [&'static str]);

const MISTAKES: &[Mistake] = &[
    (
        "a Git LFS pointer",
        |job| {
            for (folder, file) in
                [("lfs", "model.safetensors"), ("lfs-config", "config.json"), ("lfs-text", "tokenizer.json")]
            {
                copy_model(job, folder);
                job.write(&format!("{folder}/{file}"), POINTER);
            }
            job.write("lfs.gguf", POINTER);
            copy_model(job, "lfs-template");
            job.write("lfs-template/tokenizer_config.json", POINTER);
        },
        &[
            "info lfs",
            "info lfs-config",
            "info lfs.gguf",
            "tokenizer encode --tokenizer lfs-text/tokenizer.json x",
            "tokenizer apply-template --model lfs-template --messages chat.json",
        ],
    ),
    (
        "an incomplete download",
        |job| {
            copy_model(job, "part");
            fs::rename(job.path("part/model.safetensors"), job.path("part/model-00001-of-00002.safetensors"))
                .expect("renamed");
            index(job, "part", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
            copy_model(job, "lacks");
            edit(job, "lacks", without_last_norm);
            fs::rename(job.path("lacks/model.safetensors"), job.path("lacks/a.safetensors"))
                .expect("renamed");
            index(job, "lacks", "a.safetensors", "a.safetensors");
        },
        &["info part", "info lacks"],
    ),
    (
        "a stray file beside an index",
        |job| {
            copy_model(job, "stray");
            index(job, "stray", "model.safetensors", "other.safetensors");
            copy_model(job, "stray-half");
            edit(job, "stray-half", without_last_norm);
            index(job, "stray-half", "other.safetensors", "other.safetensors");
        },
        &["generate --model stray --prompt-ids 1 --max-new-tokens 1", "info stray-half"],
    ),
    (
        "a head that is there and tied, or absent and not tied",
        |job| {
            copy_model(job, "differs");
            edit(job, "differs", with_another_head);
            copy_model(job, "headless");
            let untied = CONFIG.replacen('{', "{\"tie_word_embeddings\": false, ", 1);
            job.write("headless/config.json", &untied);
        },
        &["info differs", "info headless"],
    ),
    (
        "what JSON does not have in config.json",
        |job| {
            for (folder, config) in [
                ("nan", CONFIG.replacen('{', "{\"emb_pdrop\": NaN, ", 1)),
                ("infinity", CONFIG.replacen('{', "{\"emb_pdrop\": -Infinity, ", 1)),
                ("mark", format!("\u{feff}{CONFIG}")),
            ] {
                copy_model(job, folder);
                job.write(&format!("{folder}/config.json"), &config);
            }
        },
        &["info nan", "info infinity", "info mark"],
    ),
    (
        "a GGUF file that is a part, or of another kind of machine",
        |job| {
            let mut bytes = b"GGUF".to_vec();
            bytes.extend(3u32.to_be_bytes());
            bytes.extend([0; 32]);
            fs::write(job.path("big-endian.gguf"), bytes).expect("writable");
            let mut part = b"GGUF\x03\0\0\0".to_vec();
            part.extend(0u64.to_le_bytes());
            part.extend(1u64.to_le_bytes());
            part.extend(11u64.to_le_bytes());
            part.extend(b"split.count\x02\0\0\0\x03\0");
            fs::write(job.path("part.gguf"), part).expect("writable");
        },
        &["info big-endian.gguf", "info part.gguf"],
    ),
    (
        "other things than models",
        |job| {
            for folder in ["adapter", "data-folder", "new-run/checkpoints"] {
                fs::create_dir_all(job.path(folder)).expect("creatable");
            }
            job.write("adapter/adapter_config.json", "{}");
            job.write("data-folder/manifest.json", "{}");
        },
        &[
            "info model/model.safetensors",
            "generate --model adapter --prompt x",
            "eval --model data-folder --text verse.jsonl",
            "info new-run",
            "convert mosaicml/mpt-7b out --to hf",
        ],
    ),
    (
        "adapters that are not whole, or are more than adapters",
        |job| {
            for (folder, config) in [
                (
                    "pissa",
                    json!({ "peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["Wqkv"], "init_lora_weights": "pissa" }),
                ),
                (
                    "alora",
                    json!({ "peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["Wqkv"], "alora_invocation_tokens": [1] }),
                ),
                (
                    "empty",
                    json!({ "peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["Wqkv"] }),
                ),
            ] {
                fs::create_dir(job.path(folder)).expect("creatable");
                job.write(&format!("{folder}/adapter_config.json"), &config.to_string());
                fs::write(job.path(folder).join("adapter_model.safetensors"), b"\x02\0\0\0\0\0\0\0{}")
                    .expect("writable");
            }
        },
        &[
            "merge --model model --adapter pissa --out merged",
            "merge --model model --adapter alora --out merged",
            "merge --model model --adapter empty --out merged",
        ],
    ),
    (
        "values of another type, and keys that nobody knows, in run files",
        |job| {
            let run = fs::read_to_string(job.path("run.toml")).expect("there");
            job.write("typed.toml", &run.replace("lr = 3e-3", "lr = \"fast\""));
            job.write("misspelt.toml", &run.replace("batch_size", "bach_size"));
        },
        &[
            "train typed.toml",
            "train misspelt.toml",
            "train run.toml --set optimizer.lr=fast",
            "train run.toml --set train.steps",
        ],
    ),
    (
        "messages that are no conversation",
        |job| {
            job.write(
                "null.json",
                r#"[{"role": "user", "content": "a"}, {"role": "assistant", "content": null}]"#,
            );
            job.write("image.json", r#"[{"role": "user", "content": [{"type": "image"}]}]"#);
            job.write("no-role.json", r#"[{"content": "a"}]"#);
        },
        &[
            "tokenizer apply-template --template chatml --messages null.json",
            "tokenizer apply-template --template chatml --messages image.json",
            "tokenizer apply-template --template chatml --messages no-role.json",
        ],
    ),
    (
        "texts that end early, and vocabularies that fall short",
        |job| {
            job.write("learned.json", &CONFIG.replace("\"alibi\": true", "\"alibi\": false"));
            job.done(&["init", "learned", "--config", "learned.json"]);
            job.write("little.txt", "one two");
        },
        &[
            "generate --model learned --prompt-ids 1,2 --max-new-tokens 64 --json",
            "generate --model learned --prompt-ids 1,2,3 --max-seq-len 3",
            "tokenizer train little.txt --vocab-size 5000 --out little.json",
        ],
    ),
    (
        "a place that is taken",
        |job| {
            fs::create_dir(job.path("taken")).expect("creatable");
            job.write("taken/note.txt", "mine");
        },
        &[
            "convert model taken --to hf",
            "quantize model model/config.json --type q8_0",
            "convert model model --to hf",
            "score --model model --ids-file ids.json --out model/model.safetensors",
            "tokenizer train little.txt --vocab-size 300 --out little.txt",
        ],
    ),
    (
        "files that say when a text ends, where it is not asked",
        |job| {
            copy_model(job, "no-end");
            job.write("no-end/generation_config.json", "{");
            job.write("no-end/tokenizer_config.json", "{");
        },
        &["eval --model no-end --text verse.jsonl --json", "generate --model no-end --prompt-ids 1"],
    ),
    (
        "more than the machine has",
        |job| {
            job.write(
                "huge.json",
                &CONFIG
                    .replace("\"vocab_size\": 320", "\"vocab_size\": 1073741824")
                    .replace("\"d_model\": 32", "\"d_model\": 268435456"),
            )
        },
        &[
            "init huge --config huge.json",
            "bench train --config huge.json",
            "bench infer --config huge.json",
            "bench train --config config.json --seq-len 1048576 --batch 65536",
        ],
    ),
    (
        "values of a model or adapter beyond a form",
        |job| {
            copy_model(job, "large");
            let path = job.path("large/model.safetensors");
            let mut bytes = fs::read(&path).expect("there");
            let end = bytes.len();
            bytes[end - 4..].copy_from_slice(&1e30f32.to_le_bytes());
            fs::write(path, bytes).expect("writable");
        },
        &[
            "convert large half --to hf --dtype f16",
            "generate --model large --prompt-ids 1 --dtype f16",
            "quantize large large.gguf --type q8_0",
        ],
    ),
];

#[test]
fn messages_are_as_recorded() {
    let job = Job::new();
    job.write("config.json", CONFIG);
    job.done(&["init", "model", "--config", "config.json", "--seed", "4"]);
    fs::write(job.path("model/config.json"), CONFIG).expect("writable");
    fs::copy(job.path("tokenizer.json"), job.path("model/tokenizer.json")).expect("copied");
    job.write("ids.json", "[[1, 2, 3, 4]]");
    job.write("chat.json", r#"[{"role": "user", "content": "leaf"}]"#);
    let mut found = String::new();
    for (title, prepare, lines) in MISTAKES {
        prepare(&job);
        let _ = write!(found, "## {title}\n\n");
        lines.iter().for_each(|line| found.push_str(&said(&job, line)));
    }
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(RECORD, &found).expect("writable");
    }
    let recorded = fs::read_to_string(RECORD).unwrap_or_default();
    for (found, recorded) in found.lines().zip(recorded.lines()) {
        assert_eq!(found, recorded, "UPDATE_SNAPSHOTS=1 records what is said now");
    }
    assert_eq!(found.lines().count(), recorded.lines().count());
}

#[test]
fn an_environment_variable_at_fault_is_named() {
    let said = |name: &str, value: &str, args: &[&str]| {
        let run = finish(mpt().env(name, value).args(["completions", "bash"]).args(args));
        assert_eq!(run.code, 2, "{name}: {}", run.stderr);
        run.stderr
    };
    for (name, value) in
        [("MPT_THREADS", "0"), ("MPT_SEED", "x"), ("MPT_DEVICE", "gpu"), ("MPT_LOG_FORMAT", "xml")]
    {
        let help = format!("help: the value is that of the environment variable {name}; change or unset it");
        assert!(said(name, value, &[]).contains(&help), "{name}");
    }
    assert!(!said("MPT_THREADS", "2", &["--threads", "0"]).contains("MPT_THREADS"));
}

/// Command line, exit code and stderr. Paths are as given, so nothing of the machine is in it.
fn said(job: &Job, line: &str) -> String {
    let args: Vec<&str> = line.split(' ').collect();
    let run = job.run(&args);
    let shown = run.stderr.replace(&*job.dir().to_string_lossy(), "DIR");
    format!("$ mpt {line}\n[{}] {}\n\n", run.code, shown.trim_end())
}

fn copy_model(job: &Job, to: &str) {
    fs::create_dir(job.path(to)).expect("creatable");
    for entry in fs::read_dir(job.path("model")).expect("a folder") {
        let from = entry.expect("a file").path();
        fs::copy(&from, job.path(to).join(from.file_name().expect("a name"))).expect("copied");
    }
}

/// Writes an index that places the last tensor in one file and all others in another.
fn index(job: &Job, folder: &str, others: &str, last: &str) {
    let header = header(&job.path("model/model.safetensors"));
    let file = |name: &String| if name == "transformer.norm_f.weight" { last } else { others };
    let map: Map<String, Value> = header
        .0
        .keys()
        .filter(|name| *name != "__metadata__")
        .map(|name| (name.clone(), file(name).into()))
        .collect();
    job.write(&format!("{folder}/model.safetensors.index.json"), &json!({ "weight_map": map }).to_string());
}

/// Tensor of a safetensors file: name, header entry, bytes.
type Tensor = (String, Value, Vec<u8>);

/// Header of a safetensors file, and the data after it.
fn header(path: &Path) -> (Map<String, Value>, Vec<u8>) {
    let bytes = fs::read(path).expect("there");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    (serde_json::from_slice(&bytes[8..8 + length]).expect("JSON"), bytes[8 + length..].to_vec())
}

/// Rewrites a folder's weights with changed tensors.
fn edit(job: &Job, folder: &str, change: fn(&mut Vec<Tensor>)) {
    let path = job.path(folder).join("model.safetensors");
    let (old, data) = header(&path);
    let tensor = |(name, said): (String, Value)| {
        let offset = |end: usize| said["data_offsets"][end].as_u64().map(|offset| offset as usize);
        let bytes = data[offset(0)?..offset(1)?].to_vec();
        Some((name, said, bytes))
    };
    let mut tensors: Vec<Tensor> = old.into_iter().filter_map(tensor).collect();
    change(&mut tensors);
    let (mut new, mut written) = (Map::new(), Vec::new());
    for (name, mut said, bytes) in tensors {
        said["data_offsets"] = json!([written.len(), written.len() + bytes.len()]);
        written.extend(bytes);
        new.insert(name, said);
    }
    let text = Value::Object(new).to_string();
    let text = format!("{text}{}", " ".repeat(text.len().next_multiple_of(8) - text.len()));
    let bytes = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &written].concat();
    fs::write(path, bytes).expect("writable");
}

fn without_last_norm(tensors: &mut Vec<Tensor>) {
    tensors.retain(|(name, ..)| name != "transformer.norm_f.weight");
}

fn with_another_head(tensors: &mut Vec<Tensor>) {
    let embedding = tensors.iter().find(|(name, ..)| name == "transformer.wte.weight").expect("there");
    let (_, said, mut bytes) = embedding.clone();
    bytes[0] ^= 1;
    tensors.push(("lm_head.weight".into(), said, bytes));
}
