//! Values as words of tiles: rounded to bf16, or split into three bf16 parts.

use super::{Form, SIDE, Tile};
use crate::kernels::cpu::gemm::mat::Mat;

/// The words of up to three tiles.
pub(super) type Words = [[[u32; SIDE]; SIDE]; 3];

/// `[row][word]` of the tiles of a step, which may reach over the edges of `source`.
#[inline(always)]
pub(super) fn words(source: Mat<'_>, [first, from]: [usize; 2], form: Form) -> Words {
    let rows = SIDE.min(source.rows - first);
    let values = form.step_len().min(source.cols - from);
    let mut words = [Tile::ZERO.0; 3];
    let mut row = [0f32; 2 * SIDE];
    for i in 0..rows {
        let at = (first + i) * source.row_stride + from * source.col_stride;
        for (j, value) in row[..values].iter_mut().enumerate() {
            *value = source.data[at + j * source.col_stride];
        }
        for (part, words) in words.iter_mut().zip(row_words(&row, form)) {
            part[i] = words;
        }
    }
    words
}

/// The words of one row of the tiles of a step.
#[inline(always)]
fn row_words(row: &[f32; 2 * SIDE], form: Form) -> [[u32; SIDE]; 3] {
    let mut words = [[0; SIDE]; 3];
    for j in 0..SIDE {
        let [low, high] = [row[2 * j], row[2 * j + 1]];
        match form {
            Form::Words => words[0][j] = row[j].to_bits(),
            Form::Pairs => words[0][j] = pair([low, high]),
            Form::Split => {
                let both = parts(low).into_iter().zip(parts(high));
                words.iter_mut().zip(both).for_each(|(part, (low, high))| part[j] = pair([low, high]));
            }
        }
    }
    words
}

/// Three values that bf16 can hold, whose sum is `x`, but for what lies below the smallest normal number.
///
/// The first is `x` rounded to bf16, the second what that leaves rounded to bf16, and so on; 3 x 8 bits are the 24 of an
/// f32. An infinity, and what rounds to one, gives parts that are no numbers.
#[inline(always)]
pub(super) fn parts(x: f32) -> [f32; 3] {
    let first = f32::from_bits(rounded(x) & 0xffff_0000);
    let rest = x - first;
    let second = f32::from_bits(rounded(rest) & 0xffff_0000);
    [first, second, rest - second]
}

/// Two values rounded to bf16 in one word, the first in its lower half.
#[inline(always)]
pub(super) fn pair([low, high]: [f32; 2]) -> u32 {
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
pub(super) fn transpose(from: &[[u32; SIDE]; SIDE], to: &mut [[u32; SIDE]; SIDE]) {
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
            assert_eq!(pair([x, 0.0]) as u16, half::bf16::from_f32(x).to_bits(), "{x}");
        }
        assert!(half::bf16::from_bits(pair([f32::NAN, 0.0]) as u16).is_nan());
        assert!(half::bf16::from_bits(pair([f32::from_bits(0x7f80_0001), 0.0]) as u16).is_nan());
    }

    proptest! {
        #[test]
        fn three_parts_are_the_whole(bits: u32) {
            let x = f32::from_bits(bits);
            prop_assume!(x.is_finite() && x.abs() < 3.3e38 && x.abs() > 1e-33);
            let parts = parts(x);
            prop_assert_eq!(parts[0] + (parts[1] + parts[2]), x);
            for part in parts {
                prop_assert_eq!(half::bf16::from_f32(part).to_f32(), part);
            }
        }
    }
}
