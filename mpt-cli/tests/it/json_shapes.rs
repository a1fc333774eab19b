//! Check of every `--json` document against `docs/json.md`: the page names exactly the keys that commands print.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use candle_core::Device;
use mpt_core::{Adapter, LoraConfig, MptConfig};
use serde_json::Value;

use crate::job::Job;

/// Commands of the page that other tests run, because they need a hub server or some minutes.
const RUN_ELSEWHERE: [&str; 2] = ["pull", "quickstart"];

/// Keys of objects with arbitrary keys, from the user or a file.
const OPEN_OBJECTS: [&str; 3] = ["config", "metadata", "drops"];

/// Shapes shared by several commands: the reference in a row, and the beginning of the paragraph it refers to.
const SHARED: [(&str, &str); 5] = [
    ("a comparison", "A comparison has"),
    ("`sources`: sources", "A source has"),
    ("`dedup`: stages", "A stage of deduplication has"),
    ("those of `merge`", "| `merge` |"),
    ("those of `data plan`", "| `data plan` |"),
];

/// Keys of a row of the page: its own, and those of the shapes it refers to.
#[derive(Default)]
struct Documented {
    own: BTreeSet<String>,
    shared: BTreeSet<String>,
}

/// Documented keys by command.
fn documented(page: &str) -> BTreeMap<String, Documented> {
    let mut commands = BTreeMap::new();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = row.split('|').skip(1);
        let (names, shape) = (cells.next().unwrap_or(""), cells.next().unwrap_or(""));
        for name in spans(names) {
            let (mut keys, mut shared) = (Documented::default(), BTreeSet::new());
            keys.own = read_shape(page, shape, &mut shared);
            keys.shared = shared;
            commands.insert(name, keys);
        }
    }
    commands
}

/// Keys that `shape` names itself. Those of the shapes it refers to are added to `shared`.
fn read_shape(page: &str, shape: &str, shared: &mut BTreeSet<String>) -> BTreeSet<String> {
    let mut own = shape.to_owned();
    for (reference, start) in SHARED.iter().filter(|(reference, _)| shape.contains(reference)) {
        own = own.replace(reference, reference.split_once(": ").map_or("", |(key, _)| key));
        let keys = read_shape(page, paragraph_at(page, start), shared);
        shared.extend(keys);
    }
    keys_of(&own)
}

/// Paragraph or row that begins with `start`.
fn paragraph_at<'a>(page: &'a str, start: &str) -> &'a str {
    let at = page.find(&format!("\n{start}")).unwrap_or_else(|| panic!("docs/json.md has no {start:?}")) + 1;
    let end = if start.starts_with('|') { "\n" } else { "\n\n" };
    let text = &page[at..];
    let text = &text[..text.find(end).unwrap_or(text.len())];
    if start.starts_with('|') { &text[start.len()..] } else { text }
}

/// Code spans.
fn spans(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Identifiers in code spans, without names of files and flags.
fn keys_of(text: &str) -> BTreeSet<String> {
    let is_key = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = |span: String| {
        let words = span.split(|c| !is_key(c)).filter(|word| !word.is_empty()).map(str::to_owned);
        words.collect::<Vec<_>>()
    };
    spans(text)
        .into_iter()
        .filter(|span| !span.contains('.') && !span.starts_with('-'))
        .flat_map(words)
        .collect()
}

/// Keys of all objects in a document.
fn found_keys(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                into.insert(key.clone());
                if !OPEN_OBJECTS.contains(&key.as_str()) {
                    found_keys(value, into);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| found_keys(value, into)),
        _ => {}
    }
}

/// Documents of words of their own, and near copies of some: one word differs.
fn twins() -> String {
    let document = |number: usize, last: usize| {
        let words: String = (0..60).map(|word| format!("w{number}x{word} ")).collect();
        format!("{{\"text\": \"{words}{last}\"}}\n")
    };
    (0..20).map(|number| document(number, 0)).chain((0..5).map(|number| document(number, 1))).collect()
}

