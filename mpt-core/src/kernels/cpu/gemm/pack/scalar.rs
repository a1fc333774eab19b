//! Packing in portable Rust: values to the words of tiles, in f32, rounded to bf16, or split into three bf16 parts.

use super::{PackFormat, TILE_DIM, Tile};
use crate::kernels::cpu::gemm::mat::MatRef;

/// Words of up to three tiles, `[tile][row][word]`.
pub(super) type StepWords = [[[u32; TILE_DIM]; TILE_DIM]; 3];

/// Words of the tiles of one step, from row and value `[first, from]` of `source` on; zero beyond its edges.
#[inline(always)]
pub(super) fn step_words(source: MatRef<'_>, [first, from]: [usize; 2], format: PackFormat) -> StepWords {
    let rows = TILE_DIM.min(source.rows - first);
    let values = format.step_len().min(source.cols - from);
    let mut tiles = [Tile::ZERO.0; 3];
    let mut row = [0f32; 2 * TILE_DIM];
    for i in 0..rows {
        let at = (first + i) * source.row_stride + from * source.col_stride;
        for (j, value) in row[..values].iter_mut().enumerate() {
            *value = source.data[at + j * source.col_stride];
        }
        for (tile, words) in tiles.iter_mut().zip(row_words(&row, format)) {
            tile[i] = words;
        }
    }
    tiles
}

/// Words of one row of the tiles of a step, `[tile][word]`.
#[inline(always)]
fn row_words(row: &[f32; 2 * TILE_DIM], format: PackFormat) -> [[u32; TILE_DIM]; 3] {
    let mut words = [[0; TILE_DIM]; 3];
    for j in 0..TILE_DIM {
        let [low, high] = [row[2 * j], row[2 * j + 1]];
        match format {
            PackFormat::F32 => words[0][j] = row[j].to_bits(),
            PackFormat::Bf16 => words[0][j] = bf16_pair([low, high]),
            PackFormat::Bf16x3 => {
                let parts = split_bf16x3(low).into_iter().zip(split_bf16x3(high));
                words
                    .iter_mut()
                    .zip(parts)
                    .for_each(|(words, (low, high))| words[j] = bf16_pair([low, high]));
            }
        }
    }
    words
}

/// Three bf16 parts whose sum is `x`, up to bits below the smallest normal number: high, middle and low.
///
/// Each part is the remainder before it rounded to bf16; 3 x 8 bits are the 24 of an f32. An infinity, or a value that rounds
/// to one, has NaN among its parts.
#[inline(always)]
pub(super) fn split_bf16x3(x: f32) -> [f32; 3] {
    let high = f32::from_bits(round_to_bf16(x) & 0xffff_0000);
    let rest = x - high;
    let middle = f32::from_bits(round_to_bf16(rest) & 0xffff_0000);
    [high, middle, rest - middle]
}

/// Word of two values rounded to bf16, the first in its lower half.
#[inline(always)]
pub(super) fn bf16_pair([low, high]: [f32; 2]) -> u32 {
    round_to_bf16(low) >> 16 | round_to_bf16(high) & 0xffff_0000
}

/// Bits of `x` with the upper half rounded to bf16, ties to even; NaN stays NaN.
#[inline(always)]
fn round_to_bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    let up = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    if x.is_nan() { bits | 0x0040_0000 } else { up }
}

/// `to[j][i] = from[i][j]`.
#[inline(always)]
pub(super) fn transpose(from: &[[u32; TILE_DIM]; TILE_DIM], to: &mut [[u32; TILE_DIM]; TILE_DIM]) {
    for (i, row) in from.iter().enumerate() {
        for (j, &word) in row.iter().enumerate() {
            to[j][i] = word;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rounding_is_that_of_bf16() {
        let values =
            [0.0, -0.0, 1.0, 1.003_906_2, 1.011_718_8, 3.4e38, f32::MAX, f32::INFINITY, 1e-40, -7.3e-5];
        for x in values {
            assert_eq!(bf16_pair([x, 0.0]) as u16, half::bf16::from_f32(x).to_bits(), "{x}");
        }
        assert!(half::bf16::from_bits(bf16_pair([f32::NAN, 0.0]) as u16).is_nan());
        assert!(half::bf16::from_bits(bf16_pair([f32::from_bits(0x7f80_0001), 0.0]) as u16).is_nan());
    }

    proptest! {
        #[test]
        fn three_parts_sum_to_the_value(bits: u32) {
            let x = f32::from_bits(bits);
            prop_assume!(x.is_finite() && x.abs() < 3.3e38 && x.abs() > 1e-33);
            let parts = split_bf16x3(x);
            prop_assert_eq!(parts[0] + (parts[1] + parts[2]), x);
            for part in parts {
                prop_assert_eq!(half::bf16::from_f32(part).to_f32(), part);
            }
        }
    }
}
