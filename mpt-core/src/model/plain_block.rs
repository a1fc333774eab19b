//! A block's forward and backward pass by hand, for training.
//!
//! Most MPT blocks are the same seven steps: norm, one projection to queries, keys and values, attention, projection, norm,
//! feed-forward up and down, with no biases, norms or rotations in between. For these an autograd graph is a detour: it
//! keeps every intermediate, and adds every gradient to zeros. Here a pass keeps five of them, computes the others again,
//! and passes each gradient on as it is. [`Block::forward`] is the reference, and serves all other blocks.

use std::sync::Arc;

use candle_core::Tensor;

use super::{Block, Projection};
use crate::bias::AttnMask;
use crate::config::Activation;
use crate::error::Result;
use crate::kernels::cpu::activation;
use crate::kernels::cpu::attention::{self, Heads, Saved};
use crate::kernels::cpu::blocks::{add_into, map_blocks};
use crate::kernels::cpu::norm::NormKind;
use crate::ops::attention::kernel_shape;
use crate::ops::{Products, Scores, host_slice, linear, norm};

/// A block that is a plain one, as views of its parts.
#[derive(Clone, Copy, Debug)]
pub struct PlainBlock<'a> {
    norm_1: (NormKind, &'a Tensor, f32),
    wqkv: &'a Tensor,
    out_proj: &'a Tensor,
    norm_2: (NormKind, &'a Tensor, f32),
    up_proj: &'a Tensor,
    down_proj: &'a Tensor,
    activation: Activation,
    scores: &'a Scores,
    window: Option<usize>,
    n_heads: usize,
    kv_n_heads: usize,
    head_dim: usize,
}

/// What a forward pass leaves for the backward pass; b batch, s seq, d d_model, h n_heads, g kv_n_heads, e head_dim.
#[derive(Debug)]
pub struct BlockPass {
    /// `[b, s, d]`
    input: Tensor,
    /// `[b, s, (h + 2 g) e]`
    qkv: Vec<f32>,
    /// `[b, s, h e]`
    attended: Vec<f32>,
    /// Logarithms of the softmax denominators, `[b, s, h]`.
    lse: Vec<f32>,
    /// The residual stream between attention and feed-forward, `[b, s, d]`.
    middle: Vec<f32>,
    /// Before the activation, `[b, s, ffn_hidden_size]`.
    up: Vec<f32>,
    first_key: Option<Arc<[u32]>>,
}

/// What a backward pass gives.
#[derive(Debug)]
pub struct BlockGradients {
    /// Of the input, `[b, s, d]`.
    pub input: Tensor,
    /// Of each parameter, by its name below the block, in the parameter's shape.
    pub parameters: [(&'static str, Tensor); 6],
}

impl Block {
    /// This block, where it is a plain one.
    pub fn plain(&self) -> Option<PlainBlock<'_>> {
        let attn = &self.attn;
        let Projection::Fused(wqkv) = &attn.projection else { return None };
        let bare = attn.qk_norms.is_none() && attn.clip_qkv.is_none() && attn.rope.is_none();
        if !bare || self.ffn.gate_proj.is_some() {
            return None;
        }
        Some(PlainBlock {
            norm_1: self.norm_1.plain()?,
            wqkv: wqkv.plain()?,
            out_proj: attn.out_proj.plain()?,
            norm_2: self.norm_2.plain()?,
            up_proj: self.ffn.up_proj.plain()?,
            down_proj: self.ffn.down_proj.plain()?,
            activation: self.ffn.activation,
            scores: &attn.scores,
            window: attn.window,
            n_heads: attn.n_heads,
            kv_n_heads: attn.kv_n_heads,
            head_dim: attn.head_dim,
        })
    }
}

impl PlainBlock<'_> {
    /// `x` `[b, s, d]` to `[b, s, d]`, and what the backward pass needs.
    ///
    /// # Errors
    /// When `x` is not contiguous f32 on the CPU or its shape is not that of `mask`.
    pub fn forward(&self, x: &Tensor, mask: &AttnMask) -> Result<(Tensor, BlockPass)> {
        let input = x.contiguous()?;
        let start = vec![0; mask.dims().0];
        let first_key = mask.first_keys(self.window, &start);
        let x_data = host_slice(&input)?;
        let qkv = product(&normed(self.norm_1, &x_data)?, self.wqkv, self.products())?;
        let (attended, lse) = self.attend(&qkv, mask, first_key.as_deref());
        let mut middle = product(&attended, self.out_proj, self.products())?;
        add_into(&mut middle, &x_data);
        let up = product(&normed(self.norm_2, &middle)?, self.up_proj, self.products())?;
        let mut y = product(&self.activated(&up), self.down_proj, self.products())?;
        add_into(&mut y, &middle);
        drop(x_data);
        let y = Tensor::from_vec(y, input.shape(), input.device())?;
        Ok((y, BlockPass { input, qkv, attended, lse, middle, up, first_key }))
    }

    /// The gradients, given that of the output, `dy` `[b, s, d]`.
    ///
    /// # Errors
    /// When `dy` is not f32 on the CPU.
    pub fn backward(&self, pass: BlockPass, dy: &Tensor) -> Result<BlockGradients> {
        let BlockPass { input, qkv, attended, lse, middle, mut up, first_key } = pass;
        let (batch, seq, _) = input.dims3()?;
        let products = self.products();
        let dy = dy.contiguous()?;
        let dy = host_slice(&dy)?;

        let d_down = weight_gradient(&dy, &self.activated(&up), self.down_proj, products)?;
        let d_activated = input_gradient(&dy, self.down_proj, products)?;
        activation::backward_pooled(self.activation, &d_activated, &mut up);
        let (d_up, d_up_proj) =
            (&up, weight_gradient(&up, &normed(self.norm_2, &middle)?, self.up_proj, products)?);
        let d_normed = input_gradient(d_up, self.up_proj, products)?;
        let (mut d_middle, d_norm_2) = norm_gradients(self.norm_2, &middle, &d_normed)?;
        add_into(&mut d_middle, &dy);

        let d_out_proj = weight_gradient(&d_middle, &attended, self.out_proj, products)?;
        let d_attended = input_gradient(&d_middle, self.out_proj, products)?;
        let mut d_qkv = vec![0f32; qkv.len()];
        let start = vec![0; batch];
        let saved = Saved { out: &attended, lse: &lse, d_out: &d_attended };
        let shape = self.shape(seq, &start, first_key.as_deref());
        attention::backward(&shape, self.heads(&qkv, seq), &saved, &mut d_qkv);
        let x = host_slice(&input)?;
        let d_wqkv = weight_gradient(&d_qkv, &normed(self.norm_1, &x)?, self.wqkv, products)?;
        let d_normed = input_gradient(&d_qkv, self.wqkv, products)?;
        let (mut dx, d_norm_1) = norm_gradients(self.norm_1, &x, &d_normed)?;
        add_into(&mut dx, &d_middle);

        Ok(BlockGradients {
            input: Tensor::from_vec(dx, input.shape(), input.device())?,
            parameters: [
                ("norm_1.weight", d_norm_1),
                ("attn.Wqkv.weight", d_wqkv),
                ("attn.out_proj.weight", d_out_proj),
                ("norm_2.weight", d_norm_2),
                ("ffn.up_proj.weight", d_up_proj),
                ("ffn.down_proj.weight", d_down),
            ],
        })
    }

    fn products(&self) -> Products {
        self.scores.products
    }

    fn activated(&self, up: &[f32]) -> Vec<f32> {
        map_blocks(up, |_, block| activation::forward(self.activation, block))
    }

    /// The attention output `[b, s, h e]` and the logarithms of its softmax denominators `[b, s, h]`.
    fn attend(&self, qkv: &[f32], mask: &AttnMask, first_key: Option<&[u32]>) -> (Vec<f32>, Vec<f32>) {
        let (batch, seq) = mask.dims();
        let mut lse = vec![0f32; batch * seq * self.n_heads];
        let mut out = vec![0f32; lse.len() * self.head_dim];
        let start = vec![0; batch];
        let [q, k, v] = self.heads(qkv, seq);
        attention::forward(&self.shape(seq, &start, first_key), q, [k, v], &mut out, &mut lse);
        (out, lse)
    }

    fn shape<'s>(
        &'s self,
        seq: usize,
        start: &'s [usize],
        first_key: Option<&'s [u32]>,
    ) -> attention::Shape<'s> {
        kernel_shape([seq, self.n_heads, self.kv_n_heads, self.head_dim], self.scores, start, first_key)
    }

    /// Queries, keys and values inside one projection.
    fn heads<'s>(&self, qkv: &'s [f32], seq: usize) -> [Heads<'s>; 3] {
        let row_stride = (self.n_heads + 2 * self.kv_n_heads) * self.head_dim;
        let from = |head: usize| Heads {
            data: &qkv[head * self.head_dim..],
            batch_stride: seq * row_stride,
            row_stride,
        };
        [from(0), from(self.n_heads), from(self.n_heads + self.kv_n_heads)]
    }
}

