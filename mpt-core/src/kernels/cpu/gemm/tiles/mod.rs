//! The innermost loops: a patch of the result from a few panels of each operand, one file an instruction set.

#[cfg(target_arch = "x86_64")]
mod amx_bf16;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod plain;

use super::pack::{Products, SIDE, Tile};
use crate::kernels::cpu::dispatch::Level;

/// A part of a product: `rows` x `16 col_panels` elements of the result over `tiles` tiles of the inner dimension.
pub(super) struct Patch {
    /// First tile of the left operand; `left_step` tiles lie from one panel of 16 rows to the next.
    pub(super) left: *const Tile,
    pub(super) left_step: usize,
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

/// How one level computes patches.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    /// Computes a patch. Every element is one sum in the order of the inner dimension, whatever the patch's size.
    ///
    /// # Safety
    /// The processor has the kernel's level; tiles and elements that the patch names exist, and nobody else uses the latter.
    pub(super) run: unsafe fn(&Patch),
    /// Panels of rows, and of columns, that a patch has at most.
    pub(super) row_panels: usize,
    pub(super) col_panels: usize,
    /// Whether the kernel writes full panels only, so that a patch at an edge needs room beside the result.
    pub(super) whole: bool,
    /// Whether the tiles of the processor must be in use.
    pub(super) matrix_unit: bool,
    /// Tiles of the inner dimension of one pass at most: as many as the caches hold.
    pub(super) depth: usize,
}

/// Elements of the largest patch of any kernel.
pub(super) const PATCH: usize = 2 * SIDE * 3 * SIDE;

/// The form in which `level` wants factors, for products that are asked to be rounded as `products`: where it has no
/// products of bf16, rounded factors are multiplied as f32.
pub(super) fn kernel(level: Level, products: Products) -> Kernel {
    let vector =
        Kernel { run: plain::f32, row_panels: 1, col_panels: 1, whole: false, matrix_unit: false, depth: 24 };
    #[cfg(target_arch = "x86_64")]
    return match (products, level) {
        (Products::F32, Level::Baseline) => vector,
        (Products::F32, Level::Avx2) => Kernel { run: avx2::f32, ..vector },
        (Products::F32, _) => Kernel { run: avx512::f32, col_panels: 3, ..vector },
        (Products::Bf16, Level::Amx) => Kernel {
            run: amx_bf16::bf16,
            row_panels: 2,
            col_panels: 2,
            whole: true,
            matrix_unit: true,
            depth: 16,
        },
        (Products::Bf16, Level::Avx512Bf16) => Kernel { run: avx512::bf16, col_panels: 3, ..vector },
        (Products::Bf16, Level::Avx512) => Kernel { run: avx512::bf16_as_f32, col_panels: 3, ..vector },
        (Products::Bf16, Level::Avx2) => Kernel { run: avx2::bf16_as_f32, ..vector },
        (Products::Bf16, Level::Baseline) => Kernel { run: plain::bf16_as_f32, ..vector },
    };
    #[cfg(not(target_arch = "x86_64"))]
    match products {
        Products::F32 => vector,
        Products::Bf16 => Kernel { run: plain::bf16_as_f32, ..vector },
    }
}
