//! Micro-kernels in portable Rust: the reference of the others, and the fallback where a processor has none of them.
//!
//! On 64-bit ARM they compile to NEON with fused multiply-add.

use super::MicroArgs;
use crate::kernels::cpu::gemm::pack::{TILE_DIM, Tile};

/// Rows of accumulators in registers.
const MR: usize = 4;

/// MR x 16 accumulators.
type Acc = [[f32; TILE_DIM]; MR];

#[expect(unsafe_code, reason = "the arguments hold pointers")]
/// Micro-kernel of f32 tiles.
///
/// # Safety
/// As for [`VectorKernel::run`](super::VectorKernel::run).
pub(super) unsafe fn f32(args: &MicroArgs) {
    // SAFETY: as the caller promises.
    unsafe { micro_tile(args, add_f32_tile) }
}

#[expect(unsafe_code, reason = "the arguments hold pointers")]
/// Micro-kernel of bf16 tiles, whose factors are multiplied as f32.
///
/// # Safety
/// As for [`VectorKernel::run`](super::VectorKernel::run).
pub(super) unsafe fn bf16_as_f32(args: &MicroArgs) {
    // SAFETY: as the caller promises.
    unsafe { micro_tile(args, add_bf16_tile) }
}

/// Runs `add_tile` over all tiles of each block of [`MR`] rows of each panel.
///
/// # Safety
/// As for [`VectorKernel::run`](super::VectorKernel::run).
#[inline(always)]
#[expect(unsafe_code, reason = "the arguments hold pointers")]
unsafe fn micro_tile(args: &MicroArgs, add_tile: impl Fn(&mut Acc, &Tile, usize, &Tile)) {
    for panel in 0..args.col_panels {
        for first in (0..args.rows).step_by(MR) {
            let rows = MR.min(args.rows - first);
            let mut acc = [[0f32; TILE_DIM]; MR];
            // SAFETY: row `first + i` and columns `16 panel ..` belong to the micro-tile; tiles `0..k_tiles` of each panel exist.
            unsafe {
                let c_row = |i: usize| {
                    args.c.add((first + i) * args.ldc + panel * TILE_DIM).cast::<[f32; TILE_DIM]>()
                };
                if args.accumulate {
                    (0..rows).for_each(|i| acc[i] = c_row(i).read());
                }
                for tile in 0..args.k_tiles {
                    add_tile(
                        &mut acc,
                        &*args.a.add(tile),
                        first,
                        &*args.b.add(panel * args.b_panel_stride + tile),
                    );
                }
                (0..rows).for_each(|i| c_row(i).write(acc[i]));
            }
        }
    }
}

/// Adds the product of rows `first ..` of a tile of A and a tile of B.
#[inline(always)]
fn add_f32_tile(acc: &mut Acc, a: &Tile, first: usize, b: &Tile) {
    for (word, b) in b.0.iter().enumerate() {
        for (i, acc) in acc.iter_mut().enumerate() {
            let a = f32::from_bits(a.0[first + i][word]);
            for (acc, &b) in acc.iter_mut().zip(b) {
                *acc = mul_add(a, f32::from_bits(b), *acc);
            }
        }
    }
}

/// As [`add_f32_tile`], for tiles of bf16.
#[inline(always)]
fn add_bf16_tile(acc: &mut Acc, a: &Tile, first: usize, b: &Tile) {
    for (word, b) in b.0.iter().enumerate() {
        for (i, acc) in acc.iter_mut().enumerate() {
            let a = a.0[first + i][word];
            for (acc, &b) in acc.iter_mut().zip(b) {
                let low = mul_add(low_bf16(a), low_bf16(b), *acc);
                *acc = mul_add(high_bf16(a), high_bf16(b), low);
            }
        }
    }
}

/// The first bf16 of a word.
#[inline(always)]
fn low_bf16(word: u32) -> f32 {
    f32::from_bits(word << 16)
}

/// The second bf16 of a word.
#[inline(always)]
fn high_bf16(word: u32) -> f32 {
    f32::from_bits(word & 0xffff_0000)
}

/// `a b + c`, rounded once where fused multiply-add is part of the target.
#[inline(always)]
pub(crate) fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) { a.mul_add(b, c) } else { a * b + c }
}
