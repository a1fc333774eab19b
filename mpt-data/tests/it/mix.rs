//! The ten-source mix beside the repository: the copies that its table counts are found.

use std::path::Path;

use mpt_data::dedup::DedupKind;
use mpt_data::{Manifest, NoProgress, PrepareRun, prepare};
use mpt_tokenize::Tokenizer;

use crate::shared::shared;

/// Two sources of the mix, or `None` where it is not there.
fn build(dedup: &str, out: &Path) -> Option<Manifest> {
    let (mix, tokenizer) = (shared("data/mix")?, shared("data/tokenizers/gpt-neox-20b/tokenizer.json")?);
    let source = |name: &str| {
        let pattern = mix.join(format!("{name}/*.jsonl.*"));
        format!(
            "[[sources]]\nname = \"{name}\"\nproportion = 0.5\npaths = [{:?}]\nformat = \"jsonl\"\n",
            pattern.display().to_string()
        )
    };
    let text = format!(
        "tokenizer = {:?}\nseq_len = 256\ndedup = {dedup}\n{}{}",
        tokenizer.display().to_string(),
        source("wikipedia"),
        source("markdown")
    );
    let mut run = PrepareRun::parse(&text, &out.join("mix.toml")).expect("sound");
    run.out = out.join("data");
    let tokenizer = Tokenizer::from_file(&tokenizer).expect("loadable");
    Some(prepare(&run, &tokenizer, &mut NoProgress).expect("built"))
}

#[test]
fn copies_that_the_table_counts_are_found() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let Some(manifest) = build("[\"paragraph\", \"minhash\"]", dir.path()) else { return };
    let [exact, paragraph, near] = &manifest.contents().dedup[..] else { panic!("three stages") };
    let dropped: Vec<_> = exact.sources.iter().map(|source| source.dropped).collect();
    assert_eq!(dropped, [35, 50], "exact copies beyond the first");
    assert_eq!((paragraph.kind, near.kind), (DedupKind::Paragraph, DedupKind::MinHash));
    assert!(near.sources.iter().all(|source| source.dropped > 0));
    for source in manifest.sources() {
        let account = source.tokens;
        let rest = (account.tokens_kept + account.tokens_dropped) as i64 + account.tokens_edited_away;
        assert_eq!(account.tokens_read as i64, rest, "{}", source.name);
    }
}
