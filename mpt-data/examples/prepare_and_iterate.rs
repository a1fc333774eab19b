//! Prepare two sources as shards, read batches of them, stop, and go on from the same place.
//!
//! ```text
//! cargo run -p mpt-data --example prepare_and_iterate
//! ```

#![expect(clippy::print_stdout, reason = "an example speaks to people")]

use std::error::Error;
use std::fs;

use mpt_data::{Loader, LoaderConfig, NoProgress, PrepareRun, Split, prepare};
use mpt_tokenize::{Tokenizer, TrainConfig, train};

fn main() -> Result<(), Box<dyn Error>> {
    // Documents as people have them: JSON Lines, one source a file.
    let dir = tempfile::tempdir()?;
    for (name, word) in [("web", "river"), ("code", "fn main() {}")] {
        let document = |n: usize| format!("{{\"text\": \"{}\"}}\n", format!("{word} {n} ").repeat(50));
        fs::write(dir.path().join(name).with_extension("jsonl"), (0..200).map(document).collect::<String>())?;
    }
    let config = TrainConfig { vocab_size: 400, min_frequency: 2 };
    let tokenizer = train(["river 12 fn main() {} 345 "].into_iter(), &config)?;
    fs::write(dir.path().join("tokenizer.json"), tokenizer)?;

    // The mix says what is sampled how often; samples are cut from documents that follow each other.
    let mix = r#"
        tokenizer = "tokenizer.json"
        seq_len = 64
        row_tokens = 64
        eval_fraction = 0.05

        [[sources]]
        name = "web"
        proportion = 0.8
        paths = ["web.jsonl"]
        format = "jsonl"

        [[sources]]
        name = "code"
        proportion = 0.2
        paths = ["code.jsonl"]
        format = "jsonl"
    "#;
    let run = PrepareRun::parse(mix, &dir.path().join("mix.toml"))?;
    let tokenizer = Tokenizer::from_file(&run.tokenizer)?;
    let manifest = prepare(&run, &tokenizer, &mut NoProgress)?;

    let config = LoaderConfig { batch_size: 10, ..LoaderConfig::new(&manifest, Split::Train) };
    let mut loader = Loader::new(&manifest, config.clone(), None)?;
    let first = loader.next().expect("training does not end")?;
    println!("a batch of [{}, {}] tokens, from sources {:?}", first.batch, first.seq, sources(&first));

    // A cursor is a few bytes; it resumes at any sample at once.
    let cursor = loader.cursor();
    let second = loader.next().expect("training does not end")?;
    let mut resumed = Loader::new(&manifest, config, Some(cursor))?;
    let again = resumed.next().expect("training does not end")?;
    assert_eq!(second.tokens, again.tokens);
    println!("resumed at sample {}", again.samples[0].index);
    Ok(())
}

/// The source of each sample of a batch.
fn sources(batch: &mpt_data::TokenBatch) -> Vec<usize> {
    batch.samples.iter().map(|sample| sample.source).collect()
}
