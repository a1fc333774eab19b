//! Progress of long work: a bar with rate and remaining time on a terminal, periodic log lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::ProgressStyle;
use serde::Serialize;

use crate::output::Log;

/// Duration after which a [`DelayedProgressBar`] appears.
const SHOW_AFTER: Duration = Duration::from_secs(2);

/// Interval between log lines if no bar is drawn.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Progress of a task, with a total if it is known.
#[derive(Debug)]
pub(crate) struct ProgressBar {
    log: Log,
    bar: Option<indicatif::ProgressBar>,
    name: String,
    unit: Unit,
    total: Option<u64>,
    done: u64,
    resumed_at: u64,
    note: String,
    started: Instant,
    last_logged: Instant,
}

/// Unit of progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bytes, printed in MiB and the like.
    Bytes,
    /// Other units, by their plural.
    Count(&'static str),
}

impl ProgressBar {
    /// Starts a task. `total` is `None` if it is unknown.
    pub(crate) fn start(log: &Log, name: impl Into<String>, unit: Unit, total: Option<u64>) -> Self {
        let name = name.into();
        let bar = log.bars().map(|bars| bars.add(terminal_bar(&name, unit, total)));
        let now = Instant::now();
        let note = String::new();
        Self {
            log: log.clone(),
            bar,
            name,
            unit,
            total,
            done: 0,
            resumed_at: 0,
            note,
            started: now,
            last_logged: now,
        }
    }

    /// Sets the position of resumed work. Rates are counted from there.
    pub(crate) fn resume_at(&mut self, done: u64) {
        (self.resumed_at, self.done, self.started) = (done, done, Instant::now());
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.reset_eta();
        }
    }

    /// Sets the position.
    pub(crate) fn set(&mut self, done: u64) {
        self.done = done;
        match &self.bar {
            Some(bar) => bar.set_position(done),
            None => self.log_periodically(),
        }
    }

    /// Advances by `more` units.
    pub(crate) fn advance(&mut self, more: u64) {
        self.set(self.done + more);
    }

    /// Sets a note such as the loss.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.note = note.into();
        if let Some(bar) = &self.bar {
            bar.set_message(self.note.clone());
        }
    }

    /// Removes the bar and prints a summary.
    pub(crate) fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let elapsed = self.started.elapsed();
        let note = if self.note.is_empty() { String::new() } else { format!(", {}", self.note) };
        let amount = format_amount(self.unit, self.done);
        let message = format!("{}: {amount} in {}{note}", self.name, format_duration(elapsed));
        self.log.event(message, &self.record(elapsed));
    }

    fn log_periodically(&mut self) {
        if self.last_logged.elapsed() < LOG_INTERVAL {
            return;
        }
        self.last_logged = Instant::now();
        let elapsed = self.started.elapsed();
        let mut line = format!("{}: {}", self.name, format_amount(self.unit, self.done));
        if let Some(total) = self.total.filter(|&total| total > 0) {
            line += &format!(
                " of {} ({} %)",
                format_amount(self.unit, total),
                self.done.saturating_mul(100) / total
            );
        }
        line += &format!(", {}/s", format_amount(self.unit, self.rate(elapsed) as u64));
        if let Some(left) = self.time_left(elapsed) {
            line += &format!(", {} left", format_duration(left));
        }
        if !self.note.is_empty() {
            line += &format!(", {}", self.note);
        }
        self.log.event(line, &self.record(elapsed));
    }

    /// Units per second since the start or the resumption.
    fn rate(&self, elapsed: Duration) -> f64 {
        (self.done - self.resumed_at.min(self.done)) as f64 / elapsed.as_secs_f64().max(1e-3)
    }

    fn time_left(&self, elapsed: Duration) -> Option<Duration> {
        let left = self.total?.saturating_sub(self.done) as f64 / self.rate(elapsed);
        Duration::try_from_secs_f64(left).ok()
    }

    fn record(&self, elapsed: Duration) -> impl Serialize {
        serde_json::json!({
            "task": self.name, "done": self.done, "total": self.total, "seconds": elapsed.as_secs_f64(),
        })
    }
}

/// [`ProgressBar`] that appears after [`SHOW_AFTER`], so that short work prints nothing.
#[derive(Debug)]
pub(crate) struct DelayedProgressBar {
    log: Log,
    name: &'static str,
    unit: Unit,
    total: u64,
    done: u64,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl DelayedProgressBar {
    /// Starts a task of `total` units.
    pub(crate) fn new(log: &Log, name: &'static str, unit: Unit, total: u64) -> Self {
        Self { log: log.clone(), name, unit, total, done: 0, started: Instant::now(), bar: None }
    }

    /// Advances by `more` units.
    pub(crate) fn advance(&mut self, more: u64) {
        self.done += more;
        match &mut self.bar {
            Some(bar) => bar.set(self.done),
            None if self.started.elapsed() >= SHOW_AFTER => self.bar = Some(self.start_bar()),
            None => {}
        }
    }

    /// Ends the task.
    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish();
        }
    }

    fn start_bar(&self) -> ProgressBar {
        let mut bar = ProgressBar::start(&self.log, self.name, self.unit, Some(self.total));
        bar.started = self.started;
        bar.set(self.done);
        bar
    }
}

fn terminal_bar(name: &str, unit: Unit, total: Option<u64>) -> indicatif::ProgressBar {
    let bar = match total {
        Some(total) => indicatif::ProgressBar::new(total),
        None => indicatif::ProgressBar::no_length(),
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    bar.with_style(style(unit, total.is_some())).with_prefix(name.to_owned())
}

fn style(unit: Unit, has_total: bool) -> ProgressStyle {
    let (done, total, rate) = match unit {
        Unit::Bytes => ("{binary_bytes}", "{binary_total_bytes}", "{binary_bytes_per_sec}".to_owned()),
        Unit::Count(name) => ("{human_pos}", "{human_len}", format!("{{per_sec}} {name}")),
    };
    let template = if has_total {
        format!("{{prefix:>12.bold}} [{{bar:28.cyan}}] {done}/{total}  {rate}  {{eta}} left  {{wide_msg}}")
    } else {
        format!("{{prefix:>12.bold}} {{spinner:.cyan}} {done}  {rate}  {{wide_msg}}")
    };
    ProgressStyle::with_template(&template).expect("the template is a constant").progress_chars("=> ")
}

/// Number with its unit: `1.5 MiB`, `12 documents`.
pub(crate) fn format_amount(unit: Unit, count: u64) -> String {
    match unit {
        Unit::Bytes => indicatif::BinaryBytes(count).to_string(),
        Unit::Count(name) => format!("{} {name}", indicatif::HumanCount(count)),
    }
}

/// Duration in its two leading units: `850 ms`, `12.3 s`, `4 min 05 s`, `2 h 10 min`.
pub(crate) fn format_duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid() {
        for unit in [Unit::Bytes, Unit::Count("steps")] {
            for has_total in [true, false] {
                style(unit, has_total);
            }
        }
    }

    #[test]
    fn durations_show_two_units() {
        let shown = [0.85, 12.34, 245.0, 7800.0].map(|s| format_duration(Duration::from_secs_f64(s)));
        assert_eq!(shown, ["850 ms", "12.3 s", "4 min 05 s", "2 h 10 min"]);
    }

    #[test]
    fn amounts_have_units() {
        assert_eq!(format_amount(Unit::Bytes, 3 << 19), "1.50 MiB");
        assert_eq!(format_amount(Unit::Count("documents"), 1234), "1,234 documents");
    }
}
