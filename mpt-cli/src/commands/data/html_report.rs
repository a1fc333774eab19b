//! HTML report of `mpt data inspect --html`: the mix, kept and dropped documents, and document lengths.

use std::collections::BTreeMap;
use std::path::Path;

use mpt_data::{DedupReport, Manifest, MixRow, MixTable, durable};

use super::{ACCOUNT_HEADER, MIX_HEADER, account_rows, mix_rows};
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
    let sum = |of: fn(&MixRow) -> u64| count(table.sources.iter().map(of).sum());
    let stat = |label, value| Stat { label, value };
    let section =
        |title: &str, note: &str, content| Section { title: title.into(), note: note.into(), content };
    let mut sections = vec![
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
    ];
    sections.extend(manifest.contents().dedup.iter().filter(|stage| !stage.similarities.is_empty()).map(
        |stage| {
            let title = format!("Copies found by {}", stage.kind.name());
            section(
                &title,
                "Dropped documents, by their similarity to the one that stays.",
                similarities(stage),
            )
        },
    ));
    Report {
        title: "Prepared data".into(),
        lead: format!("{}, manifest {}.", manifest.dir().display(), &manifest.root()[..16]),
        stats: vec![
            stat("documents read", sum(|row| row.documents_read)),
            stat("documents for training", sum(|row| row.documents)),
            stat("tokens for training", sum(|row| row.tokens)),
            stat("tokens held out", sum(|row| row.eval_tokens)),
        ],
        sections,
    }
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
