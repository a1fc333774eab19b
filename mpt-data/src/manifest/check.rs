//! Checks of a manifest, because anyone can write one with a valid hash. After this boundary nobody checks again.

use std::collections::HashSet;

use super::contents::{ManifestContents, Plan, SourceRecord, Split, SplitRecord};
use super::file_table::FILE_TABLE;
use super::{DOCUMENTS, DROPS, RESTORE, TOKENIZER};
use crate::config::{MAX_ROW_TOKENS, SOURCE_NAME, is_source_name};
use crate::file_digest::FileDigest;
use crate::layout::{ColumnPages, FILE_GROUPS, GROUP_ROWS, PAGE_ROWS, RowGroup, RowLayout, ShardRecord};
use crate::mixing::{Quota, Share};

/// Largest vocabulary: ids have 32 bits.
const MAX_VOCAB: usize = 1 << 32;

/// Longest file, in bytes, so that sums of lengths do not overflow.
const MAX_FILE_BYTES: u64 = 1 << 48;

/// Result of a check; an error names the field, in words.
type CheckResult = Result<(), String>;

/// Checks the plan, the names of sources and the other files. Shards that a table lists are checked later.
pub(super) fn check(contents: &ManifestContents) -> CheckResult {
    check_plan(&contents.plan)?;
    let mut names = HashSet::new();
    for (at, source) in contents.sources.iter().enumerate() {
        let field = format!("sources[{at}]");
        expect(&format!("{field}.name"), &source.name, is_source_name(&source.name), SOURCE_NAME)?;
        expect(&format!("{field}.name"), &source.name, names.insert(&source.name), "a name of its own")?;
        check_share(&format!("{field}.proportion"), source.proportion)?;
        let planned = contents.plan.sources.get(at).map_or("", |plan| plan.name.as_str());
        expect(&format!("plan.{field}.name"), &planned, planned == source.name, "that of the source")?;
    }
    let (sources, planned) = (contents.sources.len(), contents.plan.sources.len());
    expect(
        "sources",
        &sources,
        sources == planned && sources > 0,
        "as many as `plan.sources`, and one at least",
    )?;
    let named = contents.sources.iter().map(|source| source.name.as_str());
    contents
        .plan
        .mixing
        .check(named)
        .map_err(|wrong| wrong_field(&format!("plan.{}", wrong.key), &wrong.actual, &wrong.expected))?;
    for (field, id) in [("bos_id", contents.bos_id), ("eos_id", contents.eos_id)] {
        let fits = id.is_none_or(|id| (id as usize) < contents.plan.vocab_size);
        expect(field, &id.unwrap_or(0), fits, "an id of the vocabulary")?;
    }
    check_files(contents)
}

/// Checks documents, tokens and shards, once all shards are listed.
pub(super) fn check_shards(contents: &ManifestContents) -> CheckResult {
    let layout = contents.plan.layout();
    let mut next_document = 0u64;
    for split in Split::ALL {
        for source in &contents.sources {
            let part = SplitCheck {
                field: format!("sources.{}.{}", source.name, split.name()),
                source,
                split,
                layout,
            };
            part.check(next_document)?;
            next_document = sum("documents", [next_document, part.record().documents])?;
        }
    }
    contents.sources.iter().try_for_each(check_account)
}

fn check_plan(plan: &Plan) -> CheckResult {
    let row = plan.row_tokens;
    expect("plan.row_tokens", &row, (1..=MAX_ROW_TOKENS).contains(&row), "from 1 to 16384")?;
    let fits = plan.seq_len > 0 && (plan.seq_len.is_multiple_of(row) || row.is_multiple_of(plan.seq_len));
    expect("plan.seq_len", &plan.seq_len, fits, "a divisor or a multiple of `row_tokens`")?;
    let vocab = plan.vocab_size;
    expect("plan.vocab_size", &vocab, (1..=MAX_VOCAB).contains(&vocab), "from 1 to 2^32")?;
    expect("plan.tokenizer", &plan.tokenizer, is_sha256(&plan.tokenizer), SHA256)?;
    let share = plan.eval_fraction;
    expect("plan.eval_fraction", &share, (0.0..=0.5).contains(&share), "a share from 0 to 0.5")
}

