//! Quantization of f32: ggml's block dtypes, bit for bit as its reference quantizers write them, and NF4.
//!
//! Each sum is formed in ggml's order; the sums of different groups run in different vector lanes. The inverse is `dequantize`.
//!
//! Source: ggml, `ggml-quants.c`, `quantize_row_*_ref`.

mod affine;
mod legacy;
pub(crate) mod nf4;
mod q6_k;

use std::fmt;

use half::{bf16, f16};
use rayon::prelude::*;

use super::convert::from_f32;
use crate::dtype::WeightDtype;

/// Values of a task: a whole number of blocks of every dtype.
const TASK_VALUES: usize = 1 << 13;

/// Value that a dtype cannot hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum QuantizeError {
    /// Index and value of the first NaN or infinity.
    NotFinite(usize, f32),
    /// Index and value of the first value beyond the reach of the dtype's f16 scales; the index may be that of its block.
    TooLarge(usize, f32),
    /// Index and value of the first value beyond the range of f16 or bf16, and the largest value of the dtype.
    Overflow(usize, f32, f32),
}

impl QuantizeError {
    /// The same error with its index `by` later.
    pub(crate) fn after(self, by: usize) -> Self {
        match self {
            Self::NotFinite(at, value) => Self::NotFinite(by + at, value),
            Self::TooLarge(at, value) => Self::TooLarge(by + at, value),
            Self::Overflow(at, value, largest) => Self::Overflow(by + at, value, largest),
        }
    }
}

impl fmt::Display for QuantizeError {
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

/// Blocks of `values` in one of ggml's dtypes, on all threads.
///
/// # Errors
/// [`QuantizeError`] for the first value that is not finite, or the first block with a scale that overflows.
pub(crate) fn quantize(dtype: WeightDtype, values: &[f32]) -> Result<Vec<u8>, QuantizeError> {
    let (len, size) = (dtype.block_len(), dtype.block_bytes());
    let mut bytes = vec![0; values.len() / len * size];
    let tasks = bytes.par_chunks_mut(TASK_VALUES / len * size).zip(values.par_chunks(TASK_VALUES));
    let refused = tasks.enumerate().find_map_first(|(task, (bytes, values))| {
        quantize_into(dtype, values, bytes).err().map(|error| error.after(task * TASK_VALUES))
    });
    refused.map_or(Ok(bytes), Err)
}

/// Bytes of `values` as f32, f16 or bf16.
///
/// # Errors
/// [`QuantizeError::Overflow`] for the first finite value that is infinite in the dtype.
pub(crate) fn convert_float(dtype: WeightDtype, values: &[f32]) -> Result<Vec<u8>, QuantizeError> {
    let largest = match dtype {
        WeightDtype::F16 => f16::MAX.to_f32(),
        WeightDtype::BF16 => bf16::MAX.to_f32(),
        _ => return Ok(from_f32(dtype, values)),
    };
    let overflows = |value: f32| match dtype {
        WeightDtype::F16 => f16::from_f32(value).is_infinite(),
        _ => bf16::from_f32(value).is_infinite(),
    };
    match values.par_iter().position_first(|&value| value.is_finite() && overflows(value)) {
        Some(at) => Err(QuantizeError::Overflow(at, values[at], largest)),
        None => Ok(from_f32(dtype, values)),
    }
}

/// [`quantize`] on the calling thread, into `bytes`.
///
/// # Errors
/// As [`quantize`].
pub(crate) fn quantize_into(
    dtype: WeightDtype,
    values: &[f32],
    bytes: &mut [u8],
) -> Result<(), QuantizeError> {
    check_finite(values)?;
    check_reach(dtype, values)?;
    match dtype {
        WeightDtype::Q8_0 => legacy::q8_0(values, bytes),
        WeightDtype::Q4_0 => legacy::q4_0(values, bytes),
        WeightDtype::Q4K => affine::q4_k(values, bytes),
        WeightDtype::Q5K => affine::q5_k(values, bytes),
        WeightDtype::Q6K => q6_k::q6_k(values, bytes),
        WeightDtype::F32 | WeightDtype::F16 | WeightDtype::BF16 | WeightDtype::Nf4 => {
            unreachable!("callers ask for ggml's block dtypes; the others have functions of their own")
        }
    }
    check_scales(dtype, values, bytes)
}

/// Checks that all values are finite.
///
/// # Errors
/// [`QuantizeError::NotFinite`] for the first that is not.
pub(crate) fn check_finite(values: &[f32]) -> Result<(), QuantizeError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(QuantizeError::NotFinite(at, values[at])),
        None => Ok(()),
    }
}

/// Checks that no value lies beyond the largest product of f16 scale, group scale and code. Sums of squares would overflow, and
/// the block would silently hold other values.
fn check_reach(dtype: WeightDtype, values: &[f32]) -> Result<(), QuantizeError> {
    let largest_code = match dtype {
        WeightDtype::Q8_0 => 127.0,
        WeightDtype::Q4_0 => 8.0,
        WeightDtype::Q4K => 63.0 * 15.0,
        WeightDtype::Q5K => 63.0 * 31.0,
        _ => 128.0 * 32.0,
    };
    let reach = half::f16::MAX.to_f32() * largest_code;
    match values.iter().position(|value| value.abs() > reach) {
        Some(at) => Err(QuantizeError::TooLarge(at, values[at])),
        None => Ok(()),
    }
}

/// Checks that the f16 scales of all blocks are finite.
fn check_scales(dtype: WeightDtype, values: &[f32], bytes: &[u8]) -> Result<(), QuantizeError> {
    let scale_offsets: &[usize] = match dtype {
        WeightDtype::Q4K | WeightDtype::Q5K => &[0, 2],
        WeightDtype::Q6K => &[208],
        _ => &[0],
    };
    let is_finite = |block: &[u8]| scale_offsets.iter().all(|&at| block[at + 1] & 0x7c != 0x7c);
    let len = dtype.block_len();
    match bytes.chunks_exact(dtype.block_bytes()).position(|block| !is_finite(block)) {
        Some(block) => {
            let values = &values[block * len..(block + 1) * len];
            let largest = values.iter().fold(0f32, |top, &x| if x.abs() > top.abs() { x } else { top });
            Err(QuantizeError::TooLarge(block * len, largest))
        }
        None => Ok(()),
    }
}

/// Nearest integer, ties to even, of `x` below 2^22. A larger `x` gives its lowest bits, as in ggml; callers clamp the result.
#[inline(always)]
fn nearest_int(x: f32) -> i32 {
    ((x + 12_582_912.0).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// Writes `x` as f16 to the start of `bytes`; returns the rounded value.
#[inline(always)]
fn write_f16(x: f32, bytes: &mut [u8]) -> f32 {
    let half = half::f16::from_f32(x);
    bytes[..2].copy_from_slice(&half.to_le_bytes());
    half.to_f32()
}

/// Groups of a block side by side: value `i` of group `g` at `[i][g]`.
#[inline(always)]
fn transpose_groups<const LEN: usize, const GROUPS: usize>(block: &[f32]) -> [[f32; GROUPS]; LEN] {
    let mut transposed = [[0f32; GROUPS]; LEN];
    for (g, group) in block.chunks_exact(LEN).enumerate() {
        for (i, &value) in group.iter().enumerate() {
            transposed[i][g] = value;
        }
    }
    transposed
}

#[cfg(test)]
mod tests;
