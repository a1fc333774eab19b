//! CPU attention.

use candle_core::Tensor;

use crate::error::Result;
use crate::host::{host_slice, host_slice_strided, tensor_like};
use crate::kernels::cpu::attention::{self as kernel, BackwardInputs, HeadsView};
use crate::ops::arguments::{AttentionInputs, AttentionOutputs, ScoreParams};

pub(crate) fn attention(inputs: &AttentionInputs, scores: &ScoreParams) -> Result<AttentionOutputs> {
    let (batch, seq, n_heads, head_dim) = inputs.q.dims4()?;
    let mut lse = vec![0f32; batch * seq * n_heads];
    let mut out = vec![0f32; lse.len() * head_dim];
    with_heads(inputs, |qkv| {
        kernel::forward(&args(inputs, scores)?, qkv, &mut out, &mut lse);
        Ok(())
    })?;
    let lse = Tensor::from_vec(lse, (batch, seq, n_heads), inputs.q.device())?;
    Ok(AttentionOutputs { out: tensor_like(out, &inputs.q)?, lse })
}

pub(crate) fn attention_backward(
    inputs: &AttentionInputs,
    scores: &ScoreParams,
    outputs: &AttentionOutputs,
    d_out: &Tensor,
) -> Result<Tensor> {
    let (batch, seq, n_heads, head_dim) = inputs.q.dims4()?;
    let heads = n_heads + 2 * inputs.k.dims()[2];
    let mut d_qkv = vec![0f32; batch * seq * heads * head_dim];
    let (out, lse, d_out) = (host_slice(&outputs.out)?, host_slice(&outputs.lse)?, host_slice(d_out)?);
    with_heads(inputs, |qkv| {
        let backward_inputs = BackwardInputs { out: &out, lse: &lse, d_out: &d_out };
        kernel::backward(&args(inputs, scores)?, qkv, &backward_inputs, &mut d_qkv);
        Ok(())
    })?;
    Ok(Tensor::from_vec(d_qkv, (batch, seq, heads, head_dim), inputs.q.device())?)
}

/// Runs `body` on views of queries, keys and values.
fn with_heads(inputs: &AttentionInputs, body: impl FnOnce([HeadsView<'_>; 3]) -> Result<()>) -> Result<()> {
    let tensors = [&inputs.q, &inputs.k, &inputs.v];
    let slices =
        [host_slice_strided(tensors[0])?, host_slice_strided(tensors[1])?, host_slice_strided(tensors[2])?];
    body(std::array::from_fn(|at| {
        let stride = tensors[at].stride();
        HeadsView { data: &slices[at], batch_stride: stride[0], row_stride: stride[1] }
    }))
}

/// Arguments of the kernel.
fn args<'a>(inputs: &'a AttentionInputs, scores: &'a ScoreParams) -> Result<kernel::AttentionArgs<'a>> {
    let (batch, seq, n_heads, head_dim) = inputs.q.dims4()?;
    Ok(kernel::AttentionArgs {
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