fn check_share(field: &str, share: Share) -> CheckResult {
    match share {
        Share::Proportion(share) => {
            expect(field, &share, share > 0.0 && share <= 1.0, "a share above 0, and 1 at most")
        }
        Share::Quota(Quota::Repeat(times)) => expect(
            field,
            &times,
            times > 0.0 && times <= 1e6,
            "a number of passes above 0, and 1000000 at most",
        ),
        Share::Quota(Quota::Choose(samples)) => expect(field, &samples, samples > 0, "1 sample or more"),
    }
}

/// Checks the files beside the shards: those that every folder has, each once.
fn check_files(contents: &ManifestContents) -> CheckResult {
    let mut names: Vec<_> = contents.files.iter().map(|file| file.name.as_str()).collect();
    names.sort_unstable();
    let is_known = names == [DOCUMENTS, DROPS, TOKENIZER];
    expect("files", &names.join(", "), is_known, &format!("{DOCUMENTS}, {DROPS} and {TOKENIZER}"))?;
    if let Some(table) = &contents.file_table {
        expect("file_table.name", &table.name, table.name == FILE_TABLE, FILE_TABLE)?;
        let listed = contents.sources.iter().map(|source| source.train.files.len() + source.eval.files.len());
        expect("sources", &"shards", listed.sum::<usize>() == 0, "none here, since the table lists them")?;
    }
    let has_sum = |file: &FileDigest| {
        let name = &file.name;
        expect(&format!("{name}.bytes"), &file.bytes, file.bytes <= MAX_FILE_BYTES, "2^48 at most")?;
        expect(&format!("{}.sha256", file.name), &file.sha256, is_sha256(&file.sha256), SHA256)
    };
    contents.files.iter().chain(&contents.file_table).try_for_each(has_sum)
}

/// Checks that every token read was kept, dropped or edited away, and every document kept or dropped.
fn check_account(source: &SourceRecord) -> CheckResult {
    let (name, account) = (&source.name, &source.tokens);
    let kept = sum("tokens", [source.train.tokens, source.eval.tokens])?;
    sum("bytes of text", [source.train.text_bytes, source.eval.text_bytes])?;
    let field = format!("sources.{name}.tokens.tokens_kept");
    expect(&field, &account.tokens_kept, account.tokens_kept == kept, "the tokens of both splits")?;
    let rest = i128::from(account.tokens_read) - i128::from(kept) - i128::from(account.tokens_dropped);
    let is_even = rest == i128::from(account.tokens_edited_away);
    let field = format!("sources.{name}.tokens.tokens_read");
    expect(&field, &account.tokens_read, is_even, "the tokens kept, dropped and edited away")?;
    let counts = source.drops.values().copied().chain([source.train.documents, source.eval.documents]);
    let documents = sum("documents", counts)?;
    let field = format!("sources.{name}.documents");
    expect(&field, &source.documents, source.documents == documents, "the documents kept and dropped")
}

/// Check of a split of a source.
struct SplitCheck<'a> {
    field: String,
    source: &'a SourceRecord,
    split: Split,
    layout: RowLayout,
}

