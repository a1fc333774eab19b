//! Operands cut into tiles, the order in which the kernels read them.
//!
//! A tile is 16 x 16 words of 32 bits; a word holds one f32, or two bf16 that follow each other along the inner
//! dimension ([`Form`]). A panel is 16 rows of `a`, or 16 columns of `b`, with all of the inner dimension as one step after
//! the other, each of one tile or three. A tile of `a` is `[row][word]`, one of `b` is `[word][column]`: what a matrix unit
//! and a vector unit both take as they are. Rows, columns and words that do not exist are zero.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod fill;
mod words;

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::transposed;
use fill::fill_panels;

use super::Threads;
use super::mat::Mat;
use crate::dtype::Precision;
use crate::kernels::cpu::dispatch::{Level, level};
use crate::kernels::cpu::pool;
use crate::kernels::cpu::scratch::Scratch;

/// Rows of a panel, and words of a row of a tile.
pub(crate) const SIDE: usize = 16;

/// Panels that one task fills.
const TASK_PANELS: usize = 4;

/// 16 x 16 words; 1 KiB on a cache line boundary.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Tile(pub(crate) [[u32; SIDE]; SIDE]);

impl Tile {
    pub(crate) const ZERO: Self = Self([[0; SIDE]; SIDE]);
}

/// What the words of an operand hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One f32.
    Words,
    /// Two values rounded to bf16.
    Pairs,
    /// Two values as three bf16 each, whose sum is the f32: a step has a tile of the first parts, one of the second parts
    /// and one of the third. It lets a matrix unit that multiplies bf16 only multiply f32.
    Split,
}

impl Form {
    /// The form that `level` multiplies fastest for products that are rounded as `products`.
    ///
    /// Small products inside a parallel loop have too few operations for each value that would be split.
    pub(crate) fn of(level: Level, products: Precision, threads: Threads) -> Self {
        match products {
            Precision::F32 if level == Level::Amx && threads == Threads::Pool => Self::Split,
            Precision::F32 => Self::Words,
            Precision::Bf16 => Self::Pairs,
        }
    }

    /// Values along the inner dimension that a step holds.
    pub(super) fn step_len(self) -> usize {
        match self {
            Self::Words => SIDE,
            Self::Pairs | Self::Split => 2 * SIDE,
        }
    }

    /// Tiles of a step.
    pub(super) fn step_tiles(self) -> usize {
        match self {
            Self::Words | Self::Pairs => 1,
            Self::Split => 3,
        }
    }

    /// Tiles of a panel of `inner` values.
    fn panel_tiles(self, inner: usize) -> usize {
        inner.div_ceil(self.step_len()) * self.step_tiles()
    }
}

/// Which operand a panel belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Tiles `[row][word]`.
    Left,
    /// Tiles `[word][column]`.
    Right,
}

#[expect(unsafe_code, reason = "bytes of mapped memory are seen as tiles")]
// SAFETY: a tile is 256 words without padding; every pattern of bits is one.
unsafe impl bytemuck::Zeroable for Tile {}
#[expect(unsafe_code, reason = "bytes of mapped memory are seen as tiles")]
// SAFETY: as above.
unsafe impl bytemuck::Pod for Tile {}

/// Where the tiles of an operand lie.
enum Tiles<'a> {
    Own(Scratch<Tile>),
    Kept(&'a [Tile]),
}

/// An operand in tiles, panel after panel.
pub(crate) struct Packed<'a> {
    tiles: Tiles<'a>,
    form: Form,
    rows: usize,
    inner: usize,
}

impl<'a> Packed<'a> {
    /// A right operand of `rows` columns of `inner` values each in [`Form::Pairs`], packed before by
    /// [`fill_right_pairs`].
    ///
    /// # Panics
    /// When there are too few tiles.
    pub(crate) fn kept_pairs(tiles: &'a [Tile], rows: usize, inner: usize) -> Self {
        assert_eq!(tiles.len(), tiles_of_pairs(rows, inner), "tiles of an operand are missing");
        Self { tiles: Tiles::Kept(tiles), form: Form::Pairs, rows, inner }
    }

