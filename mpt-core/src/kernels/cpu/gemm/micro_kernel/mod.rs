//! Micro-kernels: the innermost loops of a product, one file an instruction set.
//!
//! A micro-kernel computes a micro-tile of C, whose accumulators stay in registers, from a few panels of packed A and B. The
//! loops around it are `macro_kernel`.

#[cfg(target_arch = "x86_64")]
pub(super) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

pub(crate) use scalar::mul_add;

use super::pack::{PackFormat, TILE_DIM, Tile};
use crate::kernels::cpu::dispatch::Level;

/// Arguments of a vector micro-kernel: a micro-tile `[rows, 16 col_panels]` over `k_tiles` tiles of the inner dimension.
pub(super) struct MicroArgs {
    /// First tile of the panel of A.
    pub(super) a: *const Tile,
    /// First tile of the first panel of B.
    pub(super) b: *const Tile,
    /// Tiles from one panel of B, of 16 columns, to the next.
    pub(super) b_panel_stride: usize,
    /// Tiles of the inner dimension.
    pub(super) k_tiles: usize,
    /// First element of the micro-tile.
    pub(super) c: *mut f32,
    /// Elements from one row of C to the next.
    pub(super) ldc: usize,
    /// Rows of the micro-tile, 1 to 16.
    pub(super) rows: usize,
    /// Panels of 16 columns of the micro-tile, at least 1.
    pub(super) col_panels: usize,
    /// Whether the product is added to C rather than overwriting it.
    pub(super) accumulate: bool,
}

/// Micro-kernel of a level and pack format.
#[derive(Clone, Copy)]
pub(super) enum MicroKernel {
    /// Vector units.
    Vector(VectorKernel),
    /// The matrix unit, micro-tiles of 32 x 32.
    #[cfg(target_arch = "x86_64")]
    Amx,
}

/// Micro-kernel of vector units, micro-tiles of 16 rows.
#[derive(Clone, Copy)]
pub(super) struct VectorKernel {
    /// Computes a micro-tile. Each element is one sum in the order of the inner dimension, whatever the micro-tile's size.
    ///
    /// # Safety
    /// The processor has the kernel's level; the tiles and elements that the arguments name exist, and nobody else uses the
    /// elements.
    pub(super) run: unsafe fn(&MicroArgs),
    /// Panels of columns of a micro-tile at most.
    pub(super) col_panels: usize,
    /// Tiles of a KC block at most: as many as the caches hold.
    pub(super) kc_tiles: usize,
}

/// Elements of the largest micro-tile of any vector kernel.
pub(super) const MAX_MICRO_TILE: usize = TILE_DIM * 3 * TILE_DIM;

/// Micro-kernel of `level` for operands packed as `format`. Levels without bf16 products multiply bf16 as f32.
///
/// # Panics
/// When the level has no matrix unit for operands in [`PackFormat::Bf16x3`].
pub(super) fn select(level: Level, format: PackFormat) -> MicroKernel {
    let vector = |run| MicroKernel::Vector(VectorKernel { run, col_panels: 1, kc_tiles: 24 });
    #[cfg(target_arch = "x86_64")]
    {
        let wide = |run| MicroKernel::Vector(VectorKernel { run, col_panels: 3, kc_tiles: 24 });
        match (format, level) {
            (PackFormat::Bf16x3 | PackFormat::Bf16, Level::Amx) => return MicroKernel::Amx,
            (PackFormat::F32, Level::Avx2) => return vector(avx2::f32),
            (PackFormat::F32, Level::Avx512 | Level::Avx512Bf16 | Level::Amx) => return wide(avx512::f32),
            (PackFormat::Bf16, Level::Avx512Bf16) => return wide(avx512::bf16),
            (PackFormat::Bf16, Level::Avx512) => return wide(avx512::bf16_as_f32),
            (PackFormat::Bf16, Level::Avx2) => return vector(avx2::bf16_as_f32),
            _ => {}
        }
    }
    match format {
        PackFormat::F32 => vector(scalar::f32),
        PackFormat::Bf16 => vector(scalar::bf16_as_f32),
        PackFormat::Bf16x3 => unreachable!("{level:?} does not split operands"),
    }
}
