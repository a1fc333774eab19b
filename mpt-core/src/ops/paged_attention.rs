//! Paged attention: causal attention with ALiBi over the pages of a pool, and the keys and values written there.

use candle_core::Tensor;

use super::arguments::ScoreParams;
use super::device::backend_of;
use crate::batch::Batch;
use crate::cache::KvPool;
use crate::error::{Error, Result};

/// Writes one layer's keys and values `[tokens, kv_n_heads, head_dim]`, f32, of the new tokens of a batch that has begun.
///
/// Views of a larger tensor are accepted when the elements of a head are contiguous.
///
/// # Errors
/// [`Error::Shape`] when sizes disagree, there is no such layer, or the batch has not begun.
pub fn append_kv(pool: &mut KvPool, layer: usize, batch: &Batch, [k, v]: [&Tensor; 2]) -> Result<()> {
    backend_of(k)?.append_kv(pool, layer, batch, [k, v])
}

/// Attention of the new tokens of a batch that has begun over the keys and values of their sequences in `layer`.
///
/// `q` `[tokens, n_heads, head_dim]`, f32; returns the same shape. Keys and values of the new tokens have been appended. A token
/// sees itself and the earlier tokens of its document, the last `window` of them if given. The bits of a token's output depend on
/// its own sequence alone. Products are f32, whatever the precision of `scores`.
///
/// # Errors
/// [`Error::Shape`] naming the argument when shapes disagree or the batch has not begun.
pub fn paged_attention(
    q: &Tensor,
    pool: &KvPool,
    layer: usize,
    batch: &Batch,
    scores: &ScoreParams,
    window: Option<usize>,
) -> Result<Tensor> {
    let wrong = |argument, actual: String, expected: String| {
        Err(Error::Shape { op: "attention", argument, actual, expected })
    };
    let (tokens, n_heads, head_dim) = q.dims3()?;
    if tokens != batch.len() || head_dim != pool.head_dim() || n_heads % pool.kv_n_heads() != 0 {
        let heads = format!("a multiple of {} heads", pool.kv_n_heads());
        let expected = format!("[{}, {heads}, {}]", batch.len(), pool.head_dim());
        return wrong("q", format!("{:?}", q.dims()), expected);
    }
    if scores.slopes.len() != n_heads {
        let actual = format!("{} values", scores.slopes.len());
        return wrong("slopes", actual, format!("{n_heads}, one a head"));
    }
    pool.check_layer(layer)?;
    backend_of(q)?.paged_attention(q, pool, layer, batch, scores, window)
}
