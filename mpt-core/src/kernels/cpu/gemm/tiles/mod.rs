//! The innermost loops: a patch or a square of the result from a few panels of each operand, one file an instruction set.

#[cfg(target_arch = "x86_64")]
pub(super) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod plain;

pub(crate) use plain::multiply_add;

use super::pack::{Form, SIDE, Tile};
use crate::kernels::cpu::dispatch::Level;

/// A part of a product: `rows`, at most 16, x `16 col_panels` elements of the result over `tiles` tiles of the inner dimension.
pub(super) struct Patch {
    /// First tile of the left operand's panel.
    pub(super) left: *const Tile,
    /// First tile of the right operand; `right_step` tiles lie from one panel of 16 columns to the next.
    pub(super) right: *const Tile,
    pub(super) right_step: usize,
    pub(super) tiles: usize,
    /// First element of the result, whose rows lie `out_step` elements apart.
    pub(super) out: *mut f32,
    pub(super) out_step: usize,
    /// Rows of the result, at least 1.
    pub(super) rows: usize,
    /// Panels of 16 columns of the result, at least 1.
    pub(super) col_panels: usize,
    /// Whether the product is added to what the result holds.
    pub(super) add: bool,
}

/// How products are computed.
#[derive(Clone, Copy)]
pub(super) enum Kernel {
    /// With vectors, patch by patch.
    Vector(Vector),
    /// With the matrix unit, square by square.
    #[cfg(target_arch = "x86_64")]
    Matrix,
}

/// How one level computes patches of 16 rows.
#[derive(Clone, Copy)]
pub(super) struct Vector {
    /// Computes a patch. Every element is one sum in the order of the inner dimension, whatever the patch's size.
    ///
    /// # Safety
    /// The processor has the kernel's level; tiles and elements that the patch names exist, and nobody else uses the latter.
    pub(super) run: unsafe fn(&Patch),
    /// Panels of columns that a patch has at most.
    pub(super) col_panels: usize,
    /// Tiles of the inner dimension of one pass at most: as many as the caches hold.
    pub(super) depth: usize,
}

/// Elements of the largest patch of any kernel.
pub(super) const PATCH: usize = SIDE * 3 * SIDE;

/// How `level` multiplies operands in `form`. Where it has no products of bf16, they are multiplied as f32.
///
/// # Panics
/// When the level has no matrix unit to multiply split operands.
pub(super) fn kernel(level: Level, form: Form) -> Kernel {
    let vector = |run| Kernel::Vector(Vector { run, col_panels: 1, depth: 24 });
    #[cfg(target_arch = "x86_64")]
    {
        let wide = |run| Kernel::Vector(Vector { run, col_panels: 3, depth: 24 });
        match (form, level) {
            (Form::Split | Form::Pairs, Level::Amx) => return Kernel::Matrix,
            (Form::Words, Level::Avx2) => return vector(avx2::f32),
            (Form::Words, Level::Avx512 | Level::Avx512Bf16 | Level::Amx) => return wide(avx512::f32),
            (Form::Pairs, Level::Avx512Bf16) => return wide(avx512::bf16),
            (Form::Pairs, Level::Avx512) => return wide(avx512::bf16_as_f32),
            (Form::Pairs, Level::Avx2) => return vector(avx2::bf16_as_f32),
            _ => {}
        }
    }
    match form {
        Form::Words => vector(plain::f32),
        Form::Pairs => vector(plain::bf16_as_f32),
        Form::Split => unreachable!("{level:?} does not split operands"),
    }
}
