//! HTML report of `mpt data inspect --html`: the mix, kept and dropped documents, and document lengths.

use std::collections::BTreeMap;
use std::path::Path;

use mpt_data::dedup::DedupReport;
use mpt_data::{Manifest, MixRow, MixTable, durable};

use super::tables::{ACCOUNT_HEADER, MIX_HEADER, account_rows, mix_rows};
use crate::exit::CliError;
use crate::report::{Bar, Content, Report, Section, Stat};
use crate::table::count;

/// Writes the report to `path`.
pub(super) fn write(path: &Path, manifest: &Manifest, table: &MixTable) -> Result<(), CliError> {
    let lengths = manifest.documents()?.lengths()?;
    let report = report(manifest, table, &lengths);
    Ok(durable::write_file(path, report.to_html().as_bytes())?)
}

fn report(manifest: &Manifest, table: &MixTable, lengths: &[u64]) -> Report {
    let mut sections = mix_sections(table);
    sections.extend(document_sections(table, lengths));
    let stages = manifest.contents().dedup.iter().filter(|stage| !stage.similarities.is_empty());
    sections.extend(stages.map(dedup_section));
    Report {
        title: "Prepared data".into(),
        lead: format!("{}, manifest {}.", manifest.dir().display(), &manifest.root()[..16]),
        stats: stats(table),
        sections,
    }
}

fn stats(table: &MixTable) -> Vec<Stat> {
    let sum =
        |label, of: fn(&MixRow) -> u64| Stat { label, value: count(table.sources.iter().map(of).sum()) };
    vec![
        sum("documents read", |row| row.documents_read),
        sum("documents for training", |row| row.documents),
        sum("tokens for training", |row| row.tokens),
        sum("tokens held out", |row| row.eval_tokens),
    ]
}

fn section(title: &str, note: &str, content: Content) -> Section {
    Section { title: title.into(), note: note.into(), content }
}

/// Sections of the mix: proportions, epochs, and the table of sources.
fn mix_sections(table: &MixTable) -> Vec<Section> {
    vec![
        section(
            "Mix",
            "The share of each source in training; the mark is what was asked for.",
            Content::Bars(table.sources.iter().map(share).collect()),
        ),
        section(
            "Epochs",
            "How often training goes through each source.",
            Content::Bars(table.sources.iter().map(epochs).collect()),
        ),
        section("Sources", "", Content::Table { header: MIX_HEADER.to_vec(), rows: mix_rows(table) }),
    ]
}

/// Sections of the documents: their lengths, the dropped ones by rule, and the account of tokens.
fn document_sections(table: &MixTable, lengths: &[u64]) -> Vec<Section> {
    vec![
        section(
            "Length of documents",
            "Documents that stayed, by their tokens.",
            Content::Bars(by_length(lengths)),
        ),
        section("Dropped", "Documents of all sources, by the rule.", Content::Bars(by_rule(table))),
        section(
            "Account of tokens",
            "What was read is what was kept, dropped and edited away.",
            Content::Table { header: ACCOUNT_HEADER.to_vec(), rows: account_rows(table) },
        ),
    ]
}

/// Section of a deduplication stage.
fn dedup_section(stage: &DedupReport) -> Section {
    let title = format!("Copies found by {}", stage.kind.name());
    section(&title, "Dropped documents, by their similarity to the one that stays.", similarities(stage))
}

fn share(row: &MixRow) -> Bar {
    let value_text = format!("{:.2} %", 100.0 * row.proportion_obtained);
    Bar { label: row.source.clone(), amount: row.proportion_obtained, value_text, mark: Some(row.proportion) }
}

fn epochs(row: &MixRow) -> Bar {
    Bar {
        label: row.source.clone(),
        amount: row.epochs,
        value_text: format!("{:.3}", row.epochs),
        mark: Some(1.0),
    }
}

fn by_length(lengths: &[u64]) -> Vec<Bar> {
    let from = lengths.iter().take_while(|&&documents| documents == 0).count();
    let bar = |(bucket, &documents): (usize, &u64)| Bar {
        label: format!("{} to {}", count(1 << bucket), count((2 << bucket) - 1)),
        amount: documents as f64,
        value_text: count(documents),
        mark: None,
    };
    lengths.iter().enumerate().skip(from).map(bar).collect()
}

fn by_rule(table: &MixTable) -> Vec<Bar> {
    let mut rules: BTreeMap<&str, u64> = BTreeMap::new();
    for (rule, documents) in table.sources.iter().flat_map(|row| &row.drops) {
        *rules.entry(rule).or_default() += documents;
    }
    let bar = |(rule, documents): (&str, u64)| Bar {
        label: rule.to_owned(),
        amount: documents as f64,
        value_text: count(documents),
        mark: None,
    };
    rules.into_iter().map(bar).collect()
}

fn similarities(stage: &DedupReport) -> Content {
    let steps = stage.similarities.len() as f64;
    let bar = |(step, &documents): (usize, &u64)| Bar {
        label: format!("{:.2} to {:.2}", step as f64 / steps, (step + 1) as f64 / steps),
        amount: documents as f64,
        value_text: count(documents),
        mark: None,
    };
    Content::Bars(
        stage.similarities.iter().enumerate().filter(|(_, documents)| **documents > 0).map(bar).collect(),
    )
}
