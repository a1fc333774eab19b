//! The main job from raw text to generated text, as its user runs it, and its errors.

use serde_json::Value;

use crate::job::Job;

#[test]
fn text_becomes_a_model_that_writes() {
    let job = Job::new();
    let table = build_data(&job);
    check_html_report(&job, &table);
    assert_eq!(job.json(&["data", "verify", "data"])["ok"], true);
    assert_eq!(job.json(&["data", "plan", "mix.toml"]), table);

    let trained = job.json(&["train", "run.toml"]);
    let loss = |key: &str| trained[key].as_f64().expect("a number");
    assert!(loss("last_loss") < loss("first_loss") - 1.0, "{trained}");

    thin_data_by_meaning(&job);
    evaluate(&job);
    generate(&job);
}

/// Builds the data, and checks that its account of tokens adds up. Returns the mix table.
fn build_data(job: &Job) -> Value {
    let built = job.json(&["data", "build", "mix.toml", "--out", "data"]);
    assert!(built["train_tokens"].as_u64().is_some_and(|tokens| tokens > 5000), "{built}");
    let mut table = job.json(&["data", "inspect", "data"]);
    assert_eq!(table["sources"].as_array().map(Vec::len), Some(2));
    for row in [&built, &table].into_iter().flat_map(|table| table["sources"].as_array().expect("a list")) {
        let number = |key: &str| row[key].as_i64().expect("a number");
        let sum = number("tokens_kept") + number("tokens_dropped") + number("tokens_edited_away");
        assert_eq!(
            (number("tokens_read"), number("tokens_kept")),
            (sum, number("tokens") + number("eval_tokens"))
        );
    }
    let dedup =
        table.as_object_mut().and_then(|table| table.remove("dedup")).expect("a report of each stage");
    assert_eq!((&dedup, &dedup[0]["kind"]), (&built["dedup"], &"exact".into()));
    table
}

/// Checks that the report's document lengths add up to the documents of `table`.
fn check_html_report(job: &Job, table: &Value) {
    let shown = job.done(&["data", "inspect", "data", "--html", "page.html"]);
    assert!(shown.contains("tokens read") && shown.contains("+ edited away"), "{shown}");
    let page = std::fs::read_to_string(job.path("page.html")).expect("a page");
    let documents: u64 = page
        .split_once("Length of documents")
        .and_then(|(_, rest)| rest.split_once("</section>"))
        .map(|(section, _)| {
            section
                .split("<span>")
                .skip(2)
                .step_by(2)
                .filter_map(|cell| cell.split('<').next()?.replace(',', "").parse::<u64>().ok())
                .sum()
        })
        .expect("a section");
    let stayed = table["sources"].as_array().into_iter().flatten();
    let stayed = stayed
        .map(|row| row["documents"].as_u64().unwrap_or(0) + row["eval_documents"].as_u64().unwrap_or(0));
    assert_eq!(documents, stayed.sum::<u64>(), "{page}");
}

/// Builds the data again with semantic deduplication by the trained model, which drops half of the documents.
fn thin_data_by_meaning(job: &Job) {
    let mix = std::fs::read_to_string(job.path("mix.toml")).expect("readable");
    let dedup = "dedup = { kind = \"semdedup\", model = \"run\", keep = 0.5, tokens = 16 }";
    job.write("thin.toml", &format!("{dedup}\n{mix}"));
    let thin = job.json(&["data", "build", "thin.toml", "--out", "thin"]);
    let number = |value: &Value| value.as_u64().expect("a number");
    let counts = thin["dedup"][1]["sources"].as_array().expect("a list").iter();
    let (came, went) =
        counts.fold((0, 0), |sum, own| (sum.0 + number(&own["documents"]), sum.1 + number(&own["dropped"])));
    assert!(went > 0 && (came as i64 - 2 * went as i64).abs() <= 1, "half of {came} went: {went}");
    let shown = job.done(&["data", "inspect", "thin"]);
    assert!(shown.contains("\nsemdedup: by similarity: ") && shown.contains("; threshold 0."), "{shown}");
    job.write("unknown.toml", &format!("{}\n{mix}", dedup.replace("\"run\"", "\"nowhere\"")));
    assert!(job.fails(3, &["data", "build", "unknown.toml", "--out", "none"]).contains("nowhere"));
}

