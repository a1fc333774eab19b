//! Stages of deduplication on planted copies: what goes, what stays of it, and the same bytes every time.

use mpt_data::dedup::{DedupKind, DedupReport};
use mpt_data::{Embedder, Error, Manifest, NoProgress, Phase, Progress, prepare, prepare_with};

use crate::corpus::{Corpus, tree};
use crate::dirty::ledger;

const STAGES: &str = "seed = 3\ndedup = [\"exact\", { kind = \"paragraph\", min_words = 5 }, \"minhash\"]";

/// `count` words of letters that depend on `seed`: no two texts of different seeds have a run of words in common.
fn words(seed: usize, count: usize) -> String {
    let word = |at: usize| {
        let mut bits = ((seed * 1_000_003 + at) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        bits = (bits ^ (bits >> 31)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 20;
        (0..4).map(|letter| char::from(b'a' + (bits >> (5 * letter)) as u8 % 26)).collect::<String>()
    };
    (0..count).map(word).collect::<Vec<_>>().join(" ")
}

fn paragraph(seed: usize) -> String {
    words(7000 + seed, 30)
}

/// The documents that are added to the web source: id and text.
fn planted() -> Vec<(String, String)> {
    let mut documents = Vec::new();
    for i in 0..20 {
        let text = words(5000 + i, 300);
        let (cut, _) = text.rsplit_once(' ').expect("words");
        documents.push((format!("whole{i}"), text.clone()));
        documents.push((format!("cut{i}"), cut.to_owned()));
        documents.push((format!("loud{i}"), text.to_uppercase()));
    }
    documents.extend((0..40).map(|i| (format!("filler{i}"), words(100 + i, 60))));
    documents.push(("copy".into(), words(107, 60)));
    documents.push(("short".into(), words(300, 5)));
    documents.push(("early".into(), format!("{} and so on", words(1000, 400))));
    let [a, b, c] = [1, 2, 3].map(paragraph);
    documents.push(("first".into(), format!("{a}\n\n{b}\n\nThe end")));
    documents.push(("second".into(), format!("{c}\n\n{b}\n\nThe end")));
    documents.push(("third".into(), format!("{b}\n\n{a}\n\n{b}")));
    documents.push(("fourth".into(), format!("{}\n\n{b}", words(5003, 298))));
    documents
}

/// The web source is planted, the books are of many words, and the code, which is not, is compared with nothing.
fn corpus() -> Corpus {
    let corpus = Corpus::new();
    for file in ["web/a.jsonl", "web/b.jsonl.gz", "web/c.jsonl.zst"] {
        std::fs::remove_file(corpus.path(file)).expect("removable");
    }
    for i in 0..12 {
        corpus.write(&format!("books/{i:02}.txt"), &words(1000 + i, 400));
    }
    let mix = std::fs::read_to_string(corpus.path("mix.toml")).expect("readable");
    corpus.write("mix.toml", &mix.replace("name = \"code\"", "name = \"code\"\ndedup = false"));
    let line = |(id, text): &(String, String)| format!("{}\n", serde_json::json!({ "id": id, "text": text }));
    corpus.write("web/planted.jsonl", &planted().iter().map(line).collect::<String>());
    corpus
}

fn stage(manifest: &Manifest, kind: DedupKind) -> &DedupReport {
    manifest.contents().dedup.iter().find(|report| report.kind == kind).expect("a stage of the run")
}

#[test]
fn planted_copies_go_and_the_first_stays() {
    let corpus = corpus();
    let manifest = corpus.build(&[("seed = 3", STAGES)]);
    let rows = ledger(&manifest);
    let found = |id: &str| {
        let row = rows.iter().find(|([found, ..], _)| found == id);
        row.map(|([_, _, rule, value], _)| (rule.as_str(), value.split(' ').next().unwrap_or_default()))
    };
    for i in 0..20 {
        let whole = format!("whole{i}");
        assert_eq!(found(&whole), None);
        assert_eq!(found(&format!("cut{i}")), Some(("near_duplicate", whole.as_str())));
        assert_eq!(found(&format!("loud{i}")), Some(("near_duplicate", whole.as_str())));
    }
    assert_eq!(found("early"), None);
    assert_eq!(found("00.txt"), Some(("near_duplicate", "early")), "a book goes: the web comes first");
    assert_eq!((found("first"), found("second")), (None, None));
    assert_eq!(found("third"), Some(("duplicate_paragraphs", "3")));
    assert_eq!(found("fourth"), Some(("near_duplicate", "whole3")), "signatures are those of edited texts");
    let near = rows.iter().filter(|([_, _, rule, _], _)| rule == "near_duplicate").count();
    assert_eq!(near, 42, "and nothing else is near");
    let report = stage(&manifest, DedupKind::MinHash);
    assert_eq!((report.groups, report.similarities.iter().sum::<u64>()), (21, 42));
    assert_eq!((report.largest[0].id.as_str(), report.largest[0].documents), ("whole3", 4));
}

#[test]
fn every_token_is_accounted_for_by_stage() {
    let corpus = corpus();
    let manifest = corpus.build(&[("seed = 3", STAGES)]);
    let tokenizer = corpus.tokenizer();
    let count = |text: &str| tokenizer.encode(text).expect("encoded").len() as i64;
    let text = |id: &str| planted().into_iter().find(|(found, _)| found == id).expect("planted").1;
    let rows = ledger(&manifest);
    for (index, source) in manifest.sources().iter().enumerate() {
        let account = source.tokens;
        let rest = (account.tokens_kept + account.tokens_dropped) as i64 + account.tokens_edited_away;
        assert_eq!(account.tokens_read as i64, rest, "{}", source.name);
        assert_eq!(account.tokens_kept, source.train.tokens + source.eval.tokens);
        for report in &manifest.contents().dedup {
            let rules = match report.kind {
                DedupKind::Exact => "exact_duplicate",
                DedupKind::Paragraph => "duplicate_paragraphs",
                _ => "near_duplicate",
            };
            let own = rows.iter().filter(|([_, name, rule, _], _)| *name == source.name && rule == rules);
            let Some(counts) = report.sources.get(index) else { continue };
            assert_eq!(own.clone().count() as u64, counts.dropped, "{rules}");
            assert_eq!(own.map(|(_, tokens)| tokens).sum::<u64>(), counts.tokens_dropped, "{rules}");
        }
    }
    let web = &manifest.sources()[0];
    let second = count(&text("second")) - count(&format!("{}\n\nThe end", paragraph(3)));
    let fourth = count(&text("fourth")) - count(&words(5003, 298));
    assert_eq!(
        (web.tokens.tokens_edited_away, web.tokens.documents_edited),
        (second, 1),
        "fourth was dropped"
    );
    let counts = &stage(&manifest, DedupKind::Paragraph).sources[0];
    assert_eq!((counts.tokens_edited_away, counts.edited, counts.dropped), (second + fourth, 2, 1));
}

#[test]
fn sources_that_take_no_part_lose_nothing_and_are_nothing_to_others() {
    let corpus = corpus();
    let out = ("name = \"web\"", "name = \"web\"\ndedup = false");
    let manifest = corpus.build(&[("seed = 3", STAGES), out]);
    assert_eq!(manifest.sources()[0].drops.keys().collect::<Vec<_>>(), ["min_words"]);
    assert!(manifest.sources()[1].drops.is_empty(), "the book stays");
    assert_eq!(stage(&manifest, DedupKind::MinHash).sources.len(), 1);
    std::fs::remove_dir_all(corpus.path("out")).expect("removable");
    let exact = ("name = \"web\"", "name = \"web\"\ndedup = [\"exact\"]");
    let manifest = corpus.build(&[("seed = 3", STAGES), exact]);
    assert_eq!(manifest.sources()[0].drops.keys().collect::<Vec<_>>(), ["exact_duplicate", "min_words"]);
}

#[test]
fn threads_change_nothing_with_all_stages_on() {
    let corpus = corpus();
    let build = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| corpus.build(&[("seed = 3", STAGES)]));
        let files = tree(&corpus.path("out"));
        std::fs::remove_dir_all(corpus.path("out")).expect("removable");
        files
    };
    assert!(build(1) == build(3));
}

