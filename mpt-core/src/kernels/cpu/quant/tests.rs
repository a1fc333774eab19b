//! Panels and products against dequantized weights.

use proptest::prelude::*;

use super::unpack::{SuperBlock, unpack};
use super::*;
use crate::kernels::cpu::dequantize::dequantize;
use crate::kernels::cpu::dispatch::{level, levels};
use crate::rng::CounterRng;

const DTYPES: [WeightDtype; 5] =
    [WeightDtype::Q8_0, WeightDtype::Q4_0, WeightDtype::Q4K, WeightDtype::Q5K, WeightDtype::Q6K];

/// Random blocks with finite scales.
fn random_blocks(dtype: WeightDtype, rows: usize, k: usize, rng: &mut CounterRng) -> Vec<u8> {
    let scales: &[usize] = match dtype {
        WeightDtype::Q4K | WeightDtype::Q5K => &[0, 2],
        WeightDtype::Q6K => &[208],
        _ => &[0],
    };
    let mut bytes: Vec<u8> = (0..rows * dtype.row_bytes(k).unwrap()).map(|_| rng.bits() as u8).collect();
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        for &at in scales {
            block[at..at + 2].copy_from_slice(&half::f16::from_f32(rng.normal() / 64.0).to_le_bytes());
        }
    }
    bytes
}

fn packed(dtype: WeightDtype, rows: &[u8], k: usize) -> Vec<u8> {
    let row_bytes = dtype.row_bytes(k).unwrap();
    let mut panels = vec![0xaa; (rows.len() / row_bytes).next_multiple_of(PANEL_ROWS) * row_bytes];
    for (rows, panel) in
        rows.chunks(PANEL_ROWS * row_bytes).zip(panels.chunks_exact_mut(PANEL_ROWS * row_bytes))
    {
        pack_panel(dtype, rows, row_bytes, panel);
    }
    panels
}

fn normals(rng: &mut CounterRng, len: usize) -> Vec<f32> {
    (0..len).map(|_| rng.normal()).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn product(level: Level, x: &[f32], panels: &QuantPanels<'_>) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len() / panels.k * panels.n];
    matmul_nt(level, &mut y, x, panels);
    y
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn packing_loses_nothing(index in 0usize..5, rows in 1usize..40, super_blocks in 1usize..4, seed: u64) {
        let dtype = DTYPES[index];
        let k = super_blocks * dtype.block_len().max(96);
        let rows = random_blocks(dtype, rows, k, &mut CounterRng::new(seed, 0));
        let (row_bytes, panels) = (dtype.row_bytes(k).unwrap(), packed(dtype, &rows, k));
        for (index, row) in rows.chunks_exact(row_bytes).enumerate() {
            let panel = &panels[index / PANEL_ROWS * PANEL_ROWS * row_bytes..][..PANEL_ROWS * row_bytes];
            let mut found = vec![0u8; row_bytes];
            unpack_row(dtype, panel, index % PANEL_ROWS, &mut found);
            prop_assert_eq!(&found[..], row, "{} row {}", dtype, index);
        }
    }

    /// Unpacked codes and scales give the values of `dequantize` to the bit.
    #[test]
    fn unpacked_values_are_those_of_the_blocks(index in 0usize..5, super_blocks in 1usize..4, seed: u64) {
        let dtype = DTYPES[index];
        let k = super_blocks * dtype.block_len().max(96);
        let rows = random_blocks(dtype, PANEL_ROWS, k, &mut CounterRng::new(seed, 0));
        let mut expected = vec![0f32; PANEL_ROWS * k];
        dequantize(dtype, &rows, &mut expected);
        let panels = packed(dtype, &rows, k);
        let super_block_bytes = PANEL_ROWS * QK_K / dtype.block_len() * dtype.block_bytes();
        let mut block = SuperBlock::ZERO;
        for (index, bytes) in panels.chunks(super_block_bytes).enumerate() {
            unpack(dtype, bytes, &mut block);
            for column in 0..block.header.groups * GROUP {
                for lane in 0..PANEL_ROWS {
                    let code = f32::from(block.codes[column / 4][lane * 4 + column % 4]);
                    let min = if block.header.has_mins { block.header.mins[column / 32][lane] } else { 0.0 };
                    let found = block.header.scales[column / block.header.group_len][lane] * code - min;
                    prop_assert_eq!(found, expected[lane * k + index * QK_K + column], "{} {}", dtype, column);
                }
            }
        }
    }

    #[test]
    fn every_level_gives_the_same_bits_and_they_are_near(index in 0usize..5, m in 1usize..50, n in 1usize..70,
                                                         super_blocks in 1usize..4, seed: u64) {
        let (dtype, mut rng) = (DTYPES[index], CounterRng::new(seed, 0));
        let k = super_blocks * dtype.block_len().max(96);
        let rows = random_blocks(dtype, n, k, &mut rng);
        let panels = packed(dtype, &rows, k);
        let panels = QuantPanels { bytes: &panels, dtype, n, k };
        let x = normals(&mut rng, m * k);
        let oracle = product(Level::Baseline, &x, &panels);
        for level in levels() {
            prop_assert_eq!(bits(&product(level, &x, &panels)), bits(&oracle), "{} {:?}", dtype, level);
        }
        let mut weights = vec![0f32; n * k];
        dequantize(dtype, &rows, &mut weights);
        for (i, x) in x.chunks_exact(k).enumerate() {
            for (j, w) in weights.chunks_exact(k).enumerate() {
                let exact: f64 = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                // each factor of x errs by half a step, at most 4.5 / 254 of it; errors are independent
                let size: f64 = w.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>().sqrt();
                let found = f64::from(oracle[i * n + j]);
                prop_assert!((found - exact).abs() <= 0.06 * size + 1e-6, "{} {} {}", dtype, found, exact);
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_among_others(index in 0usize..5, m in 2usize..40, row: usize, seed: u64) {
        let (dtype, mut rng) = (DTYPES[index], CounterRng::new(seed, 0));
        let (n, k, row) = (40, 512, row % m);
        let panels = packed(dtype, &random_blocks(dtype, n, k, &mut rng), k);
        let panels = QuantPanels { bytes: &panels, dtype, n, k };
        let x = normals(&mut rng, m * k);
        let all = product(level(), &x, &panels);
        let alone = product(level(), &x[row * k..(row + 1) * k], &panels);
        prop_assert_eq!(bits(&all[row * n..(row + 1) * n]), bits(&alone));
    }
}

#[test]
fn extreme_activations_give_the_same_bits_at_every_level() {
    let mut rng = CounterRng::new(5, 0);
    let (n, k) = (33, 256);
    for dtype in DTYPES {
        let panels = packed(dtype, &random_blocks(dtype, n, k, &mut rng), k);
        let panels = QuantPanels { bytes: &panels, dtype, n, k };
        for value in [0.0, 1e-45, 1e-38, 1e30, f32::INFINITY, f32::NAN] {
            let mut x = normals(&mut rng, 17 * k);
            x[3 * k + 5] = value;
            x[7 * k..8 * k].fill(value);
            let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            let oracle = product(Level::Baseline, &x, &panels);
            for level in levels() {
                let found = product(level, &x, &panels);
                assert!(found.iter().zip(&oracle).all(same), "{dtype} {value} {level:?}");
            }
            assert_eq!(
                oracle[3 * n..4 * n].iter().all(|y| y.is_finite()),
                value.is_finite(),
                "{dtype} {value}"
            );
        }
    }
}
