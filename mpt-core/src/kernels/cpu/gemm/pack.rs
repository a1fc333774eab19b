//! Operands cut into tiles, the order in which the kernels read them.
//!
//! A tile is 16 x 16 words of 32 bits; a word holds one f32, or two bf16 that follow each other along the inner
//! dimension. A panel is 16 rows of `a`, or 16 columns of `b`, with all of the inner dimension as one tile after the
//! other. A tile of `a` is `[row][word]`, one of `b` is `[word][column]`: what a matrix unit and a vector unit both take as
//! they are. Rows, columns and words that do not exist are zero.

use super::mat::Mat;
use crate::kernels::cpu::dispatch::for_each_level;
use crate::kernels::cpu::scratch::Scratch;

/// Rows of a panel, and words of a row of a tile.
pub(crate) const SIDE: usize = 16;

/// 16 x 16 words; 1 KiB on a cache line boundary.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Tile(pub(crate) [[u32; SIDE]; SIDE]);

impl Tile {
    pub(crate) const ZERO: Self = Self([[0; SIDE]; SIDE]);
}

/// How factors are rounded before they are multiplied; sums are f32 always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Products {
    /// Not at all.
    F32,
    /// To bf16, to the nearest, ties to even.
    Bf16,
}

impl Products {
    /// Values along the inner dimension that a tile holds.
    pub(crate) fn tile_len(self) -> usize {
        match self {
            Self::F32 => SIDE,
            Self::Bf16 => 2 * SIDE,
        }
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
    products: Products,
    rows: usize,
    inner: usize,
}

impl<'a> Packed<'a> {
    /// A right operand of `rows` columns of `inner` values each, packed before by [`fill_right`].
    ///
    /// # Panics
    /// When there are too few tiles.
    pub(crate) fn kept(tiles: &'a [Tile], rows: usize, inner: usize, products: Products) -> Self {
        assert_eq!(tiles.len(), tiles_of(rows, inner, products), "tiles of an operand are missing");
        Self { tiles: Tiles::Kept(tiles), products, rows, inner }
    }

    /// The left operand `a` `[rows, inner]`.
    pub(crate) fn left(a: Mat<'_>, products: Products, pooled: bool) -> Self {
        Self::pack(a, Side::Left, products, pooled)
    }

    /// The right operand `b` `[inner, columns]`.
    pub(crate) fn right(b: Mat<'_>, products: Products, pooled: bool) -> Self {
        Self::pack(b.t(), Side::Right, products, pooled)
    }