/// Stops when it was asked so many times.
struct StopAfter(usize);

impl Progress for StopAfter {
    fn start(&mut self, _: Phase, _: u64) {}
    fn advance(&mut self, _: u64) {}
    fn finish(&mut self) {}
    fn keep_going(&mut self) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 > 0
    }
}

#[test]
fn stopping_between_stages_changes_nothing() {
    let corpus = corpus();
    let changes = [("seed = 3", STAGES)];
    corpus.build(&changes);
    let expected = tree(&corpus.path("out"));
    let (run, tokenizer) = (corpus.run(&changes).expect("sound"), corpus.tokenizer());
    for limit in (1..).step_by(5) {
        std::fs::remove_dir_all(corpus.path("out")).expect("removable");
        match prepare(&run, &tokenizer, &mut StopAfter(limit)) {
            Ok(_) => break,
            Err(error) => assert!(matches!(error, Error::Interrupted), "{error}"),
        }
        // What a process killed while it wrote edited documents leaves is not taken for them.
        for entry in std::fs::read_dir(corpus.path("out/.units")).into_iter().flatten() {
            let path = entry.expect("listable").path();
            if path.extension().is_some_and(|ending| ending == "edits") {
                let bytes = std::fs::read(&path).expect("readable");
                std::fs::write(&path, &bytes[..bytes.len() - limit % 3]).expect("writable");
            }
        }
        prepare(&run, &tokenizer, &mut NoProgress).expect("continued");
        assert!(tree(&corpus.path("out")) == expected, "stopped at {limit}");
    }
}

