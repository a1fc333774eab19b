//! Attention on the processor.

use candle_core::Tensor;

use crate::error::Result;
use crate::host::{host_slice, strided_slice, tensor_like};
use crate::kernels::cpu::attention::{self as kernel, Heads, Saved};
use crate::ops::arguments::{AttentionInputs, AttentionOutputs, Scores};

pub(crate) fn attention(inputs: &AttentionInputs, scores: &Scores) -> Result<AttentionOutputs> {
    let (batch, seq, n_heads, head_dim) = inputs.q.dims4()?;
    let mut lse = vec![0f32; batch * seq * n_heads];
    let mut out = vec![0f32; lse.len() * head_dim];
    with_heads(inputs, |qkv| {
        kernel::forward(&shape(inputs, scores)?, qkv, &mut out, &mut lse);
        Ok(())
    })?;
    let lse = Tensor::from_vec(lse, (batch, seq, n_heads), inputs.q.device())?;
    Ok(AttentionOutputs { out: tensor_like(out, &inputs.q)?, lse })
}

pub(crate) fn attention_backward(
    inputs: &AttentionInputs,
    scores: &Scores,
    outputs: &AttentionOutputs,
    d_out: &Tensor,
) -> Result<Tensor> {
    let (batch, seq, n_heads, head_dim) = inputs.q.dims4()?;
    let heads = n_heads + 2 * inputs.k.dims()[2];
    let mut d_qkv = vec![0f32; batch * seq * heads * head_dim];
    let (out, lse, d_out) = (host_slice(&outputs.out)?, host_slice(&outputs.lse)?, host_slice(d_out)?);
    with_heads(inputs, |qkv| {
        let saved = Saved { out: &out, lse: &lse, d_out: &d_out };
        kernel::backward(&shape(inputs, scores)?, qkv, &saved, &mut d_qkv);
        Ok(())
    })?;
    Ok(Tensor::from_vec(d_qkv, (batch, seq, heads, head_dim), inputs.q.device())?)
}

/// Runs `body` on queries, keys and values as kernels take them.
fn with_heads(inputs: &AttentionInputs, body: impl FnOnce([Heads<'_>; 3]) -> Result<()>) -> Result<()> {
    let tensors = [&inputs.q, &inputs.k, &inputs.v];
    let slices = [strided_slice(tensors[0])?, strided_slice(tensors[1])?, strided_slice(tensors[2])?];
    body(std::array::from_fn(|at| {
        let stride = tensors[at].stride();
        Heads { data: &slices[at], batch_stride: stride[0], row_stride: stride[1] }
    }))
}

fn shape<'a>(inputs: &'a AttentionInputs, scores: &'a Scores) -> Result<kernel::Shape<'a>> {
    let (batch, seq, n_heads, head_dim) = inputs.q.dims4()?;
    Ok(kernel::Shape {
        batch,
        seq,
        n_heads,
        kv_n_heads: inputs.k.dims()[2],
        head_dim,
        scale: scores.scale as f32,
        cap: scores.cap.map(|cap| cap as f32),
        slopes: &scores.slopes,
        precision: scores.precision,
        first_key: inputs.first_key.as_deref(),
        dropout: inputs.dropout,
    })
}
