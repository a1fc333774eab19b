//! Products with quantized weights, computed in integers.
//!
//! Weights lie in panels of 16 rows (`panel`), the same bytes as in the file in another order. A panel is unpacked 256 columns at
//! a time (`unpack`) to 8-bit codes with f32 scales, `w = scale * code - min`, and multiplied with activations that are
//! rounded to 8 bits with a scale for every 32 (`activations`). Sums of codes are exact integers and every level adds
//! their scaled values up in one order with fused multiply-adds (`products`), so that results have the same bits at every
//! level, for any number of threads and for any rows beside them.

mod activations;
mod panel;
mod products;
mod unpack;

pub(crate) use panel::pack_panel;

use panel::unpack_row;

use activations::Activations;

use std::ops::Range;

use crate::dtype::WeightDtype;
use crate::kernels::cpu::dispatch::Level;
use crate::kernels::cpu::pool::{self, Shared};
use crate::kernels::cpu::scratch::Scratch;

/// Rows of a weight that lie together.
pub(crate) const LANES: usize = 16;

/// Values along a row that are unpacked together: ggml's largest block.
const SPAN: usize = 256;

/// Values that share a scale in activations.
const GROUP: usize = 32;

/// Panels that are read side by side.
const TOGETHER: usize = 2;

/// Rows of activations of a task: their sums stay in the first two levels of cache.
const TASK_ROWS: usize = 256;

/// Whether weights of this form are multiplied in integers.
pub(crate) fn in_integers(format: WeightDtype) -> bool {
    matches!(
        format,
        WeightDtype::Q8_0 | WeightDtype::Q4_0 | WeightDtype::Q4K | WeightDtype::Q5K | WeightDtype::Q6K
    )
}

/// A weight `[n, k]` in panels.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a> {
    /// One panel after the other; rows that do not exist are zero.
    pub(crate) bytes: &'a [u8],
    pub(crate) format: WeightDtype,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

impl Panels<'_> {
    /// The bytes of one row in ggml's order.
    pub(crate) fn row(&self, row: usize) -> Vec<u8> {
        let panel = row / LANES * self.panel_bytes();
        let mut bytes = vec![0; self.panel_bytes() / LANES];
        unpack_row(self.format, &self.bytes[panel..panel + self.panel_bytes()], row % LANES, &mut bytes);
        bytes
    }

    /// Adds to `sums[panel][i]` the products of some panels with row `from + i` of `x`.
    fn add_products(
        &self,
        level: Level,
        sums: &mut [[f32; LANES]],
        x: &Activations,
        from: usize,
        panels: Range<usize>,
    ) {
        let rows = sums.len() / TOGETHER;
        let mut sums: Vec<_> = sums.chunks_exact_mut(rows).take(panels.len()).collect();
        let panels: Vec<_> =
            panels.map(|panel| &self.bytes[panel * self.panel_bytes()..][..self.panel_bytes()]).collect();
        products::add_panels(level, &mut sums, x, from, self.format, &panels);
    }

    fn panel_bytes(&self) -> usize {
        LANES * self.format.row_bytes(self.k).expect("rows are whole blocks")
    }
}

/// `y = x W^T` for `x` `[m, k]`; `y` `[m, n]` is row-major.
pub(crate) fn times_transposed(level: Level, y: &mut [f32], x: &[f32], weight: &Panels<'_>) {
    let (n, k) = (weight.n, weight.k);
    let m = x.len() / k;
    assert_eq!((x.len(), y.len()), (m * k, m * n), "shapes of a quantized product disagree");
    let x = Activations::new(x, k);
    let least = (TASK_BYTES / weight.panel_bytes().max(1)).max(TOGETHER);
    let ranges = pool::shrinking(n.div_ceil(LANES), least, TOGETHER);
    let row_tasks = m.div_ceil(TASK_ROWS);
    let y = Shared(y.as_mut_ptr());
    pool::run(row_tasks * ranges.len(), |task| {
        let rows = task % row_tasks * TASK_ROWS;
        let rows = rows..(rows + TASK_ROWS).min(m);
        let panels = ranges[task / row_tasks].clone();
        let mut sums = Scratch::take(TOGETHER * rows.len(), [0f32; LANES]);
        for first in panels.clone().step_by(TOGETHER) {
            let together = first..(first + TOGETHER).min(panels.end);
            sums.fill([0.0; LANES]);
            weight.add_products(level, &mut sums, &x, rows.start, together.clone());
            for (panel, sums) in together.zip(sums.chunks_exact(rows.len())) {
                let lanes = LANES.min(n - panel * LANES);
                for (row, sums) in rows.clone().zip(sums) {
                    #[expect(unsafe_code, reason = "tasks write parts of one matrix")]
                    // SAFETY: `y` has m rows of n elements; this task alone writes these rows of this panel's columns.
                    let out = unsafe {
                        std::slice::from_raw_parts_mut(y.get().add(row * n + panel * LANES), lanes)
                    };
                    out.copy_from_slice(&sums[..lanes]);
                }
            }
        }
    });
}

/// Bytes of weights that are worth a task of their own.
const TASK_BYTES: usize = 32 << 10;

#[cfg(test)]
mod tests;
