//! Products of quantized weights and int8 activations.
//!
//! A weight lies in panels of 16 rows (`panel`): ggml's bytes in another order. Activations are quantized to int8 on the fly
//! (`activations`). A panel is unpacked one super-block of 256 columns at a time (`unpack`), to int8 codes and f32 scales with
//! `w = scale * code - min`, and multiplied (`vec_dot`). Sums of code products are exact integers, and all levels add their scaled
//! values in one order with fused multiply-adds. Results therefore have the same bits at every level, for any number of threads
//! and whatever the other rows.

mod activations;
mod panel;
mod unpack;
mod vec_dot;

use std::ops::Range;

pub(crate) use panel::pack_panel;

use activations::Int8Activations;
use panel::unpack_row;

use crate::dtype::WeightDtype;
use crate::kernels::cpu::dispatch::Level;
use crate::kernels::cpu::pool::{self, SharedPtr};
use crate::kernels::cpu::scratch::Scratch;

/// Rows of a panel.
pub(crate) const PANEL_ROWS: usize = 16;

/// Columns of a super-block, ggml's largest block.
const QK_K: usize = 256;

/// Activations that share a scale.
const GROUP: usize = 32;

/// Panels read side by side.
const PANELS_AT_ONCE: usize = 2;

/// Rows of activations of a task: their accumulators stay in the first two levels of cache.
const TASK_ROWS: usize = 256;

/// Bytes of weights of a task at least.
const MIN_TASK_BYTES: usize = 32 << 10;

/// Whether weights of `dtype` have an int8 kernel.
pub(crate) fn has_int8_kernel(dtype: WeightDtype) -> bool {
    matches!(
        dtype,
        WeightDtype::Q8_0 | WeightDtype::Q4_0 | WeightDtype::Q4K | WeightDtype::Q5K | WeightDtype::Q6K
    )
}

/// Quantized weight `[n, k]` in panels.
#[derive(Clone, Copy)]
pub(crate) struct QuantPanels<'a> {
    /// Panel after panel; missing rows are zero.
    pub(crate) bytes: &'a [u8],
    pub(crate) dtype: WeightDtype,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

impl QuantPanels<'_> {
    /// Bytes of one row in ggml's order.
    pub(crate) fn row(&self, row: usize) -> Vec<u8> {
        let panel = row / PANEL_ROWS * self.panel_bytes();
        let mut bytes = vec![0; self.panel_bytes() / PANEL_ROWS];
        unpack_row(self.dtype, &self.bytes[panel..panel + self.panel_bytes()], row % PANEL_ROWS, &mut bytes);
        bytes
    }

    /// Adds to `acc[panel][i]` the products of the panels `panels` with row `from + i` of `x`.
    fn accumulate(
        &self,
        level: Level,
        acc: &mut [[f32; PANEL_ROWS]],
        x: &Int8Activations,
        from: usize,
        panels: Range<usize>,
    ) {
        let rows = acc.len() / PANELS_AT_ONCE;
        let mut acc: Vec<_> = acc.chunks_exact_mut(rows).take(panels.len()).collect();
        let panels: Vec<_> =
            panels.map(|panel| &self.bytes[panel * self.panel_bytes()..][..self.panel_bytes()]).collect();
        vec_dot::add_panels(level, &mut acc, x, from, self.dtype, &panels);
    }

    /// Bytes of a panel.
    fn panel_bytes(&self) -> usize {
        PANEL_ROWS * self.dtype.row_bytes(self.k).expect("rows are whole blocks")
    }
}

/// `y = x W^T` for `x` `[m, k]`, `weight` `[n, k]` and `y` `[m, n]`, row-major.
///
/// # Panics
/// When the shapes disagree.
pub(crate) fn matmul_nt(level: Level, y: &mut [f32], x: &[f32], weight: &QuantPanels<'_>) {
    let (n, k) = (weight.n, weight.k);
    let m = x.len() / k;
    assert_eq!((x.len(), y.len()), (m * k, m * n), "shapes of a quantized product disagree");
    let x = Int8Activations::new(x, k);
    let min_panels = (MIN_TASK_BYTES / weight.panel_bytes().max(1)).max(PANELS_AT_ONCE);
    let ranges = pool::guided_ranges(n.div_ceil(PANEL_ROWS), min_panels, PANELS_AT_ONCE);
    let row_tasks = m.div_ceil(TASK_ROWS);
    let y = SharedPtr(y.as_mut_ptr());
    pool::run(row_tasks * ranges.len(), |task| {
        let rows = task % row_tasks * TASK_ROWS;
        let rows = rows..(rows + TASK_ROWS).min(m);
        let panels = ranges[task / row_tasks].clone();
        let mut acc = Scratch::take(PANELS_AT_ONCE * rows.len(), [0f32; PANEL_ROWS]);
        for first in panels.clone().step_by(PANELS_AT_ONCE) {
            let pair = first..(first + PANELS_AT_ONCE).min(panels.end);
            acc.fill([0.0; PANEL_ROWS]);
            weight.accumulate(level, &mut acc, &x, rows.start, pair.clone());
            for (panel, acc) in pair.zip(acc.chunks_exact(rows.len())) {
                let lanes = PANEL_ROWS.min(n - panel * PANEL_ROWS);
                for (row, acc) in rows.clone().zip(acc) {
                    #[expect(unsafe_code, reason = "tasks write parts of one matrix")]
                    // SAFETY: `y` has m rows of n elements; this task alone writes these rows of this panel's columns.
                    let out = unsafe {
                        std::slice::from_raw_parts_mut(y.get().add(row * n + panel * PANEL_ROWS), lanes)
                    };
                    out.copy_from_slice(&acc[..lanes]);
                }
            }
        }
    });
}

#[cfg(test)]
mod tests;