impl SplitCheck<'_> {
    fn record(&self) -> &SplitRecord {
        self.source.split(self.split)
    }

    fn expect(&self, key: &str, found: impl std::fmt::Display, holds: bool, expected: &str) -> CheckResult {
        expect(&format!("{}.{key}", self.field), &found, holds, expected)
    }

    fn check(&self, next_document: u64) -> CheckResult {
        let record = self.record();
        let first = record.first_document;
        self.expect(
            "first_document",
            first,
            first == next_document,
            &format!("{next_document}, the next in order"),
        )?;
        self.expect(
            "documents",
            record.documents,
            first.checked_add(record.documents).is_some(),
            "a possible number",
        )?;
        for (number, file) in record.files.iter().enumerate() {
            self.check_file(number, file)?;
        }
        let rows = sum("rows", record.files.iter().map(|file| file.rows))?;
        self.expect("rows", record.rows, record.rows == rows, &format!("{rows}, those of its files"))?;
        let row_tokens = self.layout.row_tokens as u64;
        let tail = record.tail_tokens;
        self.expect("tail_tokens", tail, tail < row_tokens, &format!("less than a row of {row_tokens}"))?;
        let tokens = rows.checked_mul(row_tokens).and_then(|tokens| tokens.checked_add(tail));
        self.expect(
            "tokens",
            record.tokens,
            Some(record.tokens) == tokens,
            "the tokens of its rows and the tail",
        )
    }

    fn check_file(&self, number: usize, file: &ShardRecord) -> CheckResult {
        let at = |key: &str| format!("files[{number}].{key}");
        let path = format!("{}/{}/{number:05}.parquet", self.split.name(), self.source.name);
        self.expect(&at("path"), &file.path, file.path == path, &path)?;
        self.expect(&at("bytes"), file.bytes, file.bytes <= MAX_FILE_BYTES, "2^48 at most")?;
        self.expect(&at("sha256"), &file.sha256, is_sha256(&file.sha256), SHA256)?;
        let groups = file.groups.len() as u64;
        self.expect(&at("groups"), groups, (1..=FILE_GROUPS).contains(&groups), "from 1 to 16 row groups")?;
        let rows = sum("rows", file.groups.iter().map(|group| group.rows))?;
        self.expect(&at("rows"), file.rows, file.rows == rows, &format!("{rows}, those of its row groups"))?;
        for (group_number, group) in file.groups.iter().enumerate() {
            let rows = group.rows;
            let field = at(&format!("groups[{group_number}]"));
            self.expect(&format!("{field}.rows"), rows, (1..=GROUP_ROWS).contains(&rows), "from 1 to 2048")?;
            self.expect(
                &field,
                "beyond its end",
                is_inside(group, file.bytes, self.layout),
                &format!("pages within the {} bytes of the file", file.bytes),
            )?;
        }
        let Some([first, last]) = file.documents else { return Ok(()) };
        let record = self.record();
        let end = record.first_document.saturating_add(record.documents);
        let holds = record.first_document <= first && first <= last && last < end;
        self.expect(&at("documents"), format!("[{first}, {last}]"), holds, "documents of the split, in order")
    }
}

/// Whether all rows of a group are within the `bytes` of a file.
fn is_inside(group: &RowGroup, bytes: u64, layout: RowLayout) -> bool {
    let fits = |pages: &ColumnPages, width: usize| {
        let last = group.rows.saturating_sub(1);
        // The last row of the last page but one, and the last row of all.
        let rows = [(last / PAGE_ROWS * PAGE_ROWS).saturating_sub(1), last];
        rows.into_iter().all(|row| {
            pages.offset(row, group.rows, width).checked_add(width as u64).is_some_and(|end| end <= bytes)
        })
    };
    fits(&group.tokens, layout.tokens_width()) && fits(&group.meta, layout.meta_width())
}

const SHA256: &str = "64 hexadecimal digits, a SHA-256";

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn sum(what: &str, numbers: impl IntoIterator<Item = u64>) -> Result<u64, String> {
    let sum = numbers.into_iter().try_fold(0u64, u64::checked_add);
    sum.ok_or_else(|| format!("its numbers of {what} add up to more than 2^64"))
}

fn expect(field: &str, found: &dyn std::fmt::Display, holds: bool, expected: &str) -> CheckResult {
    if holds { Ok(()) } else { Err(wrong_field(field, &found.to_string(), expected)) }
}

fn wrong_field(field: &str, found: &str, expected: &str) -> String {
    format!("`{field}` is {found}, expected {expected}; it was changed; {RESTORE}")
}
