//! NF4 with double quantization, as in bitsandbytes: blocks of 64 values relative to their absolute maximum, and the maxima in
//! 8 bits over groups of 256.
//!
//! Source: Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", section 3; bitsandbytes' `functional.py`.

use std::sync::OnceLock;

use rayon::prelude::*;

use super::{QuantizeError, TASK_VALUES, check_finite};
pub(crate) use crate::nf4::{BLOCK, BLOCK_BYTES, CODEBOOK, NESTED_BLOCK, pack_blocks};

/// NF4 tensor in the parts that files keep.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Nf4 {
    /// Codes of two values a byte, the first in the upper half.
    pub(crate) codes: Vec<u8>,
    /// Absolute maximum of each block minus `offset`, as an index into [`dynamic_map`].
    pub(crate) absmax: Vec<u8>,
    /// Scale of the map for each group of 256 blocks.
    pub(crate) nested_absmax: Vec<f32>,
    /// Mean of the absolute maxima.
    pub(crate) offset: f32,
}

impl Nf4 {
    /// Quantizes a whole tensor, whose rows are whole blocks.
    ///
    /// # Errors
    /// [`QuantizeError::NotFinite`] for the first value that is not finite.
    pub(crate) fn quantize(values: &[f32]) -> Result<Self, QuantizeError> {
        let mut codes = vec![0; values.len() / 2];
        let mut absmax = vec![0f32; values.len() / BLOCK];
        let tasks = codes.par_chunks_mut(TASK_VALUES / 2).zip(absmax.par_chunks_mut(TASK_VALUES / BLOCK));
        let tasks = tasks.zip(values.par_chunks(TASK_VALUES)).enumerate();
        let refused = tasks.find_map_first(|(task, ((codes, absmax), values))| {
            encode_blocks(values, codes, absmax).err().map(|error| error.after(task * TASK_VALUES))
        });
        if let Some(error) = refused {
            return Err(error);
        }
        let sum: f64 = absmax.iter().map(|&x| f64::from(x)).sum();
        let offset = (sum / absmax.len().max(1) as f64) as f32;
        let groups: Vec<_> =
            absmax.par_chunks(NESTED_BLOCK).map(|group| quantize_absmax(group, offset)).collect();
        let nested_absmax = groups.iter().map(|(scale, _)| *scale).collect();
        let absmax = groups.into_iter().flat_map(|(_, codes)| codes).collect();
        Ok(Self { codes, absmax, nested_absmax, offset })
    }

    /// Blocks of [`BLOCK_BYTES`] in memory: codes and an f32 scale.
    pub(crate) fn blocks(&self) -> Vec<u8> {
        let scale = |block: usize| {
            dynamic_map()[usize::from(self.absmax[block])] * self.nested_absmax[block / NESTED_BLOCK]
                + self.offset
        };
        pack_blocks(&self.codes, scale)
    }
}

/// Writes the codes and absolute maxima of whole blocks.
fn encode_blocks(values: &[f32], codes: &mut [u8], absmax: &mut [f32]) -> Result<(), QuantizeError> {
    check_finite(values)?;
    let blocks = values.chunks_exact(BLOCK).zip(codes.chunks_exact_mut(BLOCK / 2));
    for ((values, codes), absmax) in blocks.zip(absmax) {
        *absmax = values.iter().fold(0f32, |top, x| if x.abs() > top { x.abs() } else { top });
        let inverse = 1.0 / absmax.max(1e-38); // a block of zeros stays zero
        for (byte, pair) in codes.iter_mut().zip(values.as_chunks().0) {
            let [first, second] = pair.map(|x: f32| code(x * inverse));
            *byte = first << 4 | second;
        }
    }
    Ok(())
}

/// Code of the nearest value of the code book, the lower one of two at the same distance.
#[inline(always)]
fn code(x: f32) -> u8 {
    let mut code = 0;
    for i in 0..15 {
        code += u8::from(x > (CODEBOOK[i] + CODEBOOK[i + 1]) / 2.0);
    }
    code
}

/// Scale of a group of absolute maxima minus `offset`, and the index of the nearest value of the map for each.
fn quantize_absmax(absmax: &[f32], offset: f32) -> (f32, Vec<u8>) {
    let shifted = |x: &f32| x - offset;
    let scale = absmax.iter().map(|x| shifted(x).abs()).fold(0f32, f32::max);
    let inverse = 1.0 / scale.max(1e-38);
    let map = dynamic_map();
    let index = |x: f32| {
        let above = map.partition_point(|&value| value < x).min(255);
        let below = above.saturating_sub(1);
        let nearest = if map[above] - x < x - map[below] { above } else { below };
        nearest as u8
    };
    (scale, absmax.iter().map(|x| index(shifted(x) * inverse)).collect())
}

/// bitsandbytes' dynamic map of 8-bit codes: zero, one, and in each of seven decades up to one evenly spaced means of both signs,
/// twice as many as in the decade below.
pub(crate) fn dynamic_map() -> &'static [f32; 256] {
    static MAP: OnceLock<[f32; 256]> = OnceLock::new();
    MAP.get_or_init(|| {
        let mut map = vec![0.0, 1.0];
        for decade in 0..7 {
            let (count, power) = (1usize << decade, 10f64.powi(decade - 6) as f32);
            let bound = |i: usize| decade_bound(i, count);
            let mean = |i: usize| (bound(i) + bound(i + 1)) / 2.0;
            map.extend((0..count).flat_map(|i| [power * mean(i), -power * mean(i)]));
        }
        map.sort_by(f32::total_cmp);
        map.try_into().expect("2 and twice 127 numbers")
    })
}

/// Boundary `i` of `count` equal intervals of [0.1, 1], counted from the nearer end and rounded once.
fn decade_bound(i: usize, count: usize) -> f32 {
    let step = f64::from((1.0 - 0.1f32) / count as f32);
    let bound = if i < count.div_ceil(2) {
        f64::from(0.1f32) + step * i as f64
    } else {
        1.0 - step * (count - i) as f64
    };
    bound as f32
}
