//! Filling tiles with AVX-512: a row of a tile is one register, and so is a column.

#![expect(unsafe_code, reason = "vector loads and stores of values whose bounds were checked")]

use std::arch::x86_64::*;

use super::words::words;
use super::{Form, SIDE, Side, Tile};
use crate::kernels::cpu::gemm::mat::Mat;

/// Values that are asked for ahead in each row.
const AHEAD: usize = 128;

/// 16 rows, or columns, of a tile.
pub(crate) type Registers = [__m512i; SIDE];

/// Fills the tiles of one step with 16 rows of `source` from row and value `[first, from]` on.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn fill_step(
    tiles: &mut [Tile],
    source: Mat<'_>,
    [first, from]: [usize; 2],
    side: Side,
    form: Form,
) {
    if first + SIDE > source.rows || from + form.step_len() > source.cols {
        let words = words(source, [first, from], form);
        for (tile, words) in tiles.iter_mut().zip(&words) {
            // SAFETY: each row of words is 64 bytes.
            let rows = words.each_ref().map(|row| unsafe { _mm512_loadu_si512(row.as_ptr().cast()) });
            store(tile, rows, side == Side::Left);
        }
        return;
    }
    let rows_lie_along = source.col_stride == 1;
    let mut parts = [[_mm512_setzero_si512(); SIDE]; 3];
    for line in 0..SIDE {
        let words = if rows_lie_along {
            row(source, first + line, from, form)
        } else {
            column(source, first, from, line, form)
        };
        for (part, words) in parts.iter_mut().zip(words) {
            part[line] = words;
        }
    }
    // what came from rows is `[row][word]`, what came from columns `[word][row]`
    for (tile, lines) in tiles.iter_mut().zip(parts) {
        store(tile, lines, rows_lie_along == (side == Side::Left));
    }
}

/// The words of row `i` from value `from` on, where its values lie side by side.
#[inline]
#[target_feature(enable = "avx512f")]
fn row(source: Mat<'_>, i: usize, from: usize, form: Form) -> [__m512i; 3] {
    let values = &source.data[i * source.row_stride + from..][..form.step_len()];
    for line in (0..form.step_len()).step_by(SIDE) {
        _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().wrapping_add(AHEAD + line).cast());
    }
    if form == Form::Words {
        return one(load(values));
    }
    let (front, back) = (load(values), load(&values[SIDE..]));
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    let select = |which| _mm512_permutex2var_ps(front, which, back);
    pairs(select(even), select(odd), form)
}

/// Word `word` of 16 rows, where the values of one column lie side by side.
#[inline]
#[target_feature(enable = "avx512f")]
fn column(source: Mat<'_>, first: usize, from: usize, word: usize, form: Form) -> [__m512i; 3] {
    let column = |j: usize| load(&source.data[j * source.col_stride + first..][..SIDE]);
    match form {
        Form::Words => one(column(from + word)),
        Form::Pairs | Form::Split => pairs(column(from + 2 * word), column(from + 2 * word + 1), form),
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(values: &[f32]) -> __m512 {
    assert!(values.len() >= SIDE);
    // SAFETY: there are 16 values.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn one(words: __m512) -> [__m512i; 3] {
    let zero = _mm512_setzero_si512();
    [_mm512_castps_si512(words), zero, zero]
}

/// Words of the first values, in their lower halves, and the second ones.
#[inline]
#[target_feature(enable = "avx512f")]
fn pairs(low: __m512, high: __m512, form: Form) -> [__m512i; 3] {
    if form == Form::Pairs {
        let zero = _mm512_setzero_si512();
        return [joined(rounded(low), rounded(high)), zero, zero];
    }
    let (low, high) = (parts(low), parts(high));
    [joined(low[0], high[0]), joined(low[1], high[1]), joined(low[2], high[2])]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn parts(x: __m512) -> [__m512i; 3] {
    let first = rounded(x);
    let rest = _mm512_sub_ps(x, _mm512_castsi512_ps(first));
    let second = rounded(rest);
    // below the smallest normal number there are more bits than the 8 that are left
    let third = rounded(_mm512_sub_ps(rest, _mm512_castsi512_ps(second)));
    [first, second, third]
}

/// bf16 in the upper halves of two words as one.
#[inline]
#[target_feature(enable = "avx512f")]
fn joined(low: __m512i, high: __m512i) -> __m512i {
    _mm512_or_si512(_mm512_srli_epi32(low, 16), high)
}

/// `x` rounded to bf16 in the upper halves, zero in the lower ones.
#[inline]
#[target_feature(enable = "avx512f")]
fn rounded(x: __m512) -> __m512i {
    let bits = _mm512_castps_si512(x);
    let odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    let up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    let nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    let up = _mm512_mask_or_epi32(up, nan, bits, _mm512_set1_epi32(0x0040_0000));
    _mm512_and_si512(up, _mm512_set1_epi32(0xffff_0000_u32 as i32))
}

/// Writes lines as they are, or transposed.
#[inline]
#[target_feature(enable = "avx512f")]
fn store(tile: &mut Tile, lines: Registers, as_they_are: bool) {
    let rows = if as_they_are { lines } else { transposed(lines) };
    for (to, row) in tile.0.iter_mut().zip(rows) {
        // SAFETY: each row is 64 bytes.
        unsafe { _mm512_store_si512(to.as_mut_ptr().cast(), row) };
    }
}

/// Four rounds of exchanges: of words, pairs, and halves of 128 and 256 bits.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn transposed(rows: Registers) -> Registers {
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
