//! What a device must be able to do.
//!
//! [`Backend`] is the whole list. Methods are given tensors of one device whose shapes were checked and which are
//! contiguous f32, except where a method says otherwise; in-place methods own what they change.

use candle_core::{Device, Tensor};

use super::attention::{AttentionInputs, AttentionOutputs, Scores};
use super::cross_entropy::{CrossEntropy, HeadGradients, WantedGradients};
use super::norm::NormWeights;
use super::optimizer::{AdamWStep, LionStep};
use super::{
    Precision, activation, attention, bias, clip, cross_entropy, dropout, elementwise, embedding, linear, norm,
    optimizer, rotate, soft_cap,
};
use crate::config::Activation;
use crate::error::{Error, Result};
use crate::parameter::Parameter;
use crate::rng::Dropout;

/// The operations of one kind of device. Each is stated at the function of its name in [`ops`](super).
#[expect(missing_docs, reason = "each method is documented at the function of its name")]
pub trait Backend: Sync {
    fn linear(&self, x: &Tensor, weight: &Parameter, precision: Precision) -> Result<Tensor>;
    fn linear_add(&self, y: &Tensor, x: &Tensor, weight: &Tensor, precision: Precision) -> Result<()>;
    fn linear_backward(&self, dy: &Tensor, weight: &Parameter, precision: Precision) -> Result<Tensor>;
    fn weight_gradient(&self, dy: &Tensor, x: &Tensor, precision: Precision) -> Result<Tensor>;
    fn add_bias(&self, y: &Tensor, bias: &Tensor) -> Result<()>;
    fn column_sum(&self, dy: &Tensor) -> Result<Tensor>;
    fn norm(&self, x: &Tensor, weights: NormWeights<'_>) -> Result<Tensor>;
    fn norm_backward(&self, x: &Tensor, weights: NormWeights<'_>, dy: &Tensor) -> Result<(Tensor, Tensor)>;
    fn activation(&self, x: &Tensor, activation: Activation) -> Result<Tensor>;
    fn activation_backward(&self, x: &Tensor, activation: Activation, dy: &Tensor) -> Result<()>;
    fn multiply(&self, product: &Tensor, by: &Tensor) -> Result<()>;
    fn add(&self, sum: &Tensor, x: &Tensor) -> Result<()>;
    fn scale(&self, x: &Tensor, factor: f64) -> Result<()>;
    /// Inputs may be views in which each position's heads lie side by side.
    fn attention(&self, inputs: &AttentionInputs, scores: &Scores) -> Result<AttentionOutputs>;
    /// Inputs as in [`Backend::attention`].
    fn attention_backward(
        &self,
        inputs: &AttentionInputs,
        scores: &Scores,
        outputs: &AttentionOutputs,
        d_out: &Tensor,
    ) -> Result<Tensor>;
    fn rotate(&self, x: &Tensor, angles: &[f32], direction: f32) -> Result<Tensor>;
    /// One bit a value, 1 where it was kept.
    fn clip(&self, x: &Tensor, bound: f64) -> Result<Vec<u64>>;
    fn clip_backward(&self, dy: &Tensor, kept: &[u64]) -> Result<()>;
    fn soft_cap(&self, x: &Tensor, cap: f64) -> Result<()>;
    fn dropout(&self, x: &Tensor, dropout: Dropout) -> Result<()>;
    fn embedding(&self, table: &Parameter, ids: &[u32]) -> Result<Tensor>;
    fn embedding_backward(&self, d_table: &Tensor, ids: &[u32], d_rows: &Tensor) -> Result<()>;
    fn cross_entropy(&self, inputs: CrossEntropy<'_>, wanted: WantedGradients) -> Result<HeadGradients>;
    fn lion_step(&self, param: &Tensor, momentum: &Tensor, grad: &Tensor, step: &LionStep) -> Result<()>;
    fn adamw_step(&self, param: &Tensor, moments: [&Tensor; 2], grad: &Tensor, step: &AdamWStep) -> Result<()>;
    fn square_norm(&self, tensor: &Tensor) -> Result<f64>;
    fn overwrite(&self, param: &Tensor, values: &Tensor) -> Result<()>;
}

/// The backend of the device that `tensor` is on.
pub(super) fn of(tensor: &Tensor) -> Result<&'static dyn Backend> {
    backend(tensor.device())
}

/// The backend of the device that a parameter is on; stored values are in main memory.
pub(super) fn of_parameter(parameter: &Parameter) -> Result<&'static dyn Backend> {
    match parameter {
        Parameter::Tensor(tensor) => of(tensor),
        Parameter::Stored(_) => Ok(&Cpu),
    }
}

/// Whether this build can compute on `device`.
///
/// # Errors
/// [`Error::Device`] naming the device when it cannot.
pub fn check_device(device: &Device) -> Result<()> {
    backend(device).map(|_| ())
}

fn backend(device: &Device) -> Result<&'static dyn Backend> {
    match device {
        Device::Cpu => Ok(&Cpu),
        other => Err(Error::Device { device: format!("{:?}", other.location()) }),
    }
}

