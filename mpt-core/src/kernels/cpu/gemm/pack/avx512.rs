//! Packing with AVX-512: a row of a tile, or a column, is one register.

#![expect(unsafe_code, reason = "vector loads and stores of values whose bounds were checked")]

use std::arch::x86_64::*;

use super::scalar::step_words;
use super::{Operand, PackFormat, TILE_DIM, Tile};
use crate::kernels::cpu::gemm::mat::MatRef;

/// Values from a load to the prefetch beside it, within a row.
const PREFETCH_VALUES: usize = 128;

/// The 16 rows, or columns, of a tile.
pub(crate) type TileRegisters = [__m512i; TILE_DIM];

/// Packs one step of 16 rows of `source`, from row and value `[first, from]` on.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn pack_step(
    tiles: &mut [Tile],
    source: MatRef<'_>,
    [first, from]: [usize; 2],
    operand: Operand,
    format: PackFormat,
) {
    if first + TILE_DIM > source.rows || from + format.step_len() > source.cols {
        let words = step_words(source, [first, from], format);
        for (tile, words) in tiles.iter_mut().zip(&words) {
            // SAFETY: each row of words is 64 bytes.
            let rows = words.each_ref().map(|row| unsafe { _mm512_loadu_si512(row.as_ptr().cast()) });
            store_tile(tile, rows, operand == Operand::A);
        }
        return;
    }
    let is_row_major = source.col_stride == 1;
    let mut packed = [[_mm512_setzero_si512(); TILE_DIM]; 3];
    for line in 0..TILE_DIM {
        let words = if is_row_major {
            row_words(source, first + line, from, format)
        } else {
            column_words(source, first, from, line, format)
        };
        for (tile, words) in packed.iter_mut().zip(words) {
            tile[line] = words;
        }
    }
    // lines read from rows are `[row][word]`, those read from columns `[word][row]`
    for (tile, lines) in tiles.iter_mut().zip(packed) {
        store_tile(tile, lines, is_row_major == (operand == Operand::A));
    }
}

/// Words of row `i` from value `from` on, for a row-major source.
#[inline]
#[target_feature(enable = "avx512f")]
fn row_words(source: MatRef<'_>, i: usize, from: usize, format: PackFormat) -> [__m512i; 3] {
    let values = &source.data[i * source.row_stride + from..][..format.step_len()];
    for line in (0..format.step_len()).step_by(TILE_DIM) {
        _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().wrapping_add(PREFETCH_VALUES + line).cast());
    }
    if format == PackFormat::F32 {
        return f32_words(load(values));
    }
    let (front, back) = (load(values), load(&values[TILE_DIM..]));
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    let select = |which| _mm512_permutex2var_ps(front, which, back);
    bf16_words(select(even), select(odd), format)
}

/// Word `word` of 16 rows, for a column-major source.
#[inline]
#[target_feature(enable = "avx512f")]
fn column_words(
    source: MatRef<'_>,
    first: usize,
    from: usize,
    word: usize,
    format: PackFormat,
) -> [__m512i; 3] {
    let column = |j: usize| load(&source.data[j * source.col_stride + first..][..TILE_DIM]);
    match format {
        PackFormat::F32 => f32_words(column(from + word)),
        PackFormat::Bf16 | PackFormat::Bf16x3 => {
            bf16_words(column(from + 2 * word), column(from + 2 * word + 1), format)
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(values: &[f32]) -> __m512 {
    assert!(values.len() >= TILE_DIM);
    // SAFETY: there are 16 values.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

/// Words of one tile of f32.
#[inline]
#[target_feature(enable = "avx512f")]
fn f32_words(values: __m512) -> [__m512i; 3] {
    let zero = _mm512_setzero_si512();
    [_mm512_castps_si512(values), zero, zero]
}

/// Words of bf16 pairs, or of their three parts: `low` in the lower halves, `high` in the upper ones.
#[inline]
#[target_feature(enable = "avx512f")]
fn bf16_words(low: __m512, high: __m512, format: PackFormat) -> [__m512i; 3] {
    if format == PackFormat::Bf16 {
        let zero = _mm512_setzero_si512();
        return [join_bf16(round_to_bf16(low), round_to_bf16(high)), zero, zero];
    }
    let (low, high) = (split_bf16x3(low), split_bf16x3(high));
    [join_bf16(low[0], high[0]), join_bf16(low[1], high[1]), join_bf16(low[2], high[2])]
}

/// The parts of [`split_bf16x3`](super::scalar::split_bf16x3), each in the upper half of its words.
#[inline]
#[target_feature(enable = "avx512f")]
fn split_bf16x3(x: __m512) -> [__m512i; 3] {
    let high = round_to_bf16(x);
    let rest = _mm512_sub_ps(x, _mm512_castsi512_ps(high));
    let middle = round_to_bf16(rest);
    // below the smallest normal number the remainder has more than 8 bits
    let low = round_to_bf16(_mm512_sub_ps(rest, _mm512_castsi512_ps(middle)));
    [high, middle, low]
}

/// Words of two bf16 from the upper halves of `low` and `high`.
#[inline]
#[target_feature(enable = "avx512f")]
fn join_bf16(low: __m512i, high: __m512i) -> __m512i {
    _mm512_or_si512(_mm512_srli_epi32(low, 16), high)
}

/// `x` rounded to bf16 in the upper halves, zero in the lower ones.
#[inline]
#[target_feature(enable = "avx512f")]
fn round_to_bf16(x: __m512) -> __m512i {
    let bits = _mm512_castps_si512(x);
    let odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    let up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    let nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    let up = _mm512_mask_or_epi32(up, nan, bits, _mm512_set1_epi32(0x0040_0000));
    _mm512_and_si512(up, _mm512_set1_epi32(0xffff_0000_u32 as i32))
}

/// Writes the lines of a tile, transposed unless they are its rows.
#[inline]
#[target_feature(enable = "avx512f")]
fn store_tile(tile: &mut Tile, lines: TileRegisters, are_rows: bool) {
    let rows = if are_rows { lines } else { transpose_16x16(lines) };
    for (to, row) in tile.0.iter_mut().zip(rows) {
        // SAFETY: each row is 64 bytes.
        unsafe { _mm512_store_si512(to.as_mut_ptr().cast(), row) };
    }
}

/// Transpose of 16 x 16 words in four rounds of exchanges: words, pairs, and halves of 128 and 256 bits.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn transpose_16x16(rows: TileRegisters) -> TileRegisters {
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
    let mut columns = rows;
    for c in 0..4 {
        let [p, q, r, s] = [quads[c], quads[4 + c], quads[8 + c], quads[12 + c]];
        let (pq_even, pq_odd) = (_mm512_shuffle_i32x4(p, q, 0x88), _mm512_shuffle_i32x4(p, q, 0xdd));
        let (rs_even, rs_odd) = (_mm512_shuffle_i32x4(r, s, 0x88), _mm512_shuffle_i32x4(r, s, 0xdd));
        columns[c] = _mm512_shuffle_i32x4(pq_even, rs_even, 0x88);
        columns[4 + c] = _mm512_shuffle_i32x4(pq_odd, rs_odd, 0x88);
        columns[8 + c] = _mm512_shuffle_i32x4(pq_even, rs_even, 0xdd);
        columns[12 + c] = _mm512_shuffle_i32x4(pq_odd, rs_odd, 0xdd);
    }
    columns
}
