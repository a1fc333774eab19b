//! Patches in plain Rust: the oracle of the other kernels, and what runs on processors without them. On 64-bit ARM it
//! compiles to NEON with fused multiply-add.

use super::Patch;
use crate::kernels::cpu::gemm::pack::{SIDE, Tile};

/// Rows whose sums are kept in registers at once.
const ROWS: usize = 4;

type Sums = [[f32; SIDE]; ROWS];

#[expect(unsafe_code, reason = "a patch holds pointers")]
/// A patch of f32 tiles.
pub(super) unsafe fn f32(patch: &Patch) {
    // SAFETY: the caller's promise is the callee's.
    unsafe { patch_of(patch, add_words) }
}

#[expect(unsafe_code, reason = "a patch holds pointers")]
/// A patch of bf16 tiles, whose factors are multiplied as f32.
pub(super) unsafe fn bf16_as_f32(patch: &Patch) {
    // SAFETY: the caller's promise is the callee's.
    unsafe { patch_of(patch, add_pairs) }
}

#[inline(always)]
#[expect(unsafe_code, reason = "a patch holds pointers")]
unsafe fn patch_of(patch: &Patch, step: impl Fn(&mut Sums, &Tile, usize, &Tile)) {
    for panel in 0..patch.col_panels {
        for first in (0..patch.rows).step_by(ROWS) {
            let rows = ROWS.min(patch.rows - first);
            let mut sums = [[0f32; SIDE]; ROWS];
            // SAFETY: row `first + i` and columns `16 panel ..` belong to the patch, tiles `0..tiles` of each panel too.
            unsafe {
                let out = |i: usize| {
                    patch.out.add((first + i) * patch.out_step + panel * SIDE).cast::<[f32; SIDE]>()
                };
                if patch.add {
                    (0..rows).for_each(|i| sums[i] = out(i).read());
                }
                for tile in 0..patch.tiles {
                    step(
                        &mut sums,
                        &*patch.left.add(tile),
                        first,
                        &*patch.right.add(panel * patch.right_step + tile),
                    );
                }
                (0..rows).for_each(|i| out(i).write(sums[i]));
            }
        }
    }
}

#[inline(always)]
fn add_words(sums: &mut Sums, left: &Tile, first: usize, right: &Tile) {
    for (word, columns) in right.0.iter().enumerate() {
        for (i, sums) in sums.iter_mut().enumerate() {
            let factor = f32::from_bits(left.0[first + i][word]);
            for (sum, &column) in sums.iter_mut().zip(columns) {
                *sum = multiply_add(factor, f32::from_bits(column), *sum);
            }
        }
    }
}

#[inline(always)]
fn add_pairs(sums: &mut Sums, left: &Tile, first: usize, right: &Tile) {
    for (word, columns) in right.0.iter().enumerate() {
        for (i, sums) in sums.iter_mut().enumerate() {
            let factors = left.0[first + i][word];
            for (sum, &column) in sums.iter_mut().zip(columns) {
                let low = multiply_add(lower(factors), lower(column), *sum);
                *sum = multiply_add(upper(factors), upper(column), low);
            }
        }
    }
}

/// The first bf16 of a word.
#[inline(always)]
fn lower(word: u32) -> f32 {
    f32::from_bits(word << 16)
}

/// The second bf16 of a word.
#[inline(always)]
fn upper(word: u32) -> f32 {
    f32::from_bits(word & 0xffff_0000)
}

/// a b + c, rounded once where the processor does so by itself.
#[inline(always)]
pub(crate) fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) { a.mul_add(b, c) } else { a * b + c }
}
