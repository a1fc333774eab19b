//! The report of a quickstart: curve, mix, texts, and what to do next, as one page.

use std::path::Path;

use mpt_data::{MixTable, durable};
use serde_json::Value;

use super::{Found, metrics_path};
use crate::commands::data::{MIX_HEADER, mix_cells};
use crate::exit::{CliError, ExitStatus};
use crate::report::{Body, Chart, Figure, Mark, Report, Section, Series};

/// Writes `report.html` into the folder.
pub(super) fn write(dir: &Path, found: &Found, mix: &MixTable) -> Result<(), CliError> {
    let page = report(found, mix, &chart(dir, found)?).to_html();
    Ok(durable::write_file(&dir.join("report.html"), page.as_bytes())?)
}

fn report(found: &Found, mix: &MixTable, chart: &Chart) -> Report {
    let summary = &found.summary;
    let figure = |label, value: String| Figure { label, value };
    let eval_loss = summary.eval_loss.unwrap_or(f64::NAN);
    let section = |title: &str, note: &str, body| Section { title: title.into(), note: note.into(), body };
    Report {
        title: "MPT quickstart".into(),
        lead: "A tokenizer and a small MPT, trained on this machine from text that was already on it.".into(),
        figures: vec![
            figure("held-out loss, nats a token", format!("{eval_loss:.3}")),
            figure("token frequencies alone", format!("{:.3}", found.unigram_loss)),
            figure("steps", summary.step.to_string()),
            figure("training tokens", crate::table::count(summary.tokens)),
        ],
        sections: vec![
            section(
                "Loss",
                "The dashed level is what token frequencies alone reach.",
                Body::Chart(chart.clone()),
            ),
            section("Mix", "", Body::Table { header: MIX_HEADER.to_vec(), rows: mix_cells(mix) }),
            section(
                "What it writes",
                "After the beginning of a held-out text.",
                Body::Samples(found.samples.clone()),
            ),
            section("Next", "", Body::Listing(found.next.join("\n"))),
        ],
    }
}

fn chart(dir: &Path, found: &Found) -> Result<Chart, CliError> {
    let path = metrics_path(dir);
    let text =
        std::fs::read_to_string(&path).map_err(|error| CliError::read(ExitStatus::Data, &path, error))?;
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let points = |key: &str| -> Vec<(f64, f64)> {
        lines.iter().filter_map(|line| Some((line["step"].as_f64()?, line[key].as_f64()?))).collect()
    };
    let series = |label: &str, mark, points| Series { label: label.into(), mark, points };
    let last = found.summary.step as f64;
    let level = vec![(0.0, found.unigram_loss), (last, found.unigram_loss)];
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