/// Evaluates the trained model.
fn evaluate(job: &Job) {
    let info = job.json(&["info", "run"]);
    assert_eq!(info["parameters"], 2 * 12 * 32 * 32 + 320 * 32 + 5 * 32);
    job.write("text.txt", "river stone cloud leaf moon river stone");
    let eval = job.json(&["eval", "--model", "run", "--text", "text.txt"]);
    let (nats, perplexity) =
        (eval["loss"].as_f64().expect("a number"), eval["perplexity"].as_f64().expect("a number"));
    assert!((nats.exp() - perplexity).abs() < 1e-9 && nats < 5.0, "{eval}");
}

/// Generates text from text and from ids, with every dtype of the key/value cache.
fn generate(job: &Job) {
    let args = ["generate", "--model", "run", "--prompt", "river", "--max-new-tokens", "5"];
    let generated = job.json(&args);
    let choice = &generated["choices"][0];
    assert_eq!(
        (choice["ids"].as_array().map(Vec::len), &choice["finish_reason"]),
        (Some(5), &"length".into())
    );
    assert_eq!(job.done(&args).trim_end_matches('\n'), choice["text"].as_str().expect("text"));
    let by_ids = job.json(&["generate", "--model", "run", "--prompt-ids", "5,6", "--max-new-tokens", "3"]);
    assert!(by_ids["choices"][0]["text"].is_null());
    for dtype in ["f32", "bf16", "int8"] {
        let kept = job.json(&[&args[..], &["--kv-dtype", dtype]].concat());
        assert_eq!(kept["usage"]["completion_tokens"], 5, "{dtype}");
    }
    assert!(job.fails(2, &[&args[..], &["--kv-dtype", "int4"]].concat()).contains("int8"));
}

#[test]
fn tokens_go_there_and_back() {
    let job = Job::new();
    let ids: serde_json::Value = serde_json::from_str(&job.done(&[
        "tokenizer",
        "encode",
        "--tokenizer",
        "tokenizer.json",
        "leaf  moon",
    ]))
    .expect("JSON");
    let list: Vec<String> = ids["ids"].as_array().expect("ids").iter().map(ToString::to_string).collect();
    let text = job.done(&["tokenizer", "decode", "--tokenizer", "tokenizer.json", "--ids", &list.join(",")]);
    assert_eq!(text, "leaf  moon\n");
    let lines = job.done(&["tokenizer", "encode", "--tokenizer", "tokenizer.json", "--jsonl", "verse.jsonl"]);
    assert_eq!(lines.lines().count(), 200);
    job.fails(2, &["tokenizer", "decode", "--tokenizer", "tokenizer.json", "--ids", "99999"]);
    job.fails(3, &["tokenizer", "encode", "--tokenizer", "mix.toml", "text"]);
}

#[test]
fn ranks_print_their_share_of_the_samples() {
    let job = Job::new();
    job.done(&["data", "build", "mix.toml", "--out", "data"]);
    let cat =
        |more: &[&str]| job.done(&[&["data", "cat", "data", "--start", "3", "--count", "8"], more].concat());
    let whole = cat(&[]);
    let halves = cat(&["--world-size", "2", "--rank", "0"]) + &cat(&["--world-size", "2", "--rank", "1"]);
    assert_eq!(halves, whole);
    let first: serde_json::Value = serde_json::from_str(whole.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&first["index"], first["ids"].as_array().map(Vec::len)), (&3.into(), Some(32)));
    job.fails(2, &["data", "cat", "data", "--count", "3", "--world-size", "2"]);
}

#[test]
fn threads_change_no_byte() {
    let job = Job::new();
    for threads in ["1", "2"] {
        let (data, run) = (format!("data{threads}"), format!("run_dir=run{threads}"));
        job.done(&["data", "build", "mix.toml", "--out", &data, "--threads", threads]);
        job.done(&[
            "train",
            "run.toml",
            "--threads",
            threads,
            "--set",
            &run,
            "--set",
            &format!("data.dir={data}"),
        ]);
    }
    let weights = |run: &str| {
        std::fs::read(job.path(run).join("checkpoints/step-00000020/model.safetensors")).expect("saved")
    };
    assert!(weights("run1") == weights("run2"));
}

