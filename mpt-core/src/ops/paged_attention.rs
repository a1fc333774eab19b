//! Causal attention with ALiBi over the pages of a pool.

use candle_core::{Device, Tensor};

use super::attention::Scores;
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::kernels::cpu::attention::paged::{self, Call};
use crate::kernels::cpu::dispatch::level;
use crate::kv::{HostHeads, KvPool};

/// Attention of the new tokens of a batch that has begun, `q` `[tokens, n_heads, head_dim]`, f32, over the keys and values
/// of their sequences in `layer`, to which those of the new tokens have been appended. A token sees itself and the tokens of
/// its document before it, `window` of them at most where that is given. Returns `[tokens, n_heads, head_dim]`.
///
/// The bits of a token's output depend on its own sequence alone. Products are those of f32, whatever `scores` says of
/// products. There is no gradient: the result leads to no variable.
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
    let op = "attention";
    let q = HostHeads::new(op, "q", q, [Some(batch.len()), None, Some(pool.head_dim())])?;
    let (n_heads, kv_n_heads) = (q.heads(), pool.kv_n_heads());
    if n_heads % kv_n_heads != 0 {
        let (actual, expected) = (format!("of {n_heads} heads"), format!("a multiple of {kv_n_heads} heads"));
        return Err(Error::Shape { op, argument: "q", actual, expected });
    }
    if scores.slopes.len() != n_heads {
        let (actual, expected) = (format!("{} values", scores.slopes.len()), format!("{n_heads}, one a head"));
        return Err(Error::Shape { op, argument: "slopes", actual, expected });
    }
    pool.expect_layer(layer)?;
    let first_key = pool.first_keys(batch, window)?;
    let memory = pool.memory();
    let call = Call {
        n_heads,
        pages: pool.layer(layer, &memory),
        scale: scores.scale as f32,
        cap: scores.cap.map(|cap| cap as f32),
        slopes: &scores.slopes,
        sequences: &pool.of_batch(batch),
        first_key: &first_key,
    };
    let shape = (batch.len(), n_heads, pool.head_dim());
    let mut out = vec![0f32; batch.len() * n_heads * pool.head_dim()];
    paged::forward(level(), &call, q.rows(), &mut out);
    Ok(Tensor::from_vec(out, shape, &Device::Cpu)?)
}
