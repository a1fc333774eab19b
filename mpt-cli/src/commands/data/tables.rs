//! Tables of `mpt data`: the mix, the account of tokens, and the deduplication report.

use mpt_data::dedup::{DedupReport, DedupSourceReport};
use mpt_data::{MixRow, MixTable};

use crate::exit::CliError;
use crate::settings::Context;
use crate::table;

/// Prints the tables of `inspect` and `plan`, or their JSON document.
pub(super) fn print_inspection(
    table: &MixTable,
    dedup: &[DedupReport],
    ctx: &mut Context,
) -> Result<(), CliError> {
    print_mix(table, ctx)?;
    print_dedup(dedup, ctx)?;
    ctx.out.json(&InspectOutput { table, dedup })
}

/// Output of `inspect` and `plan`: the mix, and the deduplication report if there is one.
#[derive(serde::Serialize)]
struct InspectOutput<'a> {
    #[serde(flatten)]
    table: &'a MixTable,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    dedup: &'a [DedupReport],
}

/// Prints the mix, and below it the account of the tokens read.
pub(super) fn print_mix(table: &MixTable, ctx: &mut Context) -> Result<(), CliError> {
    ctx.out.table(&MIX_HEADER, &mix_rows(table))?;
    if table.sources.iter().all(|row| row.account.tokens_read == 0) {
        // Nothing was read: the mix itself gave the token counts.
        return Ok(());
    }
    ctx.out.text("")?;
    ctx.out.table(&ACCOUNT_HEADER, &account_rows(table))
}

/// Header of the mix table.
pub(crate) const MIX_HEADER: [&str; 9] = [
    "source",
    "documents",
    "tokens",
    "held out",
    "asked",
    "obtained",
    "effective tokens",
    "epochs",
    "dropped",
];

/// Rows of the mix table, one per source.
pub(crate) fn mix_rows(table: &MixTable) -> Vec<Vec<String>> {
    let cells = |row: &MixRow| {
        let drops: Vec<_> =
            row.drops.iter().map(|(rule, count)| format!("{rule} {}", table::count(*count))).collect();
        vec![
            row.source.clone(),
            table::count(row.documents),
            table::count(row.tokens),
            table::count(row.eval_tokens),
            format!("{:.2} %", 100.0 * row.proportion),
            format!("{:.2} %", 100.0 * row.proportion_obtained),
            table::count(row.effective_tokens),
            format_epochs(row.epochs),
            if drops.is_empty() { "-".into() } else { drops.join(", ") },
        ]
    };
    table.sources.iter().map(cells).collect()
}

/// Epochs with two decimal places, below one with three: 8.21, 0.097.
pub(super) fn format_epochs(epochs: f64) -> String {
    if epochs < 1.0 { format!("{epochs:.3}") } else { format!("{epochs:.2}") }
}

/// Header of the token account. Tokens read are the sum of the next three columns.
pub(super) const ACCOUNT_HEADER: [&str; 6] =
    ["source", "tokens read", "= kept", "+ dropped", "+ edited away", "documents edited"];

pub(super) fn account_rows(table: &MixTable) -> Vec<Vec<String>> {
    let cells = |row: &MixRow| {
        let account = &row.account;
        let away = account.tokens_edited_away;
        vec![
            row.source.clone(),
            table::count(account.tokens_read),
            table::count(account.tokens_kept),
            table::count(account.tokens_dropped),
            format!("{}{}", if away < 0 { "-" } else { "" }, table::count(away.unsigned_abs())),
            table::count(account.documents_edited),
        ]
    };
    table.sources.iter().map(cells).collect()
}

/// Prints the deduplication report: sources with findings per stage, and the largest duplicate groups.
pub(super) fn print_dedup(reports: &[DedupReport], ctx: &mut Context) -> Result<(), CliError> {
    let rows: Vec<_> = reports.iter().flat_map(dedup_rows).collect();
    if rows.is_empty() {
        return Ok(());
    }
    ctx.out.text("")?;
    ctx.out.table(&DEDUP_HEADER, &rows)?;
    reports.iter().filter_map(duplicate_groups_line).try_for_each(|line| ctx.out.text(line))
}

/// Header of the deduplication table.
const DEDUP_HEADER: [&str; 7] =
    ["stage", "source", "documents", "dropped", "tokens dropped", "edited", "tokens edited away"];

fn dedup_rows(report: &DedupReport) -> Vec<Vec<String>> {
    let found = report.sources.iter().filter(|source| source.dropped + source.edited > 0);
    let cells = |source: &DedupSourceReport| {
        vec![
            report.kind.name().to_owned(),
            source.name.clone(),
            table::count(source.documents),
            table::count(source.dropped),
            table::count(source.tokens_dropped),
            table::count(source.edited),
            source.tokens_edited_away.to_string(),
        ]
    };
    found.map(cells).collect()
}

/// Line with a stage's duplicate groups and the similarities of what it dropped.
fn duplicate_groups_line(report: &DedupReport) -> Option<String> {
    let mut parts = Vec::new();
    if report.groups > 0 {
        let largest: Vec<_> =
            report.largest.iter().map(|group| format!("{} ({})", group.id, group.documents)).collect();
        let groups = table::count(report.groups);
        parts.push(format!("{groups} groups, the largest: {}", largest.join(", ")));
    }
    let bins = report.similarities.iter().enumerate().filter(|(_, count)| **count > 0);
    let bins: Vec<_> = bins.map(|(bin, count)| format!("{:.2}+ {count}", bin as f64 / 20.0)).collect();
    if !bins.is_empty() {
        parts.push(format!("by similarity: {}", bins.join(", ")));
    }
    parts.extend(report.threshold.map(|threshold| format!("threshold {threshold:.4}")));
    (!parts.is_empty()).then(|| format!("{}: {}", report.kind.name(), parts.join("; ")))
}
