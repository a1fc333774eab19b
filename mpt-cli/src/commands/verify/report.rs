//! Report of `mpt verify`: metrics and checks, as text and as JSON.

use mpt_infer::verify::{Check, Comparison};
use serde_json::json;

use crate::exit::{CliError, ExitStatus};
use crate::settings::Context;
use crate::table;

/// Result of a verification.
pub(super) struct VerifyReport {
    /// Models that were compared.
    pub(super) title: String,
    /// Comparison of the logits.
    pub(super) comparison: Comparison,
    /// Tolerance of the logits.
    pub(super) tolerance: f64,
    /// Checks.
    pub(super) checks: Vec<Check>,
}

impl VerifyReport {
    fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }

    /// Prints the metrics, if the model was compared with another, and the checks.
    pub(super) fn print(&self, has_reference: bool, ctx: &mut Context) -> Result<ExitStatus, CliError> {
        ctx.out.text(&self.title)?;
        if has_reference {
            for line in table::lines(&["", ""], &metric_rows(&self.comparison)).iter().skip(1) {
                ctx.out.text(line)?;
            }
        } else if let Some(perplexity) = self.comparison.perplexity {
            ctx.out.text(format_args!("perplexity {perplexity:.4}"))?;
        }
        for Check { name, passed, detail } in &self.checks {
            ctx.out.text(format_args!("{} {name}: {detail}", if *passed { "ok    " } else { "FAILED" }))?;
        }
        let passed = self.passed();
        let mut document = json!({ "passed": passed, "tolerance": self.tolerance, "checks": self.checks });
        let metrics =
            serde_json::to_value(&self.comparison).map_err(|error| CliError::data(error.to_string()))?;
        if let (Some(document), serde_json::Value::Object(metrics)) = (document.as_object_mut(), metrics) {
            document.extend(metrics);
        }
        ctx.out.json(&document)?;
        Ok(if passed { ExitStatus::Done } else { ExitStatus::Negative })
    }
}

/// Table rows of a comparison's metrics.
fn metric_rows(found: &Comparison) -> Vec<Vec<String>> {
    let line = |name: &str, value: String| vec![name.to_owned(), value];
    let mut lines = vec![
        line("positions", table::count(found.positions)),
        line("largest logit error", format!("{:.3e}", found.max_error)),
        line("as a share of the range", format!("{:.3e}", found.relative_error)),
        line("mean KL divergence", format!("{:.3e}", found.kl_mean)),
        line("largest KL divergence", format!("{:.3e}", found.kl_max)),
        line("top-1 agreement", format!("{:.2} %", 100.0 * found.top1_agreement)),
    ];
    if let (Some(found), Some(against)) = (found.perplexity, found.perplexity_against) {
        lines.push(line("perplexity", format!("{found:.4}")));
        lines.push(line("perplexity against", format!("{against:.4}")));
    }
    if let Some(worst) = found.worst {
        let worst = format!("{} row {}, position {}", worst.part, worst.row, worst.position);
        lines.push(line("worst", worst));
    }
    lines
}
