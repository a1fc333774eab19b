//! `metrics.jsonl`: a line per step and per evaluation.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use mpt_data::durable;
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::observer::StepMetrics;

/// `metrics.jsonl` of a run, open for appending.
pub(crate) struct MetricsFile {
    path: PathBuf,
    file: File,
}

impl MetricsFile {
    /// Opens the file of a run that resumes after `step`. Lines of later steps are removed, since these run again, and so is
    /// an incomplete last line.
    pub(crate) fn open(run_dir: &Path, step: u64) -> Result<Self> {
        let path = run_dir.join("metrics.jsonl");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Error::io(&path, "reading")(error)),
        };
        let kept: String = text.split_inclusive('\n').filter(|line| is_up_to(line, step)).collect();
        if kept != text {
            durable::write_file(&path, kept.as_bytes())?;
        }
        let file =
            OpenOptions::new().append(true).create(true).open(&path).map_err(Error::io(&path, "opening"))?;
        Ok(Self { path, file })
    }

    pub(crate) fn step(&mut self, metrics: &StepMetrics) -> Result<()> {
        self.append(metrics)
    }

    pub(crate) fn evaluation(&mut self, step: u64, loss: f64, tokens: u64) -> Result<()> {
        self.append(&json!({ "step": step, "eval_loss": loss, "eval_tokens": tokens }))
    }

    /// Appends a line in one write, so that other programs never see half of it.
    fn append(&mut self, line: &impl Serialize) -> Result<()> {
        let line = serde_json::to_string(line).expect("string keys and finite numbers") + "\n";
        self.file.write_all(line.as_bytes()).map_err(Error::io(&self.path, "writing"))
    }
}

fn is_up_to(line: &str, step: u64) -> bool {
    let value: Value = serde_json::from_str(line).unwrap_or_default();
    line.ends_with('\n') && value["step"].as_u64().is_some_and(|found| found <= step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_lost_steps_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut metrics = MetricsFile::open(dir.path(), 0).unwrap();
        for step in 1..=5 {
            metrics.evaluation(step, 2.0, 10).unwrap();
        }
        metrics.file.write_all(b"{\"step\": 2, \"lo").unwrap();
        drop(metrics);
        MetricsFile::open(dir.path(), 3).unwrap().evaluation(4, 1.0, 10).unwrap();
        let text = fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
        let steps: Vec<_> =
            text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64()).collect();
        assert_eq!(steps, [Some(1), Some(2), Some(3), Some(4)]);
    }
}