    /// `source` has one row for every row, or column, of panels.
    fn pack(source: Mat<'_>, side: Side, products: Products, pooled: bool) -> Self {
        let (rows, inner) = (source.rows, source.cols);
        let mut all = Scratch::take(tiles_of(rows, inner, products), Tile::ZERO);
        let tiles = inner.div_ceil(products.tile_len());
        let fill = |panel: usize, tiles: &mut [Tile]| fill_panel(tiles, source, panel * SIDE, side, products);
        if tiles > 0 {
            if pooled {
                crate::kernels::cpu::pool::run_chunks(&mut all, tiles, fill);
            } else {
                all.chunks_exact_mut(tiles).enumerate().for_each(|(panel, tiles)| fill(panel, tiles));
            }
        }
        Self { tiles: Tiles::Own(all), products, rows, inner }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn inner(&self) -> usize {
        self.inner
    }

    pub(crate) fn products(&self) -> Products {
        self.products
    }

    /// Tiles of a panel.
    pub(crate) fn panel_tiles(&self) -> usize {
        self.inner.div_ceil(self.products.tile_len())
    }

    /// All tiles.
    pub(crate) fn tiles(&self) -> &[Tile] {
        match &self.tiles {
            Tiles::Own(tiles) => tiles,
            Tiles::Kept(tiles) => tiles,
        }
    }
}

/// Tiles of an operand of `rows` rows, or columns, of `inner` values each.
pub(crate) fn tiles_of(rows: usize, inner: usize, products: Products) -> usize {
    rows.div_ceil(SIDE) * inner.div_ceil(products.tile_len())
}

/// Fills the tiles of the right operand's panel whose columns are the rows of `columns`, at most 16.
pub(crate) fn fill_right(tiles: &mut [Tile], columns: Mat<'_>, products: Products) {
    fill_panel(tiles, columns, 0, Side::Right, products);
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

for_each_level! {
    /// Fills the tiles of one panel with the rows `first..` of `source`.
    fn fill_panel(tiles: &mut [Tile], source: Mat<'_>, first: usize, side: Side, products: Products) {
        let along_rows = source.col_stride == 1;
        let len = products.tile_len();
        for (tile, from) in tiles.iter_mut().zip((0..).step_by(len)) {
            let inside = first + SIDE <= source.rows && from + len <= source.cols;
            let words = match (inside, products, along_rows) {
                (false, _, _) => edge_words(source, first, from, products),
                (true, Products::F32, true) => row_words(source, first, from),
                (true, Products::F32, false) => column_words(source, first, from),
                (true, Products::Bf16, true) => row_pairs(source, first, from),
                (true, Products::Bf16, false) => column_pairs(source, first, from),
            };
            // what came from rows is `[row][word]`, what came from columns `[word][row]`
            let by_row = along_rows || !inside;
            if by_row == (side == Side::Left) { tile.0 = words } else { transpose(&words, &mut tile.0) }
        }
    }
}

type Words = [[u32; SIDE]; SIDE];

/// `[row][word]` of a tile that reaches over an edge.
fn edge_words(source: Mat<'_>, first: usize, from: usize, products: Products) -> Words {
    let value = |i: usize, j: usize| if i < source.rows && j < source.cols { source.at(i, j) } else { 0.0 };
    let mut words = Tile::ZERO.0;
    for (i, row) in words.iter_mut().enumerate() {
        for (j, word) in row.iter_mut().enumerate() {
            *word = match products {
                Products::F32 => value(first + i, from + j).to_bits(),
                Products::Bf16 => pair(value(first + i, from + 2 * j), value(first + i, from + 2 * j + 1)),
            };
        }
    }
    words
}

/// `[row][word]` where values along a row lie side by side.
#[inline(always)]
fn row_words(source: Mat<'_>, first: usize, from: usize) -> Words {
    let mut words = Tile::ZERO.0;
    for (i, words) in words.iter_mut().enumerate() {
        let row = &source.data[(first + i) * source.row_stride + from..][..SIDE];
        for (word, x) in words.iter_mut().zip(row) {
            *word = x.to_bits();
        }
    }
    words
}

/// `[word][row]` where values of one column lie side by side.
#[inline(always)]
fn column_words(source: Mat<'_>, first: usize, from: usize) -> Words {
    row_words(source.t(), from, first)
}

/// `[row][word]` of bf16 pairs where values along a row lie side by side.
#[inline(always)]
fn row_pairs(source: Mat<'_>, first: usize, from: usize) -> Words {
    let mut words = Tile::ZERO.0;
    for (i, words) in words.iter_mut().enumerate() {
        let row = &source.data[(first + i) * source.row_stride + from..][..2 * SIDE];
        for (word, x) in words.iter_mut().zip(row.as_chunks::<2>().0) {
            *word = pair(x[0], x[1]);
        }
    }
    words
}

/// `[word][row]` of bf16 pairs where values of one column lie side by side.
#[inline(always)]
fn column_pairs(source: Mat<'_>, first: usize, from: usize) -> Words {
    let mut words = Tile::ZERO.0;
    for (j, words) in words.iter_mut().enumerate() {
        let low = &source.data[(from + 2 * j) * source.col_stride + first..][..SIDE];
        let high = &source.data[(from + 2 * j + 1) * source.col_stride + first..][..SIDE];
        for (word, (&low, &high)) in words.iter_mut().zip(low.iter().zip(high)) {
            *word = pair(low, high);
        }
    }
    words
}

/// Two values rounded to bf16 in one word, the first in its lower half.
#[inline(always)]
fn pair(low: f32, high: f32) -> u32 {
    rounded(low) >> 16 | rounded(high) & 0xffff_0000
}

/// The bits of `x` rounded to bf16 in the upper half; a NaN stays one.
#[inline(always)]
fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    let up = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    if x.is_nan() { bits | 0x0040_0000 } else { up }
}

/// `to[j][i] = from[i][j]`.
#[inline(always)]
fn transpose(from: &Words, to: &mut Words) {
    #[cfg(target_arch = "x86_64")]
    if crate::kernels::cpu::dispatch::level() >= crate::kernels::cpu::dispatch::Level::Avx512 {
        #[expect(unsafe_code, reason = "the call needs the features that `level` has found")]
        // SAFETY: `level` returns `Avx512` or more only where AVX-512 F was detected.
        return unsafe { transpose_avx512(from, to) };
    }
    for (i, row) in from.iter().enumerate() {
        for (j, &word) in row.iter().enumerate() {
            to[j][i] = word;
        }
    }
}

/// Four rounds of exchanges: of words, pairs, and halves of 128 and 256 bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn transpose_avx512(from: &Words, to: &mut Words) {
    use std::arch::x86_64::*;
    #[expect(unsafe_code, reason = "vector loads")]
    // SAFETY: each row is 64 bytes; the load takes any alignment.
    let rows: [__m512i; SIDE] = from.each_ref().map(|row| unsafe { _mm512_loadu_si512(row.as_ptr().cast()) });
    // words of rows 2i and 2i + 1 side by side, then pairs of pairs: lane l of quads[4 g + c] holds column 4 l + c of
    // rows 4 g .. 4 g + 4
    let mut quads = rows;
    for g in 0..4 {
        let [a, b, c, d] = [rows[4 * g], rows[4 * g + 1], rows[4 * g + 2], rows[4 * g + 3]];
        let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        quads[4 * g] = _mm512_unpacklo_epi64(ab_low, cd_low);
        quads[4 * g + 1] = _mm512_unpackhi_epi64(ab_low, cd_low);
        quads[4 * g + 2] = _mm512_unpacklo_epi64(ab_high, cd_high);
        quads[4 * g + 3] = _mm512_unpackhi_epi64(ab_high, cd_high);
    }
    for c in 0..4 {
        let [p, q, r, s] = [quads[c], quads[4 + c], quads[8 + c], quads[12 + c]];
        let (pq_even, pq_odd) = (_mm512_shuffle_i32x4(p, q, 0x88), _mm512_shuffle_i32x4(p, q, 0xdd));
        let (rs_even, rs_odd) = (_mm512_shuffle_i32x4(r, s, 0x88), _mm512_shuffle_i32x4(r, s, 0xdd));
        let columns = [
            _mm512_shuffle_i32x4(pq_even, rs_even, 0x88),
            _mm512_shuffle_i32x4(pq_odd, rs_odd, 0x88),
            _mm512_shuffle_i32x4(pq_even, rs_even, 0xdd),
            _mm512_shuffle_i32x4(pq_odd, rs_odd, 0xdd),
        ];
        for (l, column) in columns.into_iter().enumerate() {
            #[expect(unsafe_code, reason = "vector stores")]
            // SAFETY: each row is 64 bytes; the store takes any alignment.
            unsafe {
                _mm512_storeu_si512(to[4 * l + c].as_mut_ptr().cast(), column);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_swaps_rows_and_columns() {
        let from: Words = std::array::from_fn(|i| std::array::from_fn(|j| (100 * i + j) as u32));
        let mut to = Tile::ZERO.0;
        transpose(&from, &mut to);
        for i in 0..SIDE {
            for j in 0..SIDE {
                assert_eq!(to[j][i], from[i][j]);
            }
        }
    }

    #[test]
    fn rounding_is_that_of_bf16() {
        let values =
            [0.0, -0.0, 1.0, 1.003_906_2, 1.011_718_8, 3.4e38, f32::MAX, f32::INFINITY, 1e-40, -7.3e-5];
        for x in values {
            assert_eq!(pair(x, 0.0) as u16, half::bf16::from_f32(x).to_bits(), "{x}");
        }
        assert!(half::bf16::from_bits(pair(f32::NAN, 0.0) as u16).is_nan());
        assert!(half::bf16::from_bits(pair(f32::from_bits(0x7f80_0001), 0.0) as u16).is_nan());
    }
}
