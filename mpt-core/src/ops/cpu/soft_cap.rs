//! CPU soft cap.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::Result;
use crate::host::with_slice_mut;
use crate::kernels::cpu::activation::tanh;

pub(crate) fn soft_cap(x: &Tensor, cap: f64) -> Result<()> {
    let cap = cap as f32;
    with_slice_mut(x, |x| {
        x.par_iter_mut().with_min_len(1 << 12).for_each(|x| *x = cap * tanh(*x / cap));
    })
}