/// The processor.
struct Cpu;

impl Backend for Cpu {
    fn linear(&self, x: &Tensor, weight: &Parameter, precision: Precision) -> Result<Tensor> {
        linear::cpu::linear(x, weight, precision)
    }

    fn linear_add(&self, y: &Tensor, x: &Tensor, weight: &Tensor, precision: Precision) -> Result<()> {
        linear::cpu::linear_add(y, x, weight, precision)
    }

    fn linear_backward(&self, dy: &Tensor, weight: &Parameter, precision: Precision) -> Result<Tensor> {
        linear::cpu::linear_backward(dy, weight, precision)
    }

    fn weight_gradient(&self, dy: &Tensor, x: &Tensor, precision: Precision) -> Result<Tensor> {
        linear::cpu::weight_gradient(dy, x, precision)
    }

    fn add_bias(&self, y: &Tensor, bias: &Tensor) -> Result<()> {
        bias::cpu::add_bias(y, bias)
    }

    fn column_sum(&self, dy: &Tensor) -> Result<Tensor> {
        bias::cpu::column_sum(dy)
    }

    fn norm(&self, x: &Tensor, weights: NormWeights<'_>) -> Result<Tensor> {
        norm::cpu::norm(x, weights)
    }

    fn norm_backward(&self, x: &Tensor, weights: NormWeights<'_>, dy: &Tensor) -> Result<(Tensor, Tensor)> {
        norm::cpu::norm_backward(x, weights, dy)
    }

    fn activation(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        activation::cpu::activation(x, activation)
    }

    fn activation_backward(&self, x: &Tensor, activation: Activation, dy: &Tensor) -> Result<()> {
        activation::cpu::activation_backward(x, activation, dy)
    }

    fn multiply(&self, product: &Tensor, by: &Tensor) -> Result<()> {
        activation::cpu::multiply(product, by)
    }

    fn add(&self, sum: &Tensor, x: &Tensor) -> Result<()> {
        elementwise::cpu::add(sum, x)
    }

    fn scale(&self, x: &Tensor, factor: f64) -> Result<()> {
        elementwise::cpu::scale(x, factor)
    }

    fn attention(&self, inputs: &AttentionInputs, scores: &Scores) -> Result<AttentionOutputs> {
        attention::cpu::attention(inputs, scores)
    }

    fn attention_backward(&self, inputs: &AttentionInputs, scores: &Scores, outputs: &AttentionOutputs, d_out: &Tensor) -> Result<Tensor> {
        attention::cpu::attention_backward(inputs, scores, outputs, d_out)
    }

    fn rotate(&self, x: &Tensor, angles: &[f32], direction: f32) -> Result<Tensor> {
        rotate::cpu::rotate(x, angles, direction)
    }

    fn clip(&self, x: &Tensor, bound: f64) -> Result<Vec<u64>> {
        clip::cpu::clip(x, bound)
    }

    fn clip_backward(&self, dy: &Tensor, kept: &[u64]) -> Result<()> {
        clip::cpu::clip_backward(dy, kept)
    }

    fn soft_cap(&self, x: &Tensor, cap: f64) -> Result<()> {
        soft_cap::cpu::soft_cap(x, cap)
    }

    fn dropout(&self, x: &Tensor, dropout: Dropout) -> Result<()> {
        dropout::cpu::dropout(x, dropout)
    }

    fn embedding(&self, table: &Parameter, ids: &[u32]) -> Result<Tensor> {
        embedding::cpu::embedding(table, ids)
    }

    fn embedding_backward(&self, d_table: &Tensor, ids: &[u32], d_rows: &Tensor) -> Result<()> {
        embedding::cpu::embedding_backward(d_table, ids, d_rows)
    }

    fn cross_entropy(&self, inputs: CrossEntropy<'_>, wanted: WantedGradients) -> Result<HeadGradients> {
        cross_entropy::cpu::cross_entropy(inputs, wanted)
    }

    fn lion_step(&self, param: &Tensor, momentum: &Tensor, grad: &Tensor, step: &LionStep) -> Result<()> {
        optimizer::cpu::lion_step(param, momentum, grad, step)
    }

    fn adamw_step(&self, param: &Tensor, moments: [&Tensor; 2], grad: &Tensor, step: &AdamWStep) -> Result<()> {
        optimizer::cpu::adamw_step(param, moments, grad, step)
    }

    fn square_norm(&self, tensor: &Tensor) -> Result<f64> {
        optimizer::cpu::square_norm(tensor)
    }

    fn overwrite(&self, param: &Tensor, values: &Tensor) -> Result<()> {
        optimizer::cpu::overwrite(param, values)
    }
}
