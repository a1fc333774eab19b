//! Causal attention with ALiBi over a cache.

use std::sync::Arc;

use candle_core::Tensor;

use super::attention::Scores;
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
/// Up to 8 queries a row read the cache once, and each gives the same bits whatever is beside it.
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
    let q = q.contiguous()?;
    let mut out = vec![0f32; q.elem_count()];
    let shape = kernel::Shape {
        seq,
        n_heads,
        kv_n_heads: g,
        head_dim: e,
        scale: scores.scale as f32,
        cap: scores.cap.map(|cap| cap as f32),
        slopes: &scores.slopes,
        precision: scores.precision,
        start,
        first_key,
        dropout: None,
    };
    let data = host_slice(&q)?;
    if seq <= FEW {
        decode(&shape, &data, cache.cached(), &mut out);
    } else {
        let (row_stride, mut lse) = (n_heads * e, vec![0f32; batch * seq * n_heads]);
        let heads = Heads { data: &data, batch_stride: seq * row_stride, row_stride };
        kernel::forward(&shape, heads, cache.cached(), &mut out, &mut lse);
    }
    super::host::tensor_like(out, &q)
}
