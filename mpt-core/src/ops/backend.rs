//! The operations of a device: [`Backend`] is the complete list.
//!
//! Methods receive tensors of one device, contiguous and f32 unless a method says otherwise, with checked shapes. In-place methods
//! own the tensors they change.

use candle_core::Tensor;

use super::arguments::{
    AttentionInputs, AttentionOutputs, CrossEntropyInputs, LossAndGrads, NeedsGrad, NormParams, ScoreParams,
};
use crate::batch::Batch;
use crate::cache::KvPool;
use crate::config::Activation;
use crate::dtype::Precision;
use crate::error::Result;
use crate::kernels::cpu::optim::{AdamWStep, LionStep};
use crate::parameter::Parameter;
use crate::rng::Dropout;

/// Operations of one kind of device, each documented at the function of its name in [`ops`](super).
#[expect(missing_docs, reason = "each method is documented at the function of its name")]
pub trait Backend: Sync {
    fn linear(&self, x: &Tensor, weight: &Parameter, precision: Precision) -> Result<Tensor>;
    fn linear_backward(&self, dy: &Tensor, weight: &Parameter, precision: Precision) -> Result<Tensor>;
    fn weight_gradient(&self, dy: &Tensor, x: &Tensor, precision: Precision) -> Result<Tensor>;
    fn skinny_linear(&self, x: &Tensor, w: &Tensor) -> Result<Tensor>;
    fn skinny_linear_add(&self, y: &Tensor, a: &Tensor, w: &Tensor) -> Result<()>;
    fn skinny_gradient(&self, a: &Tensor, x: &Tensor) -> Result<Tensor>;
    fn add_bias(&self, y: &Tensor, bias: &Tensor) -> Result<()>;
    fn column_sum(&self, dy: &Tensor) -> Result<Tensor>;
    fn norm(&self, x: &Tensor, weights: NormParams<'_>) -> Result<Tensor>;
    fn norm_backward(&self, x: &Tensor, weights: NormParams<'_>, dy: &Tensor) -> Result<(Tensor, Tensor)>;
    fn activation(&self, x: &Tensor, activation: Activation) -> Result<Tensor>;
    fn activation_backward(&self, x: &Tensor, activation: Activation, dy: &Tensor) -> Result<()>;
    fn multiply(&self, product: &Tensor, by: &Tensor) -> Result<()>;
    fn add(&self, sum: &Tensor, x: &Tensor) -> Result<()>;
    fn scale(&self, x: &Tensor, factor: f64) -> Result<()>;
    /// Inputs may be views with the heads of a position side by side.
    fn attention(&self, inputs: &AttentionInputs, scores: &ScoreParams) -> Result<AttentionOutputs>;
    /// Inputs as in [`Backend::attention`].
    fn attention_backward(
        &self,
        inputs: &AttentionInputs,
        scores: &ScoreParams,
        outputs: &AttentionOutputs,
        d_out: &Tensor,
    ) -> Result<Tensor>;
    fn append_kv(&self, pool: &mut KvPool, layer: usize, batch: &Batch, kv: [&Tensor; 2]) -> Result<()>;
    fn paged_attention(
        &self,
        q: &Tensor,
        pool: &KvPool,
        layer: usize,
        batch: &Batch,
        scores: &ScoreParams,
        window: Option<usize>,
    ) -> Result<Tensor>;
    fn rotate(&self, x: &Tensor, angles: &[f32], direction: f32) -> Result<Tensor>;
    /// Mask with one bit a value, 1 for values within the bound.
    fn clip(&self, x: &Tensor, bound: f64) -> Result<Vec<u64>>;
    fn clip_backward(&self, dy: &Tensor, kept: &[u64]) -> Result<()>;
    fn soft_cap(&self, x: &Tensor, cap: f64) -> Result<()>;
    fn dropout(&self, x: &Tensor, dropout: Dropout) -> Result<()>;
    fn embedding(&self, table: &Parameter, ids: &[u32]) -> Result<Tensor>;
    fn embedding_backward(&self, d_table: &Tensor, ids: &[u32], d_rows: &Tensor) -> Result<()>;
    fn cross_entropy(&self, inputs: CrossEntropyInputs<'_>, needs: NeedsGrad) -> Result<LossAndGrads>;
    fn lion_step(&self, param: &Tensor, momentum: &Tensor, grad: &Tensor, step: &LionStep) -> Result<()>;
    fn adamw_step(
        &self,
        param: &Tensor,
        moments: [&Tensor; 2],
        grad: &Tensor,
        step: &AdamWStep,
    ) -> Result<()>;
    fn square_norm(&self, tensor: &Tensor) -> Result<f64>;
    fn overwrite(&self, param: &Tensor, values: &Tensor) -> Result<()>;
}
