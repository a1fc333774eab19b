//! CPU backend: tensors as slices, passed to kernels, one file an op.

mod activation;
mod attention;
mod bias;
mod clip;
mod cross_entropy;
mod dropout;
mod elementwise;
mod embedding;
mod linear;
mod norm;
mod optimizer;
mod paged_attention;
mod rotate;
mod skinny;
mod soft_cap;

use candle_core::Tensor;

use super::arguments::{
    AttentionInputs, AttentionOutputs, CrossEntropyInputs, LossAndGrads, NeedsGrad, NormParams, ScoreParams,
};
use super::backend::Backend;
use crate::batch::Batch;
use crate::cache::KvPool;
use crate::config::Activation;
use crate::dtype::Precision;
use crate::error::Result;
use crate::kernels::cpu::optim::{AdamWStep, LionStep};
use crate::parameter::Parameter;
use crate::rng::Dropout;

/// The CPU backend.
pub(super) struct Cpu;

impl Backend for Cpu {
    fn linear(&self, x: &Tensor, weight: &Parameter, precision: Precision) -> Result<Tensor> {
        linear::linear(x, weight, precision)
    }

    fn linear_backward(&self, dy: &Tensor, weight: &Parameter, precision: Precision) -> Result<Tensor> {
        linear::linear_backward(dy, weight, precision)
    }

    fn weight_gradient(&self, dy: &Tensor, x: &Tensor, precision: Precision) -> Result<Tensor> {
        linear::weight_gradient(dy, x, precision)
    }

    fn skinny_linear(&self, x: &Tensor, w: &Tensor) -> Result<Tensor> {
        skinny::skinny_linear(x, w)
    }

    fn skinny_linear_add(&self, y: &Tensor, a: &Tensor, w: &Tensor) -> Result<()> {
        skinny::skinny_linear_add(y, a, w)
    }

    fn skinny_gradient(&self, a: &Tensor, x: &Tensor) -> Result<Tensor> {
        skinny::skinny_gradient(a, x)
    }

    fn add_bias(&self, y: &Tensor, bias: &Tensor) -> Result<()> {
        bias::add_bias(y, bias)
    }

    fn column_sum(&self, dy: &Tensor) -> Result<Tensor> {
        bias::column_sum(dy)
    }

    fn norm(&self, x: &Tensor, weights: NormParams<'_>) -> Result<Tensor> {
        norm::norm(x, weights)
    }

    fn norm_backward(&self, x: &Tensor, weights: NormParams<'_>, dy: &Tensor) -> Result<(Tensor, Tensor)> {
        norm::norm_backward(x, weights, dy)
    }

    fn activation(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        activation::activation(x, activation)
    }

    fn activation_backward(&self, x: &Tensor, activation: Activation, dy: &Tensor) -> Result<()> {
        activation::activation_backward(x, activation, dy)
    }

    fn multiply(&self, product: &Tensor, by: &Tensor) -> Result<()> {
        activation::multiply(product, by)
    }

    fn add(&self, sum: &Tensor, x: &Tensor) -> Result<()> {
        elementwise::add(sum, x)
    }

    fn scale(&self, x: &Tensor, factor: f64) -> Result<()> {
        elementwise::scale(x, factor)
    }

    fn attention(&self, inputs: &AttentionInputs, scores: &ScoreParams) -> Result<AttentionOutputs> {
        attention::attention(inputs, scores)
    }

    fn attention_backward(
        &self,
        inputs: &AttentionInputs,
        scores: &ScoreParams,
        outputs: &AttentionOutputs,
        d_out: &Tensor,
    ) -> Result<Tensor> {
        attention::attention_backward(inputs, scores, outputs, d_out)
    }

    fn append_kv(&self, pool: &mut KvPool, layer: usize, batch: &Batch, kv: [&Tensor; 2]) -> Result<()> {
        paged_attention::append_kv(pool, layer, batch, kv)
    }

    fn paged_attention(
        &self,
        q: &Tensor,
        pool: &KvPool,
        layer: usize,
        batch: &Batch,
        scores: &ScoreParams,
        window: Option<usize>,
    ) -> Result<Tensor> {
        paged_attention::paged_attention(q, pool, layer, batch, scores, window)
    }

    fn rotate(&self, x: &Tensor, angles: &[f32], direction: f32) -> Result<Tensor> {
        rotate::rotate(x, angles, direction)
    }

    fn clip(&self, x: &Tensor, bound: f64) -> Result<Vec<u64>> {
        clip::clip(x, bound)
    }

    fn clip_backward(&self, dy: &Tensor, kept: &[u64]) -> Result<()> {
        clip::clip_backward(dy, kept)
    }

    fn soft_cap(&self, x: &Tensor, cap: f64) -> Result<()> {
        soft_cap::soft_cap(x, cap)
    }

    fn dropout(&self, x: &Tensor, dropout: Dropout) -> Result<()> {
        dropout::dropout(x, dropout)
    }

    fn embedding(&self, table: &Parameter, ids: &[u32]) -> Result<Tensor> {
        embedding::embedding(table, ids)
    }

    fn embedding_backward(&self, d_table: &Tensor, ids: &[u32], d_rows: &Tensor) -> Result<()> {
        embedding::embedding_backward(d_table, ids, d_rows)
    }

    fn cross_entropy(&self, inputs: CrossEntropyInputs<'_>, needs: NeedsGrad) -> Result<LossAndGrads> {
        cross_entropy::cross_entropy(inputs, needs)
    }

    fn lion_step(&self, param: &Tensor, momentum: &Tensor, grad: &Tensor, step: &LionStep) -> Result<()> {
        optimizer::lion_step(param, momentum, grad, step)
    }

    fn adamw_step(
        &self,
        param: &Tensor,
        moments: [&Tensor; 2],
        grad: &Tensor,
        step: &AdamWStep,
    ) -> Result<()> {
        optimizer::adamw_step(param, moments, grad, step)
    }

    fn square_norm(&self, tensor: &Tensor) -> Result<f64> {
        optimizer::square_norm(tensor)
    }

    fn overwrite(&self, param: &Tensor, values: &Tensor) -> Result<()> {
        optimizer::overwrite(param, values)
    }
}
