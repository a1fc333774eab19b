//! Packing: operands cut into tiles, in the order in which micro-kernels read them.
//!
//! A tile is 16 x 16 words of 32 bits; a word holds one f32, or two bf16 that follow each other along the inner dimension
//! ([`PackFormat`]). A panel is 16 rows of A, or 16 columns of B, over the whole inner dimension: a sequence of steps of one
//! tile or three. A tile of A is `[row][word]`, one of B `[word][column]`, as matrix units and vector units both read them.
//! Rows, columns and values beyond the edges are zero.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod panels;
mod scalar;

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::transpose_16x16;
use panels::pack_panels;

use super::Parallelism;
use super::mat::MatRef;
use crate::dtype::Precision;
use crate::kernels::cpu::dispatch::{Level, level};
use crate::kernels::cpu::pool;
use crate::kernels::cpu::scratch::Scratch;

/// Rows of a tile, words of a row of a tile, and rows of a panel.
pub(crate) const TILE_DIM: usize = 16;

/// Panels of one packing task.
const TASK_PANELS: usize = 4;

/// 16 x 16 words: 1 KiB on a cache line boundary.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Tile(pub(crate) [[u32; TILE_DIM]; TILE_DIM]);

impl Tile {
    pub(crate) const ZERO: Self = Self([[0; TILE_DIM]; TILE_DIM]);
}

#[expect(unsafe_code, reason = "bytes of mapped memory are seen as tiles")]
// SAFETY: a tile is 256 words without padding; every pattern of bits is one.
unsafe impl bytemuck::Zeroable for Tile {}
#[expect(unsafe_code, reason = "bytes of mapped memory are seen as tiles")]
// SAFETY: as above.
unsafe impl bytemuck::Pod for Tile {}

/// Contents of a packed word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PackFormat {
    /// One f32.
    F32,
    /// Two values rounded to bf16.
    Bf16,
    /// Two values as the sum of three bf16 each (BF16x3). A step is a tile of high parts, one of middle parts and one of low
    /// parts. A matrix unit for bf16 multiplies f32 this way.
    Bf16x3,
}

impl PackFormat {
    /// Fastest format of `level` for products of `precision`.
    ///
    /// Serial products are too small to pay for the split into parts.
    pub(crate) fn for_level(level: Level, precision: Precision, parallelism: Parallelism) -> Self {
        match precision {
            Precision::F32 if level == Level::Amx && parallelism == Parallelism::Pool => Self::Bf16x3,
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
        }
    }

    /// Values of the inner dimension in a step.
    pub(super) fn step_len(self) -> usize {
        match self {
            Self::F32 => TILE_DIM,
            Self::Bf16 | Self::Bf16x3 => 2 * TILE_DIM,
        }
    }

    /// Tiles of a step.
    pub(super) fn step_tiles(self) -> usize {
        match self {
            Self::F32 | Self::Bf16 => 1,
            Self::Bf16x3 => 3,
        }
    }

    /// Tiles of a panel over an inner dimension of `k` values.
    fn panel_tiles(self, k: usize) -> usize {
        k.div_ceil(self.step_len()) * self.step_tiles()
    }
}

/// Operand of a product, which decides the order of words in a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    /// Tiles `[row][word]`.
    A,
    /// Tiles `[word][column]`.
    B,
}

/// Tiles of an operand.
enum TileStorage<'a> {
    Owned(Scratch<Tile>),
    Borrowed(&'a [Tile]),
}

/// A packed operand, panel after panel.
pub(crate) struct PackedMatrix<'a> {
    tiles: TileStorage<'a>,
    format: PackFormat,
    /// Rows of A, or columns of B.
    rows: usize,
    k: usize,
}

impl<'a> PackedMatrix<'a> {
    /// B `[k, columns]` in [`PackFormat::Bf16`], from tiles that [`pack_b_panel_bf16`] wrote.
    ///
    /// # Panics
    /// When the number of tiles is not that of the shape.
    pub(crate) fn from_bf16_tiles(tiles: &'a [Tile], columns: usize, k: usize) -> Self {
        assert_eq!(tiles.len(), bf16_tiles(columns, k), "tiles of an operand are missing");
        Self { tiles: TileStorage::Borrowed(tiles), format: PackFormat::Bf16, rows: columns, k }
    }

    /// Packs `b` `[k, columns]` for products on all threads, in the format of this processor.
    pub(crate) fn pack_b(b: MatRef<'_>, precision: Precision) -> Self {
        Self::pack_b_as(b, PackFormat::for_level(level(), precision, Parallelism::Pool), Parallelism::Pool)
    }