    /// The right operand `b` `[inner, columns]` for products of all threads, in the form that this processor wants.
    pub(crate) fn right(b: Mat<'_>, products: Precision) -> Self {
        Self::right_in(b, Form::of(level(), products, Threads::Pool), Threads::Pool)
    }

    /// The left operand `a` `[rows, inner]`.
    pub(super) fn left_in(a: Mat<'_>, form: Form, threads: Threads) -> Self {
        Self::pack(a, Side::Left, form, threads)
    }

    /// The right operand `b` `[inner, columns]`.
    pub(crate) fn right_in(b: Mat<'_>, form: Form, threads: Threads) -> Self {
        Self::pack(b.t(), Side::Right, form, threads)
    }

    /// A right operand of `columns` columns of `inner` values each, by all threads. `read` writes some columns one after the
    /// other.
    pub(crate) fn right_of_columns(
        columns: usize,
        inner: usize,
        form: Form,
        read: impl Fn(Range<usize>, &mut [f32]) + Sync,
    ) -> Self {
        let panel_tiles = form.panel_tiles(inner);
        let mut all = Scratch::take(columns.div_ceil(SIDE) * panel_tiles, Tile::ZERO);
        pool::run_chunks(&mut all, panel_tiles, |panel, tiles| {
            let range = panel * SIDE..((panel + 1) * SIDE).min(columns);
            let mut values = Scratch::take(range.len() * inner, 0f32);
            read(range.clone(), &mut values);
            let values = Mat::new(&values, range.len(), inner, inner);
            fill_panels(tiles, panel_tiles, values, 0, Side::Right, form);
        });
        Self { tiles: Tiles::Own(all), form, rows: columns, inner }
    }

    /// `source` has one row for every row, or column, of panels.
    fn pack(source: Mat<'_>, side: Side, form: Form, threads: Threads) -> Self {
        let (rows, inner) = (source.rows, source.cols);
        let panel_tiles = form.panel_tiles(inner);
        let mut all = Scratch::take(rows.div_ceil(SIDE) * panel_tiles, Tile::ZERO);
        let fill = |task: usize, tiles: &mut [Tile]| {
            fill_panels(tiles, panel_tiles, source, task * TASK_PANELS * SIDE, side, form);
        };
        match threads {
            _ if panel_tiles == 0 => {}
            Threads::Pool => pool::run_chunks(&mut all, TASK_PANELS * panel_tiles, fill),
            Threads::Caller => fill_panels(&mut all, panel_tiles, source, 0, side, form),
        }
        Self { tiles: Tiles::Own(all), form, rows, inner }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn inner(&self) -> usize {
        self.inner
    }

    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// Steps of a panel.
    pub(super) fn steps(&self) -> usize {
        self.inner.div_ceil(self.form.step_len())
    }

    /// Tiles of a panel.
    pub(crate) fn panel_tiles(&self) -> usize {
        self.form.panel_tiles(self.inner)
    }

    /// All tiles.
    pub(crate) fn tiles(&self) -> &[Tile] {
        match &self.tiles {
            Tiles::Own(tiles) => tiles,
            Tiles::Kept(tiles) => tiles,
        }
    }
}

/// Tiles of an operand of `rows` rows, or columns, of `inner` values each in [`Form::Pairs`].
pub(crate) fn tiles_of_pairs(rows: usize, inner: usize) -> usize {
    rows.div_ceil(SIDE) * Form::Pairs.panel_tiles(inner)
}

/// Fills the tiles of the right operand's panel whose columns are the rows of `columns`, at most 16, with pairs.
pub(crate) fn fill_right_pairs(tiles: &mut [Tile], columns: Mat<'_>) {
    fill_panels(tiles, tiles.len(), columns, 0, Side::Right, Form::Pairs);
}

/// Writes column `column` of a panel of pairs of bf16 as f32.
pub(crate) fn column_of_pairs(panel: &[Tile], column: usize, out: &mut [f32]) {
    for (tile, out) in panel.iter().zip(out.chunks_mut(2 * SIDE)) {
        for (word, out) in tile.0.iter().zip(out.chunks_mut(2)) {
            let word = word[column];
            let pair = [word << 16, word & 0xffff_0000];
            out.iter_mut().zip(pair).for_each(|(out, bits)| *out = f32::from_bits(bits));
        }
    }
}
