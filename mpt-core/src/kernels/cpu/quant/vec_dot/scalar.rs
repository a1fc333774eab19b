//! Int8 kernel in portable Rust: the reference of the others, and the fallback where a processor has none of them.

use crate::kernels::cpu::quant::activations::Int8Activations;
use crate::kernels::cpu::quant::unpack::{QUAD, SuperBlock};
use crate::kernels::cpu::quant::{GROUP, PANEL_ROWS};

/// As [`add_super_block`](super::add_super_block).
pub(super) fn add_super_block(
    acc: &mut [[f32; PANEL_ROWS]],
    x: &Int8Activations,
    from: usize,
    index: usize,
    block: &SuperBlock,
) {
    for (i, acc) in acc.iter_mut().enumerate() {
        let (codes, groups) = (x.codes(from + i, index), x.groups(from + i, index));
        for group in 0..block.header.groups * GROUP / block.header.group_len {
            let columns = group * block.header.group_len..(group + 1) * block.header.group_len;
            let x_group = &groups[columns.start / GROUP];
            let dots = dots(&codes[columns.clone()], block, columns.start / QUAD);
            for lane in 0..PANEL_ROWS {
                let scale = block.header.scales[group][lane] * x_group.scale;
                acc[lane] = (dots[lane] as f32).mul_add(scale, acc[lane]);
                if block.header.has_mins {
                    acc[lane] = (-block.header.mins[group][lane]).mul_add(x_group.scaled_sum, acc[lane]);
                }
            }
        }
    }
}

/// Dot products of the codes of one row of `x` with 16 rows of the weight, from quad `first` on.
fn dots(codes: &[i8], block: &SuperBlock, first: usize) -> [i32; PANEL_ROWS] {
    let mut dots = [0i32; PANEL_ROWS];
    for (codes, line) in codes.chunks_exact(QUAD).zip(&block.codes[first..]) {
        for (dot, weights) in dots.iter_mut().zip(line.as_chunks::<QUAD>().0) {
            for (&code, &weight) in codes.iter().zip(weights) {
                *dot += i32::from(code) * i32::from(weight);
            }
        }
    }
    dots
}
