//! Sources with every kind of dirt: what goes is in the ledger, and every token read is accounted for.

use std::fs::File;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use mpt_data::{Manifest, NoProgress, Split, inspect, plan};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::corpus::{Corpus, tree, words};

const FILTERS: &str = "filters = [
    { kind = \"url_list\", path = \"lists/domains.txt\" },
    { kind = \"c4\", min_sentences = 1, bad_words = \"lists/bad.txt\" },
    { kind = \"pii\" },
    { kind = \"min_words\", value = 20 },
    { kind = \"language\", any_of = [\"en\"], min_confidence = 0.1 },
    { kind = \"decontaminate\", n = 8, paths = [\"lists/eval.jsonl\"] },
]
on_bad_line = \"skip\"";

const ENGLISH: &str = "The river runs past the old house, and in the evening the children of the village come down to the \
    water to look for the boats that their fathers built in winter";
const GERMAN: &str = "Der Fluss läuft an dem alten Haus vorbei, und am Abend kommen die Kinder des Dorfes hinunter zum Wasser, \
    um nach den Booten zu sehen, die ihre Väter im Winter gebaut haben.";

/// A document as it is written, the rule that drops it, and the text that stays.
struct Case {
    id: String,
    text: String,
    url: &'static str,
    rule: Option<(&'static str, &'static str)>,
    stays: Option<String>,
}

fn cases() -> Vec<Case> {
    let plain = |id: &str, text: String| Case {
        id: id.into(),
        url: "https://fine.example/",
        rule: None,
        stays: Some(text.clone()),
        text,
    };
    let dropped = |id: &str, text: String, rule, value| Case {
        rule: Some((rule, value)),
        stays: None,
        ..plain(id, text)
    };
    let mut cases: Vec<_> = (0..80).map(|i| plain(&format!("good{i}"), format!("{ENGLISH} {i}."))).collect();
    cases.push(dropped("empty", " \n ".into(), "empty", "3 bytes"));
    cases.push(dropped("short", "Only a few words.".into(), "min_words", "4"));
    cases.push(dropped("german", GERMAN.into(), "language", "deu "));
    cases.push(dropped("copy", format!("{ENGLISH} 7."), "exact_duplicate", "good7"));
    cases.push(dropped("cleaned-copy", format!("Menu\n{ENGLISH} 9.\nImprint"), "exact_duplicate", "good9"));
    cases.push(dropped("code", format!("{ENGLISH}.\nfn main() {{"), "c4", "drop_curly_bracket"));
    cases.push(dropped("rude", format!("{ENGLISH} FIDDLESTICKS."), "c4", "bad_words=fiddlesticks"));
    cases.push(dropped(
        "leaked",
        format!("{ENGLISH}. One two three, four FIVE six seven eight."),
        "decontaminate",
        "one two three four five six seven eight",
    ));
    let listed = dropped("listed", format!("{ENGLISH} here."), "url_list", "ads.example");
    cases.push(Case { url: "https://x.ads.example/page", ..listed });
    let edited = |id: &str, text: String, stays: String| Case { stays: Some(stays), ..plain(id, text) };
    let lines = format!("Home\n{ENGLISH} too.\nClick here to read on\n");
    cases.push(edited("lines", lines, format!("{ENGLISH} too.")));
    // The stand-in is longer than the address.
    let mail = format!("{ENGLISH} of a@b.de.");
    cases.push(edited("mail", mail, format!("{ENGLISH} of email@example.com.")));
    cases
}

/// The web source is dirty, the others are as they were.
fn dirty() -> Corpus {
    let corpus = Corpus::new();
    for file in ["web/a.jsonl", "web/b.jsonl.gz", "web/c.jsonl.zst"] {
        std::fs::remove_file(corpus.path(file)).expect("removable");
    }
    corpus.write("lists/domains.txt", "# advertisers\nads.example\n");
    corpus.write("lists/bad.txt", "fiddlesticks\n");
    corpus.write(
        "lists/eval.jsonl",
        "{\"q\": \"One two three four\", \"a\": \"one two three four five six seven eight\"}\n",
    );
    let mut bytes = Vec::new();
    for (index, case) in cases().iter().enumerate() {
        let line = serde_json::json!({ "id": case.id, "url": case.url, "text": case.text });
        bytes.extend(format!("{line}\n").bytes());
        if index == 3 {
            bytes.extend(
                b"{\"text\": \"broken\n{\"body\": \"no text\"}\n{\"text\": \"bad \xff byte\"}\n[1]\n",
            );
        }
    }
    corpus.write_bytes("web/dirt.jsonl", &bytes);
    corpus
}

fn changes<'a>() -> [(&'a str, &'a str); 2] {
    [
        ("filters = [{ kind = \"min_words\", value = 20 }]", FILTERS),
        ("eval_fraction = 0.1", "eval_fraction = 0.2"),
    ]
}

/// The rows of the ledger: id, source, rule, value, and tokens.
pub(crate) fn ledger(manifest: &Manifest) -> Vec<([String; 4], u64)> {
    let file = File::open(manifest.dir().join("drops.parquet")).expect("there");
    let mut rows = Vec::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").build().expect("readable") {
        let batch = batch.expect("sound");
        let column = |name: &str| batch.column_by_name(name).expect("a column");
        let tokens = column("tokens").as_primitive::<UInt64Type>();
        for row in 0..batch.num_rows() {
            let text = |name: &str| column(name).as_string::<i32>().value(row).to_owned();
            rows.push((["id", "source", "rule", "value"].map(text), tokens.value(row)));
        }
    }
    rows
}

#[test]
fn every_token_read_is_accounted_for() {
    let corpus = dirty();
    let manifest = corpus.build(&changes());
    let tokenizer = corpus.tokenizer();
    // The end token follows each document.
    let count = |text: &str| tokenizer.encode(text).expect("encoded").len() as u64 + 1;
    let web = &manifest.sources()[0];
    let cases = cases();
    let sum = |texts: &mut dyn Iterator<Item = &str>| texts.map(count).sum::<u64>();
    let read = sum(&mut cases.iter().map(|case| case.text.as_str()));
    let kept = sum(&mut cases.iter().filter_map(|case| case.stays.as_deref()));
    let dropped = sum(&mut cases.iter().filter(|case| case.stays.is_none()).map(|case| case.text.as_str()));
    let account = web.tokens;
    assert_eq!((account.tokens_read, account.tokens_kept, account.tokens_dropped), (read, kept, dropped));
    assert_eq!(account.tokens_edited_away, read as i64 - kept as i64 - dropped as i64);
    assert_eq!(account.documents_edited, 2);
    let rows = ledger(&manifest);
    for source in manifest.sources() {
        let account = source.tokens;
        let rest = account.tokens_kept + account.tokens_dropped;
        assert_eq!(account.tokens_read as i64, rest as i64 + account.tokens_edited_away, "{}", source.name);
        assert_eq!(account.tokens_kept, source.train.tokens + source.eval.tokens);
        let own = rows.iter().filter(|([_, name, ..], _)| *name == source.name);
        assert_eq!(own.clone().map(|(_, tokens)| tokens).sum::<u64>(), account.tokens_dropped);
        let kept = source.train.documents + source.eval.documents;
        assert_eq!(kept + own.count() as u64, source.documents, "kept and dropped are all that was read");
    }
    assert!(web.split(Split::Eval).documents > 0);
}

#[test]
fn every_drop_has_its_rule_value_and_tokens() {
    let corpus = dirty();
    let manifest = corpus.build(&changes());
    let (tokenizer, rows) = (corpus.tokenizer(), ledger(&manifest));
    let row = |id: &str| rows.iter().find(|([found, ..], _)| found == id);
    for case in cases() {
        let Some((rule, value)) = case.rule else {
            assert_eq!(row(&case.id), None);
            continue;
        };
        let ([_, source, found_rule, found], tokens) = row(&case.id).expect("in the ledger");
        assert_eq!((source.as_str(), found_rule.as_str()), ("web", rule), "{}: {found}", case.id);
        assert!(found.starts_with(value), "{}: {found}", case.id);
        let expected = tokenizer.encode(&case.text).expect("encoded").len() as u64 + 1;
        assert_eq!(*tokens, expected, "{}", case.id);
    }
    for (line, problem) in [
        (5, "broken JSON at column"),
        (6, "the object has no field `text`"),
        (7, "broken JSON"),
        (8, "broken JSON"),
    ] {
        let ([_, _, rule, value], tokens) = row(&format!("dirt.jsonl:{line}")).expect("in the ledger");
        assert_eq!((rule.as_str(), *tokens), ("bad_line", 0));
        assert!(value.starts_with(problem), "{value}");
    }
}

#[test]
fn the_plan_accounts_for_tokens_as_the_data_does() {
    let corpus = dirty();
    let run = corpus.run(&changes()).expect("sound");
    let planned = plan(&run, &corpus.tokenizer(), None, &mut NoProgress).expect("planned");
    assert_eq!(planned, inspect(&corpus.build(&changes()), None).expect("inspected"));
}

#[test]
fn threads_change_nothing_with_filters_on() {
    let corpus = dirty();
    let build = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| corpus.build(&changes()));
        let files = tree(&corpus.path("out"));
        std::fs::remove_dir_all(corpus.path("out")).expect("removable");
        files
    };
    assert!(build(1) == build(2));
}

#[test]
fn bad_lines_fail_unless_they_may_be_skipped() {
    let corpus = dirty();
    let fail = [changes()[0], (FILTERS, &FILTERS.replace("\"skip\"", "\"fail\"")), changes()[1]];
    let error = corpus.build_error(&fail);
    assert!(error.contains("web/dirt.jsonl:5: broken JSON at column"), "{error}");
    let error = corpus.build_error(&[("format = \"jsonl\"", "format = \"jsonl\"\non_bad_line = \"ignore\"")]);
    assert!(error.contains("unknown value `ignore`"), "{error}");
    // A broken stream is no bad line.
    let corpus = Corpus::new();
    let whole = std::fs::read(corpus.path("web/b.jsonl.gz")).expect("readable");
    corpus.write_bytes("web/b.jsonl.gz", &whole[..whole.len() / 2]);
    let skip = ("format = \"jsonl\"", "format = \"jsonl\"\non_bad_line = \"skip\"");
    assert!(corpus.build_error(&[skip]).contains("web/b.jsonl.gz: the compressed data ends too early"));
}

#[test]
fn bad_text_files_are_skipped_by_name() {
    let corpus = Corpus::new();
    corpus.write_bytes("books/00.txt", b"fine until \xff here");
    let manifest = corpus.build(&[("format = \"text\"", "format = \"text\"\non_bad_line = \"skip\"")]);
    let expected = ["00.txt", "books", "bad_line", "byte 11 is not UTF-8; convert the file, or leave it out"];
    assert!(ledger(&manifest).contains(&(expected.map(str::to_owned), 0)));
}

#[test]
fn overlong_lines_are_skipped_whole() {
    let corpus = Corpus::new();
    let good = format!("{{\"id\": \"after\", \"text\": \"{}\"}}\n", words(5000, 5));
    let mut bytes = b"{\"text\": \"".to_vec();
    bytes.resize((256 << 20) + 100, b'x');
    bytes.extend(b"\"}\n");
    bytes.extend(good.bytes());
    corpus.write_bytes("web/long.jsonl.zst", &zstd::encode_all(&bytes[..], 1).expect("compressed"));
    let manifest = corpus.build(&[("format = \"jsonl\"", "format = \"jsonl\"\non_bad_line = \"skip\"")]);
    let rows = ledger(&manifest);
    let row = |id: &str| rows.iter().find(|([found, ..], _)| found == id).expect("in the ledger");
    assert!(row("long.jsonl.zst:1").0[3].starts_with("the line is longer than"));
    assert_eq!(row("after").0[2], "min_words", "the line after it is read");
}

#[test]
fn a_changed_list_is_another_plan() {
    let corpus = dirty();
    corpus.build(&changes());
    corpus.write("lists/bad.txt", "fiddlesticks\nvillage\n");
    let error = corpus.build_error(&changes());
    assert!(error.contains("built differently") && error.contains("bad.txt"), "{error}");
    std::fs::remove_dir_all(corpus.path("out")).expect("removable");
    // Every document speaks of the village now.
    let error = corpus.build_error(&changes());
    assert!(error.contains("source `web` is empty") && error.contains("c4 "), "{error}");
    corpus.write("lists/bad.txt", "\n");
    assert!(corpus.build_error(&changes()).contains("lists/bad.txt: the list is empty"));
    std::fs::remove_file(corpus.path("lists/bad.txt")).expect("removable");
    assert!(corpus.build_error(&changes()).contains("lists/bad.txt: opening failed"));
}
