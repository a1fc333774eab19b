//! Dot products of int8 codes, scaled and accumulated: one file an instruction set.
//!
//! `gemv` is the kernel of up to four rows; the others unpack a super-block once for all rows.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod gemv;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod vnni;

use super::PANEL_ROWS;
use super::activations::Int8Activations;
use super::unpack::{SuperBlock, super_block_bytes, unpack};
use crate::dtype::WeightDtype;
use crate::kernels::cpu::dispatch::Level;

/// Adds to `acc[panel][i]` the products of the panels with row `from + i` of `x`.
///
/// Panels are read side by side, a super-block of each in turn: two streams read memory faster than one.
pub(super) fn add_panels(
    level: Level,
    acc: &mut [&mut [[f32; PANEL_ROWS]]],
    x: &Int8Activations,
    from: usize,
    dtype: WeightDtype,
    panels: &[&[u8]],
) {
    let mut unpacked = SuperBlock::ZERO;
    for (index, at) in (0..panels[0].len()).step_by(super_block_bytes(dtype)).enumerate() {
        for (acc, panel) in acc.iter_mut().zip(panels) {
            let bytes = &panel[at..panel.len().min(at + super_block_bytes(dtype))];
            #[cfg(target_arch = "x86_64")]
            if level >= Level::Avx512Bf16 && acc.len() <= gemv::MAX_ROWS {
                gemv::add_super_block(acc, x, from, index, dtype, bytes);
                continue;
            }
            unpack(dtype, bytes, &mut unpacked);
            add_super_block(level, acc, x, from, index, &unpacked);
        }
    }
}

/// Adds to `acc[i]` the products of super-block `index` of a panel with row `from + i` of `x`.
///
/// For each group in order, each operation rounded once: `acc = f32(dot of codes) * (scale * x.scale) + acc`, then with minima
/// `acc = -min * x.scaled_sum + acc`.
fn add_super_block(
    level: Level,
    acc: &mut [[f32; PANEL_ROWS]],
    x: &Int8Activations,
    from: usize,
    index: usize,
    block: &SuperBlock,
) {
    #[cfg(target_arch = "x86_64")]
    match level {
        Level::Baseline => scalar::add_super_block(acc, x, from, index, block),
        Level::Avx2 | Level::Avx512 => avx2::add_super_block(acc, x, from, index, block),
        Level::Avx512Bf16 => vnni::add_super_block(acc, x, from, index, block),
        Level::Amx if acc.len() < amx::MIN_ROWS => vnni::add_super_block(acc, x, from, index, block),
        Level::Amx => amx::add_super_block(acc, x, from, index, block),
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = level;
        scalar::add_super_block(acc, x, from, index, block);
    }
}