#[test]
fn bad_input_is_named() {
    let job = Job::new();
    for command in [&["build", "no.toml"][..], &["unit", "no.toml", "0"], &["commit", "no.toml"]] {
        let said = job.fails(2, &[&["data"], command, &["--out", "x"]].concat());
        assert!(said.contains("no.toml: the mix file cannot be read: "), "{said}");
        assert!(said.contains("; name the TOML file that holds the `[[sources]]`"), "{said}");
        assert!(!job.path("x").exists(), "{command:?}");
    }
    assert!(job.fails(2, &["data", "plan", "no.toml"]).contains("no.toml: the mix file cannot be read: "));
    assert!(job.fails(2, &["train", "no.toml"]).contains("no.toml: the run file cannot be read: "));
    let mix = std::fs::read_to_string(job.path("mix.toml")).expect("readable");
    let fails = |code: i32, from: &str, to: &str| {
        assert!(mix.contains(from), "{from}");
        job.write("bad.toml", &mix.replacen(from, to, 1));
        job.fails(code, &["data", "build", "bad.toml", "--out", "bad"])
    };
    assert!(
        fails(2, "proportion", "propotion")
            .contains("bad.toml:7: unknown key `propotion`, did you mean `proportion`?")
    );
    assert!(fails(2, "0.7", "0.6").contains("`proportion` is 0.9 in sum"));
    assert!(fails(2, "verse.jsonl", "vers.jsonl").contains("source `verse`: no file matches"));
    assert!(fails(3, "tokenizer.json", "nope.json").contains("nope.json: reading failed"));
    job.write("verse.jsonl", "{\"text\": \"fine\"}\n{\"text\": \n");
    assert!(
        job.fails(3, &["data", "build", "mix.toml", "--out", "bad"]).contains("verse.jsonl:2: broken JSON")
    );
    job.write("verse.jsonl", "{\"text\": \"\"}\n");
    assert!(
        job.fails(3, &["data", "build", "mix.toml", "--out", "bad2"]).contains("source `verse` is empty")
    );
    assert!(job.fails(2, &["train", "run.toml", "--set", "train.stepz=3"]).contains("did you mean `steps`?"));
    assert!(job.fails(3, &["info", "nowhere"]).contains("nowhere"));
    assert!(
        job.fails(2, &["generate", "--model", "nowhere", "--dtype", "nf5", "--prompt-ids", "1"])
            .contains("--dtype")
    );
}

#[test]
fn damaged_shards_are_named() {
    let job = Job::new();
    job.done(&["data", "build", "mix.toml", "--out", "data"]);
    let path = job.path("data/train/verse/00000.parquet");
    let bytes = std::fs::read(&path).expect("readable");
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 3] ^= 1;
    std::fs::write(&path, &flipped).expect("writable");
    assert!(job.fails(3, &["data", "verify", "data"]).contains("train/verse/00000.parquet: row "));
    assert!(
        job.fails(3, &["train", "run.toml", "--set", "train.steps=400"])
            .contains("train/verse/00000.parquet: row ")
    );
    std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("writable");
    assert!(job.fails(3, &["data", "verify", "data"]).contains("truncated"));
}

#[test]
fn another_tokenizer_on_resume_is_refused() {
    let job = Job::new();
    job.done(&["data", "build", "mix.toml", "--out", "data"]);
    job.done(&["train", "run.toml", "--set", "train.steps=2"]);
    std::fs::remove_dir_all(job.path("data")).expect("removable");
    job.done(&["tokenizer", "train", "verse.jsonl", "--vocab-size", "300", "--out", "tokenizer.json"]);
    job.done(&["data", "build", "mix.toml", "--out", "data"]);
    assert!(job.fails(3, &["train", "run.toml"]).contains("cannot resume: `tokenizer` is "));
}