#[test]
fn other_settings_are_another_plan() {
    let corpus = corpus();
    corpus.build(&[("seed = 3", STAGES)]);
    let error = corpus
        .build_error(&[("seed = 3", &STAGES.replace("\"minhash\"", "{ kind = \"minhash\", rows = 4 }"))]);
    assert!(error.contains("built differently") && error.contains("rows"), "{error}");
}

/// Counts tokens by their id: texts of the same words are near each other, in whatever order.
struct Bags {
    asked: usize,
    limit: usize,
}

impl Embedder for Bags {
    fn fingerprint(&self) -> String {
        "bags of 16".into()
    }

    fn embed(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Box<dyn std::error::Error + Send + Sync>> {
        if self.asked == self.limit {
            return Err("out of bags".into());
        }
        self.asked += 1;
        let mut vector = vec![1.0; 16];
        tokens.iter().for_each(|&token| vector[token as usize % 16] += 1.0);
        Ok(vector)
    }
}

fn meaning(keep: f64) -> String {
    let stage =
        format!("{{ kind = \"semdedup\", model = \"bags\", keep = {keep}, tokens = 64, clusters = 9 }}");
    format!("seed = 3\ndedup = [\"minhash\", {stage}]")
}

#[test]
fn the_share_asked_for_stays_by_meaning() {
    let corpus = corpus();
    let line = |i: usize| {
        format!("{}\n", serde_json::json!({ "id": format!("m{i}"), "text": words(20_000 + i, 40) }))
    };
    corpus.write("web/more.jsonl", &(0..900).map(line).collect::<String>());
    let tokenizer = corpus.tokenizer();
    let run = corpus.run(&[("seed = 3", &meaning(0.8))]).expect("sound");
    assert!(matches!(prepare(&run, &tokenizer, &mut NoProgress), Err(Error::NoEmbedder { .. })));
    let build = |limit| {
        let mut bags = Bags { asked: 0, limit };
        prepare_with(&run, &tokenizer, Some(&mut bags), &mut NoProgress)
            .map(|manifest| (manifest, bags.asked))
    };
    let (manifest, asked) = build(usize::MAX).expect("built");
    let report = stage(&manifest, DedupKind::SemDedup);
    let (came, went) =
        report.sources.iter().fold((0, 0), |sum, own| (sum.0 + own.documents, sum.1 + own.dropped));
    assert_eq!(asked as u64, came);
    assert!((1.0 - went as f64 / came as f64 - 0.8).abs() < 0.001, "{went} of {came}");
    assert_eq!(report.similarities.iter().sum::<u64>(), went);
    assert!(report.threshold.expect("chosen") > 0.5);
    let rows = ledger(&manifest);
    let semantic = rows.iter().filter(|([_, _, rule, _], _)| rule == "semantic_duplicate");
    assert!(
        semantic.clone().count() as u64 == went
            && semantic.clone().all(|(row, _)| row[3].contains(" similarity=0."))
    );
    for source in manifest.sources() {
        let account = source.tokens;
        let rest = (account.tokens_kept + account.tokens_dropped) as i64 + account.tokens_edited_away;
        assert_eq!(account.tokens_read as i64, rest);
    }
    let expected = tree(&corpus.path("out"));
    // A model that fails on the way: the vectors of the units before are not made again.
    std::fs::remove_dir_all(corpus.path("out")).expect("removable");
    let error = build(asked - 3).expect_err("stopped").to_string();
    assert!(error.contains("11.txt") || error.contains("out of bags"), "{error}");
    let (_, again) = build(usize::MAX).expect("continued");
    assert!(again < asked / 2, "{again} of {asked}");
    assert!(tree(&corpus.path("out")) == expected);
}