/// Rows of `x`, and what `weight` takes and gives for each.
fn dims(len: usize, weight: &Tensor, of_input: bool) -> Result<[usize; 3]> {
    let (d_out, d_in) = weight.dims2()?;
    Ok([len / if of_input { d_in } else { d_out }, d_in, d_out])
}

fn product(x: &[f32], weight: &Tensor, products: Products) -> Result<Vec<f32>> {
    Ok(linear::forward(x, &host_slice(weight)?, dims(x.len(), weight, true)?, products))
}

fn input_gradient(dy: &[f32], weight: &Tensor, products: Products) -> Result<Vec<f32>> {
    Ok(linear::input_gradient(dy, &host_slice(weight)?, dims(dy.len(), weight, false)?, products))
}

fn weight_gradient(dy: &[f32], x: &[f32], weight: &Tensor, products: Products) -> Result<Tensor> {
    let gradient = linear::weight_gradient(dy, x, dims(dy.len(), weight, false)?, products);
    Ok(Tensor::from_vec(gradient, weight.shape(), weight.device())?)
}

fn normed((kind, weight, eps): (NormKind, &Tensor, f32), x: &[f32]) -> Result<Vec<f32>> {
    Ok(norm::forward(kind, x, &host_slice(weight)?, eps))
}

/// The gradients of the input and the weight of a norm.
fn norm_gradients(
    (kind, weight, eps): (NormKind, &Tensor, f32),
    x: &[f32],
    dy: &[f32],
) -> Result<(Vec<f32>, Tensor)> {
    let (dx, d_weight) = norm::backward(kind, x, &host_slice(weight)?, eps, dy);
    Ok((dx, Tensor::from_vec(d_weight, weight.shape(), weight.device())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, random, tiny_model};
    use crate::{CausalLm, Params};

    fn compare(config: &crate::MptConfig, params: &Params, mask: &AttnMask) {
        let model = CausalLm::new(config, params).unwrap();
        let block = &model.blocks()[1];
        let (b, s) = mask.dims();
        let x = candle_core::Var::from_tensor(&random(&[b, s, config.d_model], 1)).unwrap();
        let dy = random(&[b, s, config.d_model], 2);
        let reference = block.forward(&x, mask, None).unwrap();
        let graph = (&reference * &dy).unwrap().sum_all().unwrap().backward().unwrap();
        let plain = block.plain().unwrap();
        let (y, pass) = plain.forward(&x, mask).unwrap();
        let found = plain.backward(pass, &dy).unwrap();
        assert_close(&y, &reference, 1e-5);
        assert_close(&found.input, graph.get(&x).unwrap(), 1e-4);
        for (name, gradient) in &found.parameters {
            let full = format!("transformer.blocks.1.{name}");
            let (_, var) = params.iter().find(|(name, _)| *name == full).unwrap();
            assert_close(gradient, graph.get(var).unwrap(), 1e-4);
        }
    }

    #[test]
    fn passes_agree_with_the_graph() {
        let (config, params) = tiny_model(3);
        compare(&config, &params, &AttnMask::causal(2, 9));
        compare(&config, &params, &AttnMask::documents(&[0, 0, 0, 1, 1, 2, 2], 1, 7).unwrap());
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_graph() {
        let (mut config, params) = tiny_model(3);
        config.attn_config.clip_qkv = Some(1.0);
        let model = CausalLm::new(&config, &params).unwrap();
        assert!(model.blocks()[0].plain().is_none());
    }
}
