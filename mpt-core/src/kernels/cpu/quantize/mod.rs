//! From f32 to blocks that share scales: the forms of ggml, bit for bit as its reference quantizers write them, and NF4.
//!
//! Source of the numbers: ggml's `ggml-quants.c`, `quantize_row_*_ref`. Every sum is formed in the order ggml forms it;
//! sums of different groups run side by side, so that a processor's lanes each have one.

mod affine;
mod legacy;
pub(crate) mod nf4;
mod q6_k;

use std::fmt;

use half::{bf16, f16};
use rayon::prelude::*;

use super::narrow::narrow;
use crate::dtype::WeightDtype;

/// Values of a task, a whole number of blocks of every form.
const TASK_VALUES: usize = 1 << 13;

/// Why values cannot be quantized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Refusal {
    /// A value that is no number, and its index.
    NotFinite(usize, f32),
    /// A value beyond the form's range, and its index or that of its block's first value.
    TooLarge(usize, f32),
    /// A value beyond the range of a form without scales, its index, and the largest number of the form.
    Overflow(usize, f32, f32),
}

impl Refusal {
    /// The same about values of which the first `by` were not looked at.
    pub(crate) fn after(self, by: usize) -> Self {
        match self {
            Self::NotFinite(at, value) => Self::NotFinite(by + at, value),
            Self::TooLarge(at, value) => Self::TooLarge(by + at, value),
            Self::Overflow(at, value, largest) => Self::Overflow(by + at, value, largest),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinite(at, value) => {
                write!(f, "value {at} is {value}; fetch or train the weights again")
            }
            Self::TooLarge(at, value) => {
                write!(f, "{value:e} at value {at} or soon after needs a scale beyond f16; use bf16 or nf4")
            }
            Self::Overflow(at, value, largest) => {
                write!(f, "value {at} is {value:e}, and the largest is {largest:e}; use bf16 or f32")
            }
        }
    }
}

/// The bytes of `values`, whole blocks of one of ggml's forms. The result does not depend on the number of threads.
///
/// # Errors
/// The first value that is not finite, or the first block whose scale overflows.
pub(crate) fn quantize(format: WeightDtype, values: &[f32]) -> Result<Vec<u8>, Refusal> {
    let (len, size) = (format.block_len(), format.block_bytes());
    let mut bytes = vec![0; values.len() / len * size];
    let tasks = bytes.par_chunks_mut(TASK_VALUES / len * size).zip(values.par_chunks(TASK_VALUES));
    let refused = tasks.enumerate().find_map_first(|(task, (bytes, values))| {
        piece(format, values, bytes).err().map(|refusal| refusal.after(task * TASK_VALUES))
    });
    refused.map_or(Ok(bytes), Err)
}

/// The bytes of `values` in one of the forms without scales.
///
/// # Errors
/// The first finite value that is infinite in the form.
pub(crate) fn narrowed(format: WeightDtype, values: &[f32]) -> Result<Vec<u8>, Refusal> {
    let largest = match format {
        WeightDtype::F16 => f16::MAX.to_f32(),
        WeightDtype::BF16 => bf16::MAX.to_f32(),
        _ => return Ok(narrow(format, values)),
    };
    let overflows = |value: f32| match format {
        WeightDtype::F16 => f16::from_f32(value).is_infinite(),
        _ => bf16::from_f32(value).is_infinite(),
    };
    match values.par_iter().position_first(|&value| value.is_finite() && overflows(value)) {
        Some(at) => Err(Refusal::Overflow(at, values[at], largest)),
        None => Ok(narrow(format, values)),
    }
}

/// The same as [`quantize`] in the caller's thread and memory.
pub(crate) fn piece(format: WeightDtype, values: &[f32], bytes: &mut [u8]) -> Result<(), Refusal> {
    check_finite(values)?;
    check_reach(format, values)?;
    match format {
        WeightDtype::Q8_0 => legacy::q8_0(values, bytes),
        WeightDtype::Q4_0 => legacy::q4_0(values, bytes),
        WeightDtype::Q4K => affine::q4_k(values, bytes),
        WeightDtype::Q5K => affine::q5_k(values, bytes),
        WeightDtype::Q6K => q6_k::q6_k(values, bytes),
        WeightDtype::F32 | WeightDtype::F16 | WeightDtype::BF16 | WeightDtype::Nf4 => {
            unreachable!("callers ask for ggml's blocks; other forms have functions of their own")
        }
    }
    check_scales(format, values, bytes)
}

/// # Errors
/// The first value that is infinite or not a number.
pub(crate) fn check_finite(values: &[f32]) -> Result<(), Refusal> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(Refusal::NotFinite(at, values[at])),
        None => Ok(()),
    }
}

/// Refuses values beyond the largest that the form's f16, scales and levels can give: sums of their squares would overflow,
/// and the block would quietly become something else.
fn check_reach(format: WeightDtype, values: &[f32]) -> Result<(), Refusal> {
    let levels = match format {
        WeightDtype::Q8_0 => 127.0,
        WeightDtype::Q4_0 => 8.0,
        WeightDtype::Q4K => 63.0 * 15.0,
        WeightDtype::Q5K => 63.0 * 31.0,
        _ => 128.0 * 32.0,
    };
    let reach = half::f16::MAX.to_f32() * levels;
    match values.iter().position(|value| value.abs() > reach) {
        Some(at) => Err(Refusal::TooLarge(at, values[at])),
        None => Ok(()),
    }
}

/// Refuses blocks whose f16 scales overflowed: their values would all be infinite or not a number.
fn check_scales(format: WeightDtype, values: &[f32], bytes: &[u8]) -> Result<(), Refusal> {
    let places: &[usize] = match format {
        WeightDtype::Q4K | WeightDtype::Q5K => &[0, 2],
        WeightDtype::Q6K => &[208],
        _ => &[0],
    };
    let is_sound = |block: &[u8]| places.iter().all(|&at| block[at + 1] & 0x7c != 0x7c);
    let len = format.block_len();
    match bytes.chunks_exact(format.block_bytes()).position(|block| !is_sound(block)) {
        Some(block) => {
            let values = &values[block * len..(block + 1) * len];
            let largest = values.iter().fold(0f32, |top, &x| if x.abs() > top.abs() { x } else { top });
            Err(Refusal::TooLarge(block * len, largest))
        }
        None => Ok(()),
    }
}

/// The nearest integer, ties to even, for numbers below 2^22: they are moved to where floats are whole. Others give what
/// their lowest bits say, as in ggml; callers clamp it.
#[inline(always)]
fn nearest(x: f32) -> i32 {
    ((x + 12_582_912.0).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// Writes `x` as f16 to the start of `bytes`, and gives the value that is read back.
#[inline(always)]
fn put_f16(x: f32, bytes: &mut [u8]) -> f32 {
    let half = half::f16::from_f32(x);
    bytes[..2].copy_from_slice(&half.to_le_bytes());
    half.to_f32()
}

/// The groups of a block side by side: value `i` of group `g` at `[i][g]`.
#[inline(always)]
fn side_by_side<const LEN: usize, const GROUPS: usize>(block: &[f32]) -> [[f32; GROUPS]; LEN] {
    let mut lanes = [[0f32; GROUPS]; LEN];
    for (g, group) in block.chunks_exact(LEN).enumerate() {
        for (i, &value) in group.iter().enumerate() {
            lanes[i][g] = value;
        }
    }
    lanes
}

#[cfg(test)]
mod tests;
