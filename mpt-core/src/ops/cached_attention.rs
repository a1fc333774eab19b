//! Causal attention with ALiBi over a cache.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor, bail};

use super::attention::{Scores, check_queries, kernel_shape};
use super::host::host_slice;
use crate::cache::LayerCache;
use crate::error::{Error, Result};
use crate::kernels::cpu::attention::decode::decode;
use crate::kernels::cpu::attention::{self as kernel, Heads};

/// Queries of a row up to which reading the cache once is what takes time; more of them are a matrix product.
const FEW: usize = 8;

/// [`attention`](super::attention()) of the queries `q` `[batch, seq, n_heads, head_dim]`, f32, over the keys and values of a
/// cache to which those of the same tokens have been appended. Returns `[batch, seq, n_heads, head_dim]`.
///
/// Up to 8 queries a row read the cache once, at the speed of memory, and each gives the same bits whatever is beside it.
/// There is no gradient: a backward pass through the result fails.
///
/// # Errors
/// [`Error::Shape`] naming the argument when shapes disagree or a query would see no key.
pub fn cached_attention(
    q: &Tensor,
    cache: &LayerCache<'_>,
    scores: &Scores,
    first_key: Option<&Arc<[u32]>>,
) -> Result<Tensor> {
    let (batch, seq, n_heads, e) = q.dims4()?;
    let (g, start) = (cache.kv_n_heads(), cache.lens());
    if e != cache.head_dim() || g == 0 || n_heads % g != 0 {
        let expected = format!("[batch, seq, a multiple of {g}, {}]", cache.head_dim());
        let actual = format!("{:?}", q.dims());
        return Err(Error::Shape { op: "attention", argument: "q", actual, expected });
    }
    let first_key = first_key.map(AsRef::as_ref);
    check_queries([batch, seq, n_heads], cache.capacity(), scores, start, first_key)?;
    let q = q.contiguous()?;
    let mut out = vec![0f32; q.elem_count()];
    let shape = kernel_shape([seq, n_heads, g, e], scores, start, first_key);
    let data = host_slice(&q)?;
    if seq <= FEW {
        decode(&shape, &data, cache.cached(), &mut out);
    } else {
        let (row_stride, mut lse) = (n_heads * e, vec![0f32; batch * seq * n_heads]);
        let heads = Heads { data: &data, batch_stride: seq * row_stride, row_stride };
        kernel::forward(&shape, heads, cache.cached(), &mut out, &mut lse);
    }
    drop(data);
    Ok(q.apply_op1(CachedAttentionOp { out: Mutex::new(out) })?)
}

/// Gives `out` and says that it has no gradient: an op may not borrow the cache, so the work is done before.
struct CachedAttentionOp {
    out: Mutex<Vec<f32>>,
}

impl CustomOp1 for CachedAttentionOp {
    fn name(&self) -> &'static str {
        "cached attention"
    }

    fn cpu_fwd(&self, _: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let out = std::mem::take(&mut *self.out.lock().expect("nothing panics while it is locked"));
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> candle_core::Result<Option<Tensor>> {
        bail!("attention over a cache has no gradient: train without a cache")
    }
}
