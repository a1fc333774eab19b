//! NF4: the code book, and the layout of a block in memory.
//!
//! Source: Dettmers et al. 2023 (QLoRA), section 3; bitsandbytes' `functional.py`.

use rayon::prelude::*;

use crate::dtype::{NF4_BLOCK, NF4_BLOCK_BYTES};

/// Values of a block.
pub(crate) const BLOCK: usize = NF4_BLOCK;

/// Blocks whose absolute maxima share a scale in files.
pub(crate) const NESTED_BLOCK: usize = 256;

/// Bytes of a block in memory: codes, then the absolute maximum as f32.
pub(crate) const BLOCK_BYTES: usize = NF4_BLOCK_BYTES;

/// Values of the codes: quantiles of the normal distribution, scaled to [-1, 1], with an exact zero.
pub(crate) const CODEBOOK: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Blocks of a task at least.
const TASK_BLOCKS: usize = 1024;

/// Blocks in memory from the codes of a tensor and the `scale` of each block.
pub(crate) fn pack_blocks(codes: &[u8], scale: impl Fn(usize) -> f32 + Sync) -> Vec<u8> {
    let mut blocks = vec![0; codes.len() / (BLOCK / 2) * BLOCK_BYTES];
    let pairs = blocks.par_chunks_mut(BLOCK_BYTES).zip(codes.par_chunks(BLOCK / 2)).enumerate();
    pairs.with_min_len(TASK_BLOCKS).for_each(|(block, (out, codes))| {
        out[..BLOCK / 2].copy_from_slice(codes);
        out[BLOCK / 2..].copy_from_slice(&scale(block).to_le_bytes());
    });
    blocks
}