    /// Packs `a` `[rows, k]` as `format`.
    pub(super) fn pack_a_as(a: MatRef<'_>, format: PackFormat, parallelism: Parallelism) -> Self {
        Self::pack(a, Operand::A, format, parallelism)
    }

    /// Packs `b` `[k, columns]` as `format`.
    pub(crate) fn pack_b_as(b: MatRef<'_>, format: PackFormat, parallelism: Parallelism) -> Self {
        Self::pack(b.t(), Operand::B, format, parallelism)
    }

    /// Packs B `[k, columns]` as `format` on all threads; `read` writes the columns of a range one after the other.
    pub(crate) fn pack_b_columns(
        columns: usize,
        k: usize,
        format: PackFormat,
        read: impl Fn(Range<usize>, &mut [f32]) + Sync,
    ) -> Self {
        let panel_tiles = format.panel_tiles(k);
        let mut all = Scratch::take(columns.div_ceil(TILE_DIM) * panel_tiles, Tile::ZERO);
        pool::run_chunks(&mut all, panel_tiles, |panel, tiles| {
            let range = panel * TILE_DIM..((panel + 1) * TILE_DIM).min(columns);
            let mut values = Scratch::take(range.len() * k, 0f32);
            read(range.clone(), &mut values);
            let values = MatRef::new(&values, range.len(), k, k);
            pack_panels(tiles, panel_tiles, values, 0, Operand::B, format);
        });
        Self { tiles: TileStorage::Owned(all), format, rows: columns, k }
    }

    /// Packs `source`, whose rows are the rows of A or the columns of B.
    fn pack(source: MatRef<'_>, operand: Operand, format: PackFormat, parallelism: Parallelism) -> Self {
        let (rows, k) = (source.rows, source.cols);
        let panel_tiles = format.panel_tiles(k);
        let mut all = Scratch::take(rows.div_ceil(TILE_DIM) * panel_tiles, Tile::ZERO);
        let pack_task = |task: usize, tiles: &mut [Tile]| {
            pack_panels(tiles, panel_tiles, source, task * TASK_PANELS * TILE_DIM, operand, format);
        };
        match parallelism {
            _ if panel_tiles == 0 => {}
            Parallelism::Pool => pool::run_chunks(&mut all, TASK_PANELS * panel_tiles, pack_task),
            Parallelism::Serial => pack_panels(&mut all, panel_tiles, source, 0, operand, format),
        }
        Self { tiles: TileStorage::Owned(all), format, rows, k }
    }

    /// Rows of A, or columns of B.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Length of the inner dimension.
    pub(super) fn k(&self) -> usize {
        self.k
    }

    /// Contents of the words.
    pub(super) fn format(&self) -> PackFormat {
        self.format
    }

    /// Steps of a panel.
    pub(super) fn steps(&self) -> usize {
        self.k.div_ceil(self.format.step_len())
    }

    /// Tiles of a panel.
    pub(crate) fn panel_tiles(&self) -> usize {
        self.format.panel_tiles(self.k)
    }

    /// All tiles, panel after panel.
    pub(crate) fn tiles(&self) -> &[Tile] {
        match &self.tiles {
            TileStorage::Owned(tiles) => tiles,
            TileStorage::Borrowed(tiles) => tiles,
        }
    }
}

/// Tiles of B `[k, columns]` in [`PackFormat::Bf16`].
pub(crate) fn bf16_tiles(columns: usize, k: usize) -> usize {
    columns.div_ceil(TILE_DIM) * PackFormat::Bf16.panel_tiles(k)
}

/// Packs one panel of B in [`PackFormat::Bf16`] from its columns, the rows of `columns` `[16, k]` or fewer.
pub(crate) fn pack_b_panel_bf16(tiles: &mut [Tile], columns: MatRef<'_>) {
    pack_panels(tiles, tiles.len(), columns, 0, Operand::B, PackFormat::Bf16);
}

/// Writes column `column` of a panel of B in [`PackFormat::Bf16`] as f32.
pub(crate) fn unpack_bf16_column(panel: &[Tile], column: usize, out: &mut [f32]) {
    for (tile, out) in panel.iter().zip(out.chunks_mut(2 * TILE_DIM)) {
        for (word, out) in tile.0.iter().zip(out.chunks_mut(2)) {
            let word = word[column];
            let pair = [word << 16, word & 0xffff_0000];
            out.iter_mut().zip(pair).for_each(|(out, bits)| *out = f32::from_bits(bits));
        }
    }
}
