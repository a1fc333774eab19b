//! Whole runs: they learn, resume to the same bytes, and refuse what would not.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use mpt_core::latest_checkpoint;
use mpt_data::{PrepareRun, prepare};
use mpt_tokenize::{Tokenizer, TrainConfig};
use mpt_train::{Error, Observer, Result, Resume, Silent, TrainEvent, TrainRun, TrainSummary, train};

const MIX: &str = r#"
tokenizer = "tokenizer.json"
seq_len = 24
eval_fraction = 0.2
[[sources]]
name = "verse"
proportion = 1.0
paths = ["text/*.txt"]
format = "text"
"#;

const RUN: &str = r#"
[model]
d_model = 32
n_layers = 2
n_heads = 4
vocab_size = 300
max_seq_len = 24
[data]
dir = "data"
[optimizer]
kind = "adamw"
lr = 1e-2
[schedule]
warmup_steps = 2
[train]
steps = 30
batch_size = 4
microbatch_size = 2
eval_every = 10
[checkpoint]
every_steps = 7
keep = 2
"#;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let text = |i: usize| {
            (0..60).map(|at| ["sea ", "sky ", "sun ", "so "][(i + at * (1 + i % 3)) % 4]).collect::<String>()
        };
        fs::create_dir(folder.path("text")).unwrap();
        (0..40).for_each(|i| {
            fs::write(folder.path(&format!("text/{i:02}.txt")), format!("{i} {}", text(i))).unwrap()
        });
        let bytes =
            mpt_tokenize::train((0..40).map(text), &TrainConfig { vocab_size: 300, min_frequency: 2 })
                .unwrap();
        fs::write(folder.path("tokenizer.json"), bytes).unwrap();
        folder.build("data", MIX);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn build(&self, out: &str, mix: &str) {
        let mut run = PrepareRun::parse(mix, &self.path("mix.toml")).unwrap();
        run.out = self.path(out);
        let tokenizer = Tokenizer::from_file(&self.path("tokenizer.json")).unwrap();
        prepare(&run, &tokenizer, &mut mpt_data::NoProgress).unwrap();
    }

    fn run(&self, name: &str, settings: &[&str]) -> TrainRun {
        let settings: Vec<_> = settings.iter().map(|&text| text.to_owned()).collect();
        TrainRun::parse(RUN, &self.path(&format!("{name}.toml")), &settings).unwrap()
    }

    fn train(&self, name: &str, settings: &[&str], resume: Resume) -> Result<TrainSummary> {
        let mut run = self.run(name, settings);
        run.run_dir = self.path(name);
        train(&run, resume, &mut Silent, &AtomicBool::new(false))
    }
}

fn checkpoint_bytes(checkpoint: &Path) -> Vec<(String, Vec<u8>)> {
    let names = [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "generation_config.json",
        "training/state.json",
        "training/optimizer.safetensors",
    ];
    names.iter().map(|name| ((*name).to_owned(), fs::read(checkpoint.join(name)).unwrap())).collect()
}

/// Asks a run to stop after some steps.
struct StopAt<'a>(u64, &'a AtomicBool);

