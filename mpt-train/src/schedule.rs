//! Learning rate schedules, as multipliers of the peak learning rate.

use crate::config::{ScheduleConfig, ScheduleKind};

/// Schedule over a fixed number of steps.
///
/// Source: Composer `optim/scheduler.py`: `CosineAnnealingWithWarmupScheduler` and its siblings. Steps count from 0
/// there, so the first step of a warm-up has rate 0.
#[derive(Debug, Clone)]
pub struct Schedule {
    config: ScheduleConfig,
    steps: u64,
}

impl Schedule {
    /// Schedule of a run of `steps` steps.
    pub fn new(config: &ScheduleConfig, steps: u64) -> Self {
        Self { config: config.clone(), steps }
    }

    /// Multiplier of step `step`, counted from 0.
    pub fn multiplier(&self, step: u64) -> f64 {
        let warmup = self.config.warmup_steps;
        if step < warmup {
            return step as f64 / warmup as f64;
        }
        let span = self.steps.saturating_sub(warmup).max(1);
        let progress = ((step - warmup) as f64 / span as f64).min(1.0);
        let floor = self.config.alpha_f;
        match self.config.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Linear => 1.0 + progress * (floor - 1.0),
            ScheduleKind::Cosine => {
                floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind) -> Schedule {
        Schedule::new(&ScheduleConfig { kind, warmup_steps: 10, alpha_f: 0.1 }, 110)
    }

    #[test]
    fn warm_up_begins_at_zero_and_ends_at_one() {
        let cosine = schedule(ScheduleKind::Cosine);
        assert_eq!(cosine.multiplier(0), 0.0);
        assert_eq!(cosine.multiplier(5), 0.5);
        assert_eq!(cosine.multiplier(10), 1.0);
    }

    #[test]
    fn each_kind_reaches_its_floor() {
        let cosine = schedule(ScheduleKind::Cosine);
        assert!((cosine.multiplier(60) - 0.55).abs() < 1e-12, "halfway between 1 and 0.1");
        assert!((cosine.multiplier(110) - 0.1).abs() < 1e-12);
        assert!((cosine.multiplier(500) - 0.1).abs() < 1e-12);
        let linear = schedule(ScheduleKind::Linear);
        assert!((linear.multiplier(35) - 0.775).abs() < 1e-12);
        assert!((linear.multiplier(110) - 0.1).abs() < 1e-12);
        assert_eq!(schedule(ScheduleKind::Constant).multiplier(70), 1.0);
    }
}
