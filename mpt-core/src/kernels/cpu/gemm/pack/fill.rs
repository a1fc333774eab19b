//! How a panel's tiles are filled: rounding, splitting and transposing values, with the same bits at every level.

use super::words::{transpose, words};
use super::{Form, SIDE, Side, Tile};
use crate::kernels::cpu::dispatch::{Level, for_each_level, level};
use crate::kernels::cpu::gemm::mat::Mat;

/// Fills the tiles of the panels whose first row is `first` of `source`, `panel_tiles` each.
///
/// Where values of a column lie side by side, panels are filled side by side too, so that memory is read line after line.
pub(super) fn fill_panels(
    tiles: &mut [Tile],
    panel_tiles: usize,
    source: Mat<'_>,
    first: usize,
    side: Side,
    form: Form,
) {
    let panels = tiles.len() / panel_tiles;
    let steps = panel_tiles / form.step_tiles();
    let mut step = |panel: usize, step: usize| {
        let tiles = &mut tiles[panel * panel_tiles + step * form.step_tiles()..][..form.step_tiles()];
        fill_step(tiles, source, [first + panel * SIDE, step * form.step_len()], side, form);
    };
    if source.col_stride == 1 {
        (0..panels).for_each(|panel| (0..steps).for_each(|at| step(panel, at)));
    } else {
        (0..steps).for_each(|at| (0..panels).for_each(|panel| step(panel, at)));
    }
}

/// Fills the tiles of one step with 16 rows of `source` from row and value `at` on.
fn fill_step(tiles: &mut [Tile], source: Mat<'_>, at: [usize; 2], side: Side, form: Form) {
    #[cfg(target_arch = "x86_64")]
    if level() >= Level::Avx512 {
        #[expect(unsafe_code, reason = "the call needs the features that `level` has found")]
        // SAFETY: `level` returns `Avx512` or more only where AVX-512 F, BW, DQ and VL were detected.
        return unsafe { super::avx512::fill_step(tiles, source, at, side, form) };
    }
    plain(tiles, source, at, side, form);
}

for_each_level! {
    /// [`fill_step`] without instructions of its own.
    fn plain(tiles: &mut [Tile], source: Mat<'_>, at: [usize; 2], side: Side, form: Form) {
        let words = words(source, at, form);
        for (tile, words) in tiles.iter_mut().zip(&words) {
            match side {
                Side::Left => tile.0 = *words,
                Side::Right => transpose(words, &mut tile.0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::CounterRng;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_level_fills_the_same_tiles(rows in 1usize..40, inner in 1usize..100, pad in 0usize..4, t: bool, left: bool,
                                            form in prop::sample::select(vec![Form::Words, Form::Pairs, Form::Split]), seed: u64) {
            let mut rng = CounterRng::new(seed, 0);
            let (long, short) = if t { (inner, rows + pad) } else { (rows, inner + pad) };
            let value = |rng: &mut CounterRng| rng.normal() * [1.0, 1e-20, 1e-37, 1e-43][rng.bits() as usize % 4];
            let data: Vec<f32> = (0..long * short).map(|_| value(&mut rng)).collect();
            let source = Mat::new(&data, long, if t { rows } else { inner }, short);
            let source = if t { source.t() } else { source };
            let side = if left { Side::Left } else { Side::Right };
            let panel_tiles = form.panel_tiles(inner);
            let mut found = vec![Tile::ZERO; rows.div_ceil(SIDE) * panel_tiles];
            fill_panels(&mut found, panel_tiles, source, 0, side, form);
            for (panel, found) in found.chunks_exact(panel_tiles).enumerate() {
                for (step, found) in found.chunks_exact(form.step_tiles()).enumerate() {
                    let mut expected = vec![Tile::ZERO; form.step_tiles()];
                    plain(&mut expected, source, [panel * SIDE, step * form.step_len()], side, form);
                    for (found, expected) in found.iter().zip(&expected) {
                        prop_assert_eq!(found.0, expected.0);
                    }
                }
            }
        }
    }
}
