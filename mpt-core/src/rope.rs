//! Rotary position embedding: angles of positions.
//!
//! Source: Su et al. 2021 (RoFormer), section 3.4.2, with pairs `(i, i + head_dim / 2)`; the scalings of transformers'
//! `modeling_rope_utils.py`.

use std::f64::consts::TAU;

use crate::config::{MptConfig, RopeConfig, RopeScaling};

/// Angles of positions under a configuration's scaling.
///
/// Under `dynamic` scaling the angles of all tokens depend on the sequence length once it exceeds `max_seq_len`. Keys are
/// then cached unrotated and rotated at use, so attention over a cache equals attention over a prefill of the same length.
/// Cached states of deeper layers were still computed at shorter lengths: beyond `max_seq_len` decoding and prefill differ
/// there, as in any program with a cache.
#[derive(Clone, Debug)]
pub(crate) struct Rope {
    config: RopeConfig,
    head_dim: usize,
    max_seq_len: usize,
}

impl Rope {
    /// RoPE of a configuration; `None` without it.
    pub(crate) fn new(config: &MptConfig) -> Option<Self> {
        let rope = config.attn_config.rope?;
        Some(Self { config: rope, head_dim: config.head_dim, max_seq_len: config.max_seq_len })
    }

    /// Whether angles depend on the sequence length, so that keys cannot be cached rotated.
    pub(crate) fn depends_on_length(&self) -> bool {
        matches!(self.config.scaling, RopeScaling::Dynamic { .. })
    }

    /// Angles `[positions, head_dim / 2]`, radians, of positions in a sequence of `length` tokens.
    pub(crate) fn angles(&self, positions: impl Iterator<Item = u32>, length: usize) -> Vec<f32> {
        let frequencies = self.frequencies(length);
        positions
            .flat_map(|position| {
                let angle = move |frequency: &f32| position as f32 * frequency;
                frequencies.iter().map(angle).collect::<Vec<_>>()
            })
            .collect()
    }

    /// Frequencies `[head_dim / 2]`, radians per token.
    fn frequencies(&self, length: usize) -> Vec<f32> {
        let e = self.head_dim as f64;
        let theta = match self.config.scaling {
            RopeScaling::Dynamic { factor } if length > self.max_seq_len => {
                let growth = factor * length as f64 / self.max_seq_len as f64 - (factor - 1.0);
                self.config.theta * growth.powf(e / (e - 2.0))
            }
            _ => self.config.theta,
        };
        (0..self.head_dim / 2).map(|i| self.scaled(theta.powf(-(2.0 * i as f64) / e)) as f32).collect()
    }

    fn scaled(&self, frequency: f64) -> f64 {
        match self.config.scaling {
            RopeScaling::None | RopeScaling::Dynamic { .. } => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
            } => {
                let wavelength = TAU / frequency;
                if wavelength < original / high {
                    frequency
                } else if wavelength > original / low {
                    frequency / factor
                } else {
                    let smooth = (original / wavelength - low) / (high - low);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(scaling: RopeScaling) -> Rope {
        Rope { config: RopeConfig { theta: 10_000.0, scaling }, head_dim: 8, max_seq_len: 16 }
    }

    fn close(found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (f64::from(*found) - expected).abs() < 1e-6 * expected.abs().max(1.0),
                "{found} {expected}"
            );
        }
    }

    #[test]
    fn angles_are_positions_times_frequencies() {
        let plain = rope(RopeScaling::None);
        close(&plain.angles([0, 3].into_iter(), 4), &[0.0, 0.0, 0.0, 0.0, 3.0, 0.3, 0.03, 0.003]);
        let linear = rope(RopeScaling::Linear { factor: 2.0 });
        close(&linear.angles([3].into_iter(), 4), &[1.5, 0.15, 0.015, 0.0015]);
    }

    #[test]
    fn the_dynamic_base_grows_beyond_the_trained_length() {
        let dynamic = rope(RopeScaling::Dynamic { factor: 2.0 });
        assert_eq!(dynamic.angles([5].into_iter(), 16), rope(RopeScaling::None).angles([5].into_iter(), 16));
        let base = 10_000.0 * 3f64.powf(8.0 / 6.0); // 2 * 32 / 16 - 1
        let expected: Vec<f64> = (0..4).map(|i| base.powf(-f64::from(i) / 4.0)).collect();
        close(&dynamic.angles([1].into_iter(), 32), &expected);
    }

    #[test]
    fn llama3_keeps_high_frequencies_and_divides_low_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 128.0,
        };
        // wavelengths 6.28, 62.8, 628, 6283: kept, interpolated, divided, divided
        let smooth = (128.0 / (TAU * 10.0) - 1.0) / 3.0;
        let between = (1.0 - smooth) * 0.1 / 8.0 + smooth * 0.1;
        close(&rope(scaling).angles([1].into_iter(), 4), &[1.0, between, 0.01 / 8.0, 0.001 / 8.0]);
    }
}
