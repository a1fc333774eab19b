//! Causal attention with ALiBi over the pages of a pool, and the keys and values written there.

use candle_core::Tensor;

use super::arguments::Scores;
use super::device::of;
use crate::batch::Batch;
use crate::cache::KvPool;
use crate::error::{Error, Result};

/// Writes one layer's keys and values of the new tokens of a batch that has begun, `[tokens, kv_n_heads, head_dim]`, f32:
/// views of a larger tensor too, as long as the numbers of a head are neighbors.
///
/// # Errors
/// [`Error::Shape`] when they are of another size, there is no such layer, or the batch has not begun.
pub fn append_kv(pool: &mut KvPool, layer: usize, batch: &Batch, [k, v]: [&Tensor; 2]) -> Result<()> {
    of(k)?.append_kv(pool, layer, batch, [k, v])
}

/// Attention of the new tokens of a batch that has begun, `q` `[tokens, n_heads, head_dim]`, f32, over the keys and values
/// of their sequences in `layer`, to which those of the new tokens have been appended. A token sees itself and the tokens of
/// its document before it, `window` of them at most where that is given. Returns `[tokens, n_heads, head_dim]`.
///
/// The bits of a token's output depend on its own sequence alone. Products are those of f32, whatever precision `scores`
/// names.
///
/// # Errors
/// [`Error::Shape`] naming the argument when shapes disagree or the batch has not begun.
pub fn paged_attention(
    q: &Tensor,
    pool: &KvPool,
    layer: usize,
    batch: &Batch,
    scores: &Scores,
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
    of(q)?.paged_attention(q, pool, layer, batch, scores, window)
}
