//! HTML report of a quickstart: loss curve, mix, samples, and further commands.

use std::path::Path;

use mpt_data::{MixTable, durable};
use serde_json::Value;

use super::{Outcome, metrics_path};
use crate::commands::data::{MIX_HEADER, mix_rows};
use crate::exit::{CliError, ExitStatus};
use crate::report::{Chart, Content, Mark, Report, Section, Series, Stat};

/// Writes `report.html` to the folder.
pub(super) fn write(dir: &Path, outcome: &Outcome, mix: &MixTable) -> Result<(), CliError> {
    let page = report(outcome, mix, &chart(dir, outcome)?).to_html();
    Ok(durable::write_file(&dir.join("report.html"), page.as_bytes())?)
}

fn report(outcome: &Outcome, mix: &MixTable, chart: &Chart) -> Report {
    let summary = &outcome.summary;
    let stat = |label, value: String| Stat { label, value };
    let eval_loss = summary.eval_loss.unwrap_or(f64::NAN);
    let section =
        |title: &str, note: &str, content| Section { title: title.into(), note: note.into(), content };
    Report {
        title: "MPT quickstart".into(),
        lead: "A tokenizer and a small MPT, trained on this machine from text that was already on it.".into(),
        stats: vec![
            stat("held-out loss, nats a token", format!("{eval_loss:.3}")),
            stat("token frequencies alone", format!("{:.3}", outcome.unigram_loss)),
            stat("steps", summary.step.to_string()),
            stat("training tokens", crate::table::count(summary.tokens)),
        ],
        sections: vec![
            section(
                "Loss",
                "The dashed level is what token frequencies alone reach.",
                Content::Chart(chart.clone()),
            ),
            section("Mix", "", Content::Table { header: MIX_HEADER.to_vec(), rows: mix_rows(mix) }),
            section(
                "What it writes",
                "After the beginning of a held-out text.",
                Content::Samples(outcome.samples.clone()),
            ),
            section("Next", "", Content::Listing(outcome.next_commands.join("\n"))),
        ],
    }
}

fn chart(dir: &Path, outcome: &Outcome) -> Result<Chart, CliError> {
    let path = metrics_path(dir);
    let text =
        std::fs::read_to_string(&path).map_err(|error| CliError::read(ExitStatus::Data, &path, error))?;
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let points = |key: &str| -> Vec<(f64, f64)> {
        lines.iter().filter_map(|line| Some((line["step"].as_f64()?, line[key].as_f64()?))).collect()
    };
    let series = |label: &str, mark, points| Series { label: label.into(), mark, points };
    let last = outcome.summary.step as f64;
    let level = vec![(0.0, outcome.unigram_loss), (last, outcome.unigram_loss)];
    Ok(Chart {
        x_label: "step",
        y_label: "nats a token",
        series: vec![
            series("training", Mark::Line, points("loss")),
            series("held out", Mark::Dots, points("eval_loss")),
            series("token frequencies", Mark::Level, level),
        ],
    })
}