impl Observer for StopAt<'_> {
    fn on_event(&mut self, event: &TrainEvent<'_>) -> Result<()> {
        if let TrainEvent::Step(metrics) = event {
            self.1.store(metrics.step >= self.0, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[test]
fn a_run_learns_and_leaves_a_model() {
    let folder = Folder::new();
    let summary = folder.train("run", &[], Resume::Auto).unwrap();
    assert!(summary.last_loss < summary.first_loss - 2.0, "{summary:?}");
    assert!(summary.eval_loss.unwrap() < summary.first_loss - 2.0, "{summary:?}");
    assert_eq!((summary.step, summary.tokens, summary.interrupted), (30, 30 * 4 * 24, false));
    let lines = fs::read_to_string(folder.path("run/metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 33);
    let names: Vec<_> =
        fs::read_dir(folder.path("run/checkpoints")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "two checkpoints and `latest`: {names:?}");
    assert_eq!(fs::read_to_string(folder.path("run/checkpoints/latest")).unwrap(), "step-00000030");
    assert_eq!(latest_checkpoint(&folder.path("run")).unwrap(), Some(summary.checkpoint.clone()));
    mpt_core::Weights::open(&summary.checkpoint).unwrap();
    assert_eq!(folder.train("run", &[], Resume::Auto).unwrap(), summary, "a finished run is left alone");
}

#[test]
fn stopping_anywhere_and_going_on_changes_no_byte() {
    let folder = Folder::new();
    let whole = checkpoint_bytes(&folder.train("whole", &[], Resume::Auto).unwrap().checkpoint);
    for stops in [vec![1], vec![7, 8], vec![3, 14, 29]] {
        let name = format!("stops{}", stops.len());
        let run = TrainRun { run_dir: folder.path(&name), ..folder.run(&name, &[]) };
        for step in stops {
            let stop = AtomicBool::new(false);
            let summary = train(&run, Resume::Auto, &mut StopAt(step, &stop), &stop).unwrap();
            assert_eq!((summary.step, summary.interrupted), (step, true));
        }
        let summary = folder.train(&name, &[], Resume::Auto).unwrap();
        assert!(checkpoint_bytes(&summary.checkpoint) == whole, "{name}");
    }
}

#[test]
fn threads_and_places_change_no_byte() {
    let folder = Folder::new();
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let single = one.install(|| folder.train("single", &[], Resume::Auto).unwrap());
    let many = folder.train("many", &[], Resume::Auto).unwrap();
    assert!(checkpoint_bytes(&single.checkpoint) == checkpoint_bytes(&many.checkpoint));
}

#[test]
fn what_a_killed_process_left_is_no_checkpoint() {
    let folder = Folder::new();
    let first = folder.train("run", &["train.steps=7"], Resume::Auto).unwrap();
    fs::create_dir_all(folder.path("run/checkpoints/.step-00000014.tmp/training")).unwrap();
    fs::write(folder.path("run/checkpoints/latest"), "step-00000014").unwrap();
    let again = folder.train("run", &["train.steps=7"], Resume::Auto).unwrap();
    assert_eq!(first, again);
    assert_eq!(fs::read_to_string(folder.path("run/checkpoints/latest")).unwrap(), "step-00000007");
    assert!(!folder.path("run/checkpoints/.step-00000014.tmp").exists());
}

#[test]
fn a_run_begins_from_a_model() {
    let folder = Folder::new();
    let base = folder.train("base", &[], Resume::Auto).unwrap();
    let text = RUN.split_once("[data]").unwrap().1;
    let text = format!("init_from = {:?}\nrun_dir = \"tuned\"\n[data]{text}", base.checkpoint);
    let run = TrainRun::parse(&text, &folder.path("tune.toml"), &["train.steps=2".into()]).unwrap();
    let tuned = train(&run, Resume::Auto, &mut Silent, &AtomicBool::new(false)).unwrap();
    assert!(tuned.first_loss < base.first_loss - 2.0, "{tuned:?}");
    assert_eq!(tuned.run_dir, folder.path("tuned"));
    let text = text.replace(&format!("{:?}", base.checkpoint), &format!("{:?}", folder.path("base")));
    let text = text.replace("\"tuned\"", "\"from_run\"");
    let run = TrainRun::parse(&text, &folder.path("tune.toml"), &["train.steps=2".into()]).unwrap();
    let from_run = train(&run, Resume::Auto, &mut Silent, &AtomicBool::new(false)).unwrap();
    assert_eq!(from_run.last_loss, tuned.last_loss, "a run folder stands for its latest checkpoint");
}

#[test]
fn changes_that_would_change_the_result_are_refused_by_name() {
    let folder = Folder::new();
    folder.train("run", &["train.steps=7"], Resume::Auto).unwrap();
    let refused = |settings: &[&str]| match folder.train("run", settings, Resume::Auto) {
        Err(Error::Changed { field, .. }) => field,
        other => panic!("not refused: {other:?}"),
    };
    assert_eq!(refused(&["optimizer.lr=0.5"]), "optimizer.lr");
    assert_eq!(refused(&["model.n_layers=3"]), "model");
    assert_eq!(refused(&["data.seed=3"]), "data.seed");
    assert_eq!(refused(&["train.batch_size=8"]), "train.batch_size");
    let error = folder.train("run", &[], Resume::Never).expect_err("there is a run");
    assert!(matches!(error, Error::RunExists { .. }), "{error}");
    let longer = folder.train(
        "run",
        &["train.steps=9", "checkpoint.every_steps=3", "train.eval_every=2"],
        Resume::Auto,
    );
    assert_eq!(longer.unwrap().step, 9);
}

#[test]
fn another_tokenizer_or_mix_is_refused_by_name() {
    let folder = Folder::new();
    folder.train("run", &["train.steps=2"], Resume::Auto).unwrap();
    let resume = || match folder.train("run", &["train.steps=4"], Resume::Auto) {
        Err(Error::Data(mpt_data::Error::Cursor { field, .. })) => field,
        other => panic!("not refused: {other:?}"),
    };
    fs::remove_dir_all(folder.path("data")).unwrap();
    folder.build("data", &MIX.replace("0.2", "0.3"));
    assert_eq!(resume(), "manifest");
    fs::remove_dir_all(folder.path("data")).unwrap();
    let changed = fs::read_to_string(folder.path("tokenizer.json")).unwrap() + "\n";
    fs::write(folder.path("tokenizer.json"), changed).unwrap();
    folder.build("data", MIX);
    assert_eq!(resume(), "tokenizer");
}

/// Three batches of length 24, the last cut short by the change, and two of length 12; then another order is wanted.
#[test]
fn lengths_change_on_schedule_and_wanted_changes_are_noted() {
    let folder = Folder::new();
    let stages = "data.stages=[{ from = 10, seq_len = 12 }]";
    let done = folder.train("run", &["train.steps=5", stages], Resume::Auto).unwrap();
    assert_eq!(done.tokens, 10 * 24 + 2 * 4 * 12);
    let refused = |settings: &[&str]| match folder.train("run", settings, Resume::Auto) {
        Err(Error::Data(mpt_data::Error::Cursor { field, .. })) => field.to_owned(),
        Err(Error::Changed { field, .. }) => field,
        other => panic!("not refused: {other:?}"),
    };
    assert_eq!(refused(&["train.steps=6"]), "mix");
    assert_eq!(refused(&["train.steps=6", stages, "data.shuffle=\"windowed\""]), "data.shuffle");
    assert_eq!(refused(&["train.steps=6", stages, "data.seed=9"]), "data.seed");
    let wanted = ["train.steps=6", stages, "data.shuffle=\"windowed\"", "data.seed=9"];
    let accept = "data.accept_changed=[\"shuffle\", \"data.seed\"]";
    let done = folder.train("run", &[&wanted[..], &[accept]].concat(), Resume::Auto).unwrap();
    let state = fs::read_to_string(done.checkpoint.join("training/state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let noted: Vec<_> =
        state["cursor"]["accepted"].as_array().unwrap().iter().map(|noted| &noted["field"]).collect();
    assert_eq!(noted, ["seed", "shuffle"]);
    let again = [&["train.steps=7"], &wanted[1..]].concat();
    assert_eq!(folder.train("run", &again, Resume::Auto).unwrap().step, 7, "once is enough");
}

#[test]
fn runs_that_cannot_work_say_why() {
    let folder = Folder::new();
    let message =
        |settings: &[&str]| folder.train("run", settings, Resume::Auto).expect_err("refused").to_string();
    let text = message(&["model.vocab_size=100"]);
    assert!(
        text.contains("`model.vocab_size` is 100, expected ") && text.contains("ids of the data's tokenizer"),
        "{text}"
    );
    assert!(message(&["data.dir=nowhere"]).contains("manifest.json: there is no manifest here"));
    assert!(message(&["data.seq_len=7"]).contains("`seq_len` is 7, expected a multiple or a divisor"));
    assert!(message(&["optimizer.lr=1e30", "train.clip_norm=0"]).contains("there is no checkpoint yet"));
    let busy = fs::File::create(folder.path("run/.lock")).unwrap();
    busy.lock().unwrap();
    assert!(message(&[]).contains("another process is training here"));
}

#[test]
fn a_damaged_checkpoint_is_named() {
    let folder = Folder::new();
    let done = folder.train("run", &["train.steps=2"], Resume::Auto).unwrap();
    fs::write(done.checkpoint.join("training/state.json"), "{\"format\": 1").unwrap();
    let text = folder.train("run", &[], Resume::Auto).expect_err("damaged").to_string();
    assert!(text.contains("step-00000002/training/state.json: EOF while parsing"), "{text}");
}

/// Every file of a checkpoint.
fn files(checkpoint: &Path) -> Vec<PathBuf> {
    let below = |dir: PathBuf| {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file())
    };
    below(checkpoint.to_owned()).chain(below(checkpoint.join("training"))).collect()
}

#[test]
fn one_flipped_byte_of_any_file_is_found() {
    let folder = Folder::new();
    let done = folder.train("run", &["train.steps=2"], Resume::Auto).unwrap();
    let files = files(&done.checkpoint);
    assert_eq!(files.len(), 7, "{files:?}");
    for file in files {
        let sound = fs::read(&file).unwrap();
        for at in [sound.len() / 2, sound.len() - 2] {
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            fs::write(&file, bytes).unwrap();
            let error = folder.train("run", &["train.steps=3"], Resume::Auto).expect_err("damaged");
            assert!(error.to_string().contains("step-00000002"), "{}: {error}", file.display());
        }
        fs::write(&file, &sound[..sound.len() - 2]).unwrap();
        folder.train("run", &["train.steps=3"], Resume::Auto).expect_err("cut short");
        fs::remove_file(&file).unwrap();
        folder.train("run", &["train.steps=3"], Resume::Auto).expect_err("removed");
        fs::write(&file, sound).unwrap();
    }
    assert_eq!(folder.train("run", &["train.steps=3"], Resume::Auto).unwrap().step, 3);
}

/// What the message about a damaged newest checkpoint says is what works; the later one is kept under another name.
#[test]
fn an_older_checkpoint_of_the_run_is_gone_on_from() {
    let folder = Folder::new();
    let steps = ["train.steps=14"];
    let whole = folder.train("whole", &steps, Resume::Auto).unwrap();
    let done = folder.train("run", &steps, Resume::Auto).unwrap();
    fs::write(done.checkpoint.join("training/optimizer.safetensors"), "damage").unwrap();
    let error = folder.train("run", &steps, Resume::Auto).expect_err("damaged").to_string();
    assert!(error.contains("step-00000014") && error.contains("name an older checkpoint"), "{error}");
    let older = folder.path("run/checkpoints/step-00000007");
    let again = folder.train("run", &steps, Resume::From(older)).unwrap();
    assert!(checkpoint_bytes(&again.checkpoint) == checkpoint_bytes(&whole.checkpoint));
    assert!(folder.path("run/checkpoints/replaced-0-step-00000014").is_dir());
    let other = folder.train("other", &["train.steps=7"], Resume::Auto).unwrap();
    let refused = folder.train("run", &steps, Resume::From(other.checkpoint)).expect_err("another run's");
    assert!(matches!(refused, Error::RunExists { .. }), "{refused}");
}

#[test]
fn a_run_that_diverged_is_rescued_and_says_so() {
    let folder = Folder::new();
    let checkpoint = folder.train("run", &["train.steps=7"], Resume::Auto).unwrap().checkpoint;
    let rescue = ["train.steps=9", "optimizer.lr=0.001", "schedule.warmup_steps=9", "train.clip_norm=0.5"];
    let error = folder.train("run", &rescue, Resume::Auto).expect_err("not named").to_string();
    assert!(error.contains("`optimizer.lr`"), "{error}");
    assert!(error.contains("or name the checkpoint to change it from there"), "{error}");
    let refused = folder.train("run", &["data.seed=3"], Resume::From(checkpoint.clone()));
    assert!(matches!(refused, Err(Error::Changed { .. })), "{refused:?}");
    let done = folder.train("run", &rescue, Resume::From(checkpoint)).unwrap();
    let state = fs::read(done.checkpoint.join("training/state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    let changes = state["changes"].as_array().unwrap();
    let fields: Vec<_> = changes.iter().map(|change| change["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["optimizer.lr", "schedule.warmup_steps", "train.clip_norm"]);
    assert_eq!((&changes[0]["from"], &changes[0]["after_step"]), (&"0.01".into(), &7.into()));
    let further = [&["train.steps=10"], &rescue[1..]].concat();
    assert_eq!(folder.train("run", &further, Resume::Auto).unwrap().step, 10, "once is enough");
}

/// The step whose update overflows is the last one: there is no loss after it that could say so.
#[test]
fn weights_that_are_no_numbers_are_not_saved() {
    let folder = Folder::new();
    let begun = folder.train("run", &["train.steps=7"], Resume::Auto).unwrap();
    let wild = ["train.steps=8", "optimizer.lr=1e39", "train.clip_norm=0", "schedule.warmup_steps=0"];
    let error = folder.train("run", &wild, Resume::From(begun.checkpoint.clone())).expect_err("overflows");
    let Error::NotFinite { step, checkpoint, .. } = &error else { panic!("{error}") };
    assert_eq!((*step, checkpoint.as_ref()), (8, Some(&begun.checkpoint)), "{error}");
    assert!(error.to_string().contains("is sound: go on from it with a lower `optimizer.lr`"), "{error}");
    assert_eq!(latest_checkpoint(&folder.path("run")).unwrap(), Some(begun.checkpoint));
}
