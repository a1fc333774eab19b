//! Packing of panels: values are rounded, split and transposed, with the same bits at every level.

use super::scalar::{step_words, transpose};
use super::{Operand, PackFormat, TILE_DIM, Tile};
use crate::kernels::cpu::dispatch::{Level, for_each_level, level};
use crate::kernels::cpu::gemm::mat::MatRef;

/// Packs panels of `panel_tiles` tiles each, from row `first` of `source` on.
///
/// A column-major source is packed step by step across the panels, so that memory is read line after line.
pub(super) fn pack_panels(
    tiles: &mut [Tile],
    panel_tiles: usize,
    source: MatRef<'_>,
    first: usize,
    operand: Operand,
    format: PackFormat,
) {
    let panels = tiles.len() / panel_tiles;
    let steps = panel_tiles / format.step_tiles();
    let mut pack = |panel: usize, step: usize| {
        let tiles = &mut tiles[panel * panel_tiles + step * format.step_tiles()..][..format.step_tiles()];
        pack_step(tiles, source, [first + panel * TILE_DIM, step * format.step_len()], operand, format);
    };
    if source.col_stride == 1 {
        (0..panels).for_each(|panel| (0..steps).for_each(|step| pack(panel, step)));
    } else {
        (0..steps).for_each(|step| (0..panels).for_each(|panel| pack(panel, step)));
    }
}

/// Packs one step of 16 rows of `source`, from row and value `at` on.
fn pack_step(tiles: &mut [Tile], source: MatRef<'_>, at: [usize; 2], operand: Operand, format: PackFormat) {
    #[cfg(target_arch = "x86_64")]
    if level() >= Level::Avx512 {
        #[expect(unsafe_code, reason = "the call needs the features that `level` has found")]
        // SAFETY: `level` returns `Avx512` or more only where AVX-512 F, BW, DQ and VL were detected.
        return unsafe { super::avx512::pack_step(tiles, source, at, operand, format) };
    }
    pack_step_scalar(tiles, source, at, operand, format);
}

for_each_level! {
    /// [`pack_step`] in portable Rust.
    fn pack_step_scalar(tiles: &mut [Tile], source: MatRef<'_>, at: [usize; 2], operand: Operand, format: PackFormat) {
        let words = step_words(source, at, format);
        for (tile, words) in tiles.iter_mut().zip(&words) {
            match operand {
                Operand::A => tile.0 = *words,
                Operand::B => transpose(words, &mut tile.0),
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
        fn every_level_packs_the_same_tiles(rows in 1usize..40, k in 1usize..100, pad in 0usize..4, t: bool, is_a: bool,
                                            format in prop::sample::select(vec![PackFormat::F32, PackFormat::Bf16, PackFormat::Bf16x3]), seed: u64) {
            let mut rng = CounterRng::new(seed, 0);
            let (long, short) = if t { (k, rows + pad) } else { (rows, k + pad) };
            let value = |rng: &mut CounterRng| rng.normal() * [1.0, 1e-20, 1e-37, 1e-43][rng.bits() as usize % 4];
            let data: Vec<f32> = (0..long * short).map(|_| value(&mut rng)).collect();
            let source = MatRef::new(&data, long, if t { rows } else { k }, short);
            let source = if t { source.t() } else { source };
            let operand = if is_a { Operand::A } else { Operand::B };
            let panel_tiles = format.panel_tiles(k);
            let mut found = vec![Tile::ZERO; rows.div_ceil(TILE_DIM) * panel_tiles];
            pack_panels(&mut found, panel_tiles, source, 0, operand, format);
            for (panel, found) in found.chunks_exact(panel_tiles).enumerate() {
                for (step, found) in found.chunks_exact(format.step_tiles()).enumerate() {
                    let mut expected = vec![Tile::ZERO; format.step_tiles()];
                    pack_step_scalar(&mut expected, source, [panel * TILE_DIM, step * format.step_len()], operand, format);
                    for (found, expected) in found.iter().zip(&expected) {
                        prop_assert_eq!(found.0, expected.0);
                    }
                }
            }
        }
    }
}
