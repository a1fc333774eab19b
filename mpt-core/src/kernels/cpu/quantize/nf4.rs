//! NF4 with double quantization, as bitsandbytes has it: 64 values below their largest, and the largest values themselves
//! as 8 bits over groups of 256.
//!
//! Source: Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", section 3; bitsandbytes' `functional.py`.

use std::sync::OnceLock;

use rayon::prelude::*;

use super::{Refusal, TASK_VALUES, check_finite};
pub(crate) use crate::nf4::{BLOCK, BLOCK_BYTES, GROUP, LEVELS, join};

/// A tensor in NF4, in the parts that files keep.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Nf4 {
    /// Two values to a byte, the first in the upper half.
    pub(crate) codes: Vec<u8>,
    /// Of each block the largest value less `offset`, as an index to [`dynamic_map`].
    pub(crate) absmax: Vec<u8>,
    /// Of each group of blocks what the map is multiplied with.
    pub(crate) nested_absmax: Vec<f32>,
    /// The mean of the largest values.
    pub(crate) offset: f32,
}

impl Nf4 {
    /// The values of a whole tensor, whose rows are whole blocks.
    ///
    /// # Errors
    /// The first value that is not finite.
    pub(crate) fn of(values: &[f32]) -> Result<Self, Refusal> {
        let mut codes = vec![0; values.len() / 2];
        let mut largest = vec![0f32; values.len() / BLOCK];
        let tasks = codes.par_chunks_mut(TASK_VALUES / 2).zip(largest.par_chunks_mut(TASK_VALUES / BLOCK));
        let tasks = tasks.zip(values.par_chunks(TASK_VALUES)).enumerate();
        let refused = tasks.find_map_first(|(task, ((codes, largest), values))| {
            encode(values, codes, largest).err().map(|refusal| refusal.after(task * TASK_VALUES))
        });
        if let Some(refusal) = refused {
            return Err(refusal);
        }
        let sum: f64 = largest.iter().map(|&x| f64::from(x)).sum();
        let offset = (sum / largest.len().max(1) as f64) as f32;
        let groups: Vec<_> = largest.par_chunks(GROUP).map(|group| nested(group, offset)).collect();
        let nested_absmax = groups.iter().map(|(scale, _)| *scale).collect();
        let absmax = groups.into_iter().flat_map(|(_, codes)| codes).collect();
        Ok(Self { codes, absmax, nested_absmax, offset })
    }

    /// The blocks as they lie in memory.
    pub(crate) fn blocks(&self) -> Vec<u8> {
        let scale = |block: usize| {
            dynamic_map()[usize::from(self.absmax[block])] * self.nested_absmax[block / GROUP] + self.offset
        };
        join(&self.codes, scale)
    }
}

/// Codes and largest values of whole blocks.
fn encode(values: &[f32], codes: &mut [u8], largest: &mut [f32]) -> Result<(), Refusal> {
    check_finite(values)?;
    let blocks = values.chunks_exact(BLOCK).zip(codes.chunks_exact_mut(BLOCK / 2));
    for ((values, codes), largest) in blocks.zip(largest) {
        *largest = values.iter().fold(0f32, |top, x| if x.abs() > top { x.abs() } else { top });
        let inverse = 1.0 / largest.max(1e-38); // so that a block of zeros keeps them
        for (byte, pair) in codes.iter_mut().zip(values.as_chunks().0) {
            let [first, second] = pair.map(|x: f32| code(x * inverse));
            *byte = first << 4 | second;
        }
    }
    Ok(())
}

/// The code of the nearest level, the lower one of two at the same distance.
#[inline(always)]
fn code(x: f32) -> u8 {
    let mut code = 0;
    for i in 0..15 {
        code += u8::from(x > (LEVELS[i] + LEVELS[i + 1]) / 2.0);
    }
    code
}

/// The scale of a group's largest values less `offset`, and the index of the nearest number of the map for each.
fn nested(largest: &[f32], offset: f32) -> (f32, Vec<u8>) {
    let shifted = |x: &f32| x - offset;
    let scale = largest.iter().map(|x| shifted(x).abs()).fold(0f32, f32::max);
    let inverse = 1.0 / scale.max(1e-38);
    let map = dynamic_map();
    let index = |x: f32| {
        let above = map.partition_point(|&level| level < x).min(255);
        let below = above.saturating_sub(1);
        let nearest = if map[above] - x < x - map[below] { above } else { below };
        nearest as u8
    };
    (scale, largest.iter().map(|x| index(shifted(x) * inverse)).collect())
}

/// The 8-bit numbers of the largest values: in each of seven decades up to one, evenly spaced means, twice as many as in
/// the decade below, of both signs; zero, and one.
pub(crate) fn dynamic_map() -> &'static [f32; 256] {
    static MAP: OnceLock<[f32; 256]> = OnceLock::new();
    MAP.get_or_init(|| {
        let mut map = vec![0.0, 1.0];
        for decade in 0..7 {
            let (count, power) = (1usize << decade, 10f64.powi(decade - 6) as f32);
            let bound = |i: usize| bound(i, count);
            let mean = |i: usize| (bound(i) + bound(i + 1)) / 2.0;
            map.extend((0..count).flat_map(|i| [power * mean(i), -power * mean(i)]));
        }
        map.sort_by(f32::total_cmp);
        map.try_into().expect("2 and twice 127 numbers")
    })
}

/// Number `i` of `count + 1` that divide [0.1, 1] evenly, counted from the nearer end, rounded once.
fn bound(i: usize, count: usize) -> f32 {
    let step = f64::from((1.0 - 0.1f32) / count as f32);
    let bound = if i < count.div_ceil(2) {
        f64::from(0.1f32) + step * i as f64
    } else {
        1.0 - step * (count - i) as f64
    };
    bound as f32
}