/// Input files of the commands below, beside those of the job.
fn prepare(job: &Job) {
    let config = r#"{"d_model": 32, "n_heads": 4, "n_layers": 2, "vocab_size": 320, "max_seq_len": 32, "eos_token_id": 0}"#;
    job.write("config.json", config);
    job.write("ids.json", "[[1, 2, 3, 4], [5, 6, 7, 8]]");
    job.write("batches.json", "[[[1, 2, 3, 4]], [[5, 6, 7, 8]]]");
    job.write("chat.json", r#"[{"role": "user", "content": "leaf?"}]"#);
    let mix = fs::read_to_string(job.path("mix.toml")).expect("readable");
    let stages = r#"dedup = { kind = "semdedup", model = "run", keep = 0.5, tokens = 16 }"#;
    job.write("stages.toml", &format!("{stages}\n{mix}"));
    job.write("twins.jsonl", &twins());
    let near = "tokenizer = \"tokenizer.json\"\nseq_len = 32\neval_fraction = 0.0\ndedup = \"minhash\"\n[[sources]]\n";
    job.write(
        "near.toml",
        &format!("{near}name = \"twins\"\nproportion = 1.0\npaths = [\"twins.jsonl\"]\nformat = \"jsonl\"\n"),
    );
    let model = MptConfig::from_file(&job.path("config.json")).expect("a configuration");
    let lora = LoraConfig { r: 2, lora_alpha: 4.0, target_modules: vec!["Wqkv".into()], use_rslora: false };
    let adapter = Adapter::init(&model, lora, 1, &Device::Cpu).expect("an adapter");
    adapter.save(&job.path("adapter"), "model").expect("writable");
}

/// Commands, each after those whose output it reads.
const COMMANDS: [(&str, &str); 35] = [
    ("init", "init model --config config.json"),
    ("data plan", "data plan mix.toml"),
    ("data build", "data build mix.toml --out data"),
    ("train", "train run.toml"),
    ("data build", "data build stages.toml --out stages"),
    ("data build", "data build near.toml --out near"),
    ("data plan --units", "data plan mix.toml --units --out units"),
    ("data unit", "data unit mix.toml {unit} --out units"),
    ("data commit", "data commit mix.toml --out units"),
    ("data inspect", "data inspect stages"),
    ("data verify", "data verify data"),
    ("data cat", "data cat data --count 1"),
    ("data trace", "data trace data --sample 0"),
    ("data simulate", "data simulate data --samples 20 --batch 4"),
    ("data convert --to mds", "data convert data mds --to mds"),
    (
        "data convert --to parquet",
        "data convert mds back --to parquet --tokenizer tokenizer.json --seq-len 8",
    ),
    ("data verify", "data verify back"),
    ("generate", "generate --model run --prompt river --max-new-tokens 2"),
    ("eval", "eval --model run --text prose/00.txt"),
    ("score", "score --model model --ids-file ids.json --out scores.safetensors"),
    ("grad", "grad --model model --ids-file ids.json --out grads.safetensors"),
    (
        "steps",
        "steps --model model --batches-file batches.json --optimizer lion --lr 1e-3 --betas 0.9,0.99 \
         --weight-decay 0 --clip-norm 1 --out steps.safetensors",
    ),
    ("info", "info run"),
    ("convert", "convert model model.gguf --to gguf --verify"),
    ("merge", "merge --model model --adapter adapter --out merged"),
    ("quantize", "quantize model small.gguf --type q8_0"),
    ("verify", "verify run --text prose/00.txt"),
    ("tokenizer train", "tokenizer train verse.jsonl --vocab-size 300 --out other.json"),
    ("tokenizer encode", "tokenizer encode prose/00.txt --tokenizer tokenizer.json"),
    ("tokenizer decode", "tokenizer decode --tokenizer tokenizer.json --ids 5,6"),
    ("tokenizer apply-template", "tokenizer apply-template --template chatml --messages chat.json"),
    ("bench train", "bench train --config config.json --seq-len 8 --batch 2 --steps 1"),
    ("bench infer", "bench infer --config config.json --prompt 4 --gen 2 --reps 1"),
    ("bench tokenizer", "bench tokenizer --tokenizer tokenizer.json prose/00.txt --reps 1"),
    ("bench data", "bench data data --batch 2 --batches 2 --reps 1"),
];

/// Runs a command and returns its documents. Every unit of a plan is made, so that the plan can be committed.
fn document(job: &Job, args: &str) -> Value {
    let words = |args: &str| args.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let print = |args: Vec<String>| {
        let args: Vec<_> = args.iter().map(String::as_str).chain(["--json"]).collect();
        let run = job.run(&args);
        assert_eq!(
            run.code,
            if args.contains(&"back") && args.contains(&"verify") { 3 } else { 0 },
            "{args:?}: {}",
            run.stderr
        );
        let text = run.stdout;
        let is_lines = ["cat", "encode"].contains(&args[1]);
        serde_json::from_str(text.lines().next().filter(|_| is_lines).unwrap_or(&text))
            .unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    };
    if args == "data verify back" {
        damage(job);
    }
    if !args.contains("{unit}") {
        return print(words(args));
    }
    let plan = print(words("data plan mix.toml --units --out units"));
    let units = plan["units"].as_array().expect("a list").iter();
    let print_unit =
        |unit: &Value| print(words(&args.replace("{unit}", unit["id"].as_str().expect("an id"))));
    units.map(print_unit).collect::<Vec<_>>().pop().expect("a unit")
}

/// Truncates the first shard in `back`, so that verification finds damage.
fn damage(job: &Job) {
    let source = fs::read_dir(job.path("back/train"))
        .expect("a folder")
        .next()
        .expect("a source")
        .expect("listed")
        .path();
    let shard = fs::read_dir(source).expect("a folder").next().expect("a shard").expect("listed").path();
    let bytes = fs::read(&shard).expect("readable");
    fs::write(&shard, &bytes[..bytes.len() - 1]).expect("writable");
}

#[test]
fn the_page_names_the_keys_that_commands_print() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/json.md");
    let documented = documented(&fs::read_to_string(path).expect("the page is in the repository"));
    let job = Job::new();
    prepare(&job);
    let mut found: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (name, args) in COMMANDS {
        found_keys(&document(&job, args), found.entry(name).or_default());
    }
    for (name, keys) in &documented {
        let Some(found) = found.get(name.as_str()) else {
            assert!(
                RUN_ELSEWHERE.contains(&name.as_str()),
                "no command here prints the document of `{name}`"
            );
            continue;
        };
        let all: BTreeSet<_> = keys.own.union(&keys.shared).cloned().collect();
        let undocumented: Vec<_> = found.difference(&all).collect();
        assert!(
            undocumented.is_empty(),
            "`{name}` prints {undocumented:?}, which docs/json.md does not name"
        );
        let absent: Vec<_> = keys.own.difference(found).collect();
        assert!(absent.is_empty(), "docs/json.md names {absent:?} of `{name}`, which does not print them");
    }
    let unknown: Vec<_> = found.keys().filter(|name| !documented.contains_key(**name)).collect();
    assert!(unknown.is_empty(), "docs/json.md has no row for {unknown:?}");
    let printed: BTreeSet<_> = found.into_values().flatten().collect();
    let shared: BTreeSet<_> = documented.values().flat_map(|keys| &keys.shared).collect();
    let never: Vec<_> = shared.into_iter().filter(|key| !printed.contains(*key)).collect();
    assert!(never.is_empty(), "docs/json.md names {never:?}, which no command prints");
}
