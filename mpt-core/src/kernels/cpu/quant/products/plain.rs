//! Products in plain Rust: the oracle of the other levels, and what runs on processors without them.

use crate::kernels::cpu::quant::activations::Activations;
use crate::kernels::cpu::quant::unpack::{QUAD, Span};
use crate::kernels::cpu::quant::{GROUP, LANES};

/// See [`add_span`](super::add_span).
pub(super) fn add_span(sums: &mut [[f32; LANES]], x: &Activations, from: usize, index: usize, span: &Span) {
    for (i, sums) in sums.iter_mut().enumerate() {
        let (codes, groups) = (x.codes(from + i, index), x.groups(from + i, index));
        for group in 0..span.head.groups * GROUP / span.head.group {
            let columns = group * span.head.group..(group + 1) * span.head.group;
            let of_x = &groups[columns.start / GROUP];
            let dots = dots(&codes[columns.clone()], span, columns.start / QUAD);
            for lane in 0..LANES {
                let scale = span.head.scales[group][lane] * of_x.scale;
                sums[lane] = (dots[lane] as f32).mul_add(scale, sums[lane]);
                if span.head.with_mins {
                    sums[lane] = (-span.head.mins[group][lane]).mul_add(of_x.total, sums[lane]);
                }
            }
        }
    }
}

/// The products of codes of one row with those of 16 rows of the weight, from the quad `first` on.
fn dots(codes: &[i8], span: &Span, first: usize) -> [i32; LANES] {
    let mut dots = [0i32; LANES];
    for (codes, line) in codes.chunks_exact(QUAD).zip(&span.codes[first..]) {
        for (dot, weights) in dots.iter_mut().zip(line.as_chunks::<QUAD>().0) {
            for (&code, &weight) in codes.iter().zip(weights) {
                *dot += i32::from(code) * i32::from(weight);
            }
        }
    }
    dots
}
