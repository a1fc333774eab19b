//! Plain reference model in f64, from the definitions with elementary tensor ops: full tables of scores, masks and biases.
//!
//! It shares configuration and parameter names with the crate, but no computation. In f64 its own rounding is negligible.

mod attention;
mod batch;
mod layers;

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{D, DType, Device, Result, Tensor, Var};
use mpt_core::{IGNORE_LABEL, MptConfig};

pub(crate) use batch::{Batch, View};
use layers::soft_cap;

/// Reference model: configuration and f64 parameters.
pub(crate) struct Reference<'a> {
    config: &'a MptConfig,
    vars: BTreeMap<String, Var>,
}

impl<'a> Reference<'a> {
    /// Copies parameters by their checkpoint names.
    pub(crate) fn new<'t>(
        config: &'a MptConfig,
        parameters: impl Iterator<Item = (&'t str, &'t Tensor)>,
    ) -> Result<Self> {
        let widened = |(name, tensor): (&str, &Tensor)| {
            Ok((name.to_owned(), Var::from_tensor(&tensor.to_dtype(DType::F64)?)?))
        };
        Ok(Self { config, vars: parameters.map(widened).collect::<Result<_>>()? })
    }

    /// Logits `[b, s, v]`.
    pub(crate) fn logits(&self, batch: &Batch) -> Result<Tensor> {
        let (b, s) = batch.dims();
        let mut x = self.embed(batch)?;
        for layer in 0..self.config.n_layers {
            let place = format!("transformer.blocks.{layer}");
            let normed = self.norm(&format!("{place}.norm_1"), &x)?;
            x = (x + self.attention(&format!("{place}.attn"), &normed, batch)?)?;
            let normed = self.norm(&format!("{place}.norm_2"), &x)?;
            x = (x + self.ffn(&format!("{place}.ffn"), &normed)?)?;
        }
        let x = self.norm("transformer.norm_f", &x)?.reshape((b * s, self.config.d_model))?;
        let head = match self.config.tie_word_embeddings {
            true => self.parameter("transformer.wte.weight"),
            false => self.parameter("lm_head.weight"),
        };
        let logits = (x.matmul(&head.t()?)? * self.config.logit_scale.unwrap_or(1.0))?;
        let logits = match self.config.final_logit_softcapping {
            Some(cap) => soft_cap(&logits, cap)?,
            None => logits,
        };
        logits.reshape((b, s, self.config.vocab_size))
    }

    /// Cross-entropy of logits `[b, s, v]`, summed over the labels that are not ignored.
    pub(crate) fn loss_sum(&self, logits: &Tensor, labels: &[u32]) -> Result<Tensor> {
        let logits = logits.flatten_to(1)?; // [b * s, v]
        let top = logits.detach().max_keepdim(D::Minus1)?;
        let shifted = logits.broadcast_sub(&top)?;
        let log_total = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
        let ids = labels.iter().map(|&label| if label == IGNORE_LABEL { 0 } else { label }).collect();
        let ids = Tensor::from_vec(ids, (labels.len(), 1), &Device::Cpu)?;
        let counts = labels.iter().map(|&label| f64::from(u8::from(label != IGNORE_LABEL))).collect();
        let counts = Tensor::from_vec(counts, (labels.len(), 1), &Device::Cpu)?;
        ((log_total - shifted.gather(&ids, 1)?)? * counts)?.sum_all()
    }

    /// Gradient of the parameter `name`.
    pub(crate) fn gradient<'g>(&self, gradients: &'g GradStore, name: &str) -> &'g Tensor {
        gradients.get(&self.vars[name]).expect("every parameter takes part")
    }

    /// Names of the parameters.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.vars.keys().map(String::as_str)
    }

    fn parameter(&self, name: &str) -> &Tensor {
        self.vars[name].as_tensor()
    }

    /// Token embeddings plus learned positions, `[b, s, d]`; a fraction passes its gradient on.
    fn embed(&self, batch: &Batch) -> Result<Tensor> {
        let (b, s) = batch.dims();
        let rows = |name: &str, ids: Vec<u32>| {
            let ids = Tensor::from_vec(ids, b * s, &Device::Cpu)?;
            self.parameter(name).index_select(&ids, 0)?.reshape((b, s, self.config.d_model))
        };
        let mut x = rows("transformer.wte.weight", batch.rows.concat())?;
        if self.config.learned_pos_emb {
            x = (x + rows("transformer.wpe.weight", batch.positions())?)?;
        }
        let fraction = self.config.embedding_fraction;
        (&x * fraction)? + (x.detach() * (1.0 - fraction))?
    }
}
