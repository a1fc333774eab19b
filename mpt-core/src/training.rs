//! Training pass: loss of a batch and its gradients, block by block.
//!
//! The backward pass hands gradients to a sink and frees the activations of a block as soon as it is done. A recomputed
//! block saves its input only and runs forward again; dropout is a function of seed and position, so both runs have the
//! same bits. The optimizer is not here.

use candle_core::Tensor;

use crate::error::Result;
use crate::gradients::GradSink;
use crate::mask::AttnMask;
use crate::model::{CausalLm, flatten_ids};
use crate::nn::{BlockSaved, StepDropout, TrainContext};

/// Training batch of equally long rows.
#[derive(Clone, Copy, Debug)]
pub struct TrainBatch<'a, R> {
    /// Token ids, `[batch, seq]`.
    pub tokens: &'a [R],
    /// Attention mask.
    pub mask: &'a AttnMask,
    /// Target id of each position or [`IGNORE_LABEL`](crate::IGNORE_LABEL), `[batch * seq]`.
    pub labels: &'a [u32],
    /// Randomness of the configured dropout; `None` disables it.
    pub dropout: Option<StepDropout>,
}

/// Activation checkpointing: the blocks that save their input only and are recomputed in the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recompute {
    /// No block.
    #[default]
    None,
    /// All blocks.
    All,
    /// All but the last `n` blocks.
    AllButLast(usize),
}

impl Recompute {
    /// Whether block `layer` of `n_layers` is recomputed.
    pub(crate) fn applies_to(self, layer: usize, n_layers: usize) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::AllButLast(kept) => layer + kept < n_layers,
        }
    }
}

impl CausalLm {
    /// Summed loss of a batch in nats. The gradients of the sum go to `sink`.
    ///
    /// # Errors
    /// [`Error::TokenId`](crate::Error::TokenId), [`Error::TooLong`](crate::Error::TooLong),
    /// [`Error::Shape`](crate::Error::Shape), and those of `sink`.
    pub fn loss_and_gradients<R: AsRef<[u32]>>(
        &self,
        batch: &TrainBatch<'_, R>,
        recompute: Recompute,
        sink: &mut dyn GradSink,
    ) -> Result<f64> {
        let context = TrainContext { mask: batch.mask, dropout: batch.dropout };
        let ids = flatten_ids(batch.tokens, batch.mask)?;
        let positions = batch.mask.positions();
        let x = self.embedding().forward_train(&ids, &positions, context)?;
        let (x, kept) = self.blocks_forward(x, context, recompute)?;

        let (loss, d_hidden) =
            self.head().loss_and_backward(&self.norm_f().forward(&x)?, batch.labels, sink)?;
        let dx = self.norm_f().backward(&x, &d_hidden, sink)?;
        drop((x, d_hidden));

        let dx = self.blocks_backward(kept, dx, context, sink)?;
        self.embedding().backward(&ids, &positions, &dx, context, sink)?;
        Ok(loss)
    }

    /// Forward pass through the blocks: hidden states `[tokens, d]`, and the saved activations of each block.
    fn blocks_forward(
        &self,
        mut x: Tensor,
        context: TrainContext<'_>,
        recompute: Recompute,
    ) -> Result<(Tensor, Vec<SavedActivations>)> {
        let n_layers = self.blocks().num_blocks();
        let mut kept = Vec::with_capacity(n_layers);
        for layer in 0..n_layers {
            self.blocks().with_block(layer, &mut |block| {
                let (y, saved) = block.forward_train(&x, context)?;
                let input = std::mem::replace(&mut x, y);
                kept.push(match recompute.applies_to(layer, n_layers) {
                    true => SavedActivations::Input(input),
                    false => SavedActivations::Full(saved),
                });
                Ok(())
            })?;
        }
        Ok((x, kept))
    }

    /// Gradient of the first block's input `[tokens, d]`, from that of the last block's output.
    fn blocks_backward(
        &self,
        mut kept: Vec<SavedActivations>,
        mut dx: Tensor,
        context: TrainContext<'_>,
        sink: &mut dyn GradSink,
    ) -> Result<Tensor> {
        while let Some(saved_block) = kept.pop() {
            let layer = kept.len();
            let mut saved_block = Some(saved_block);
            self.blocks().with_block(layer, &mut |block| {
                let saved = match saved_block.take().expect("a block is used once") {
                    SavedActivations::Full(saved) => saved,
                    SavedActivations::Input(input) => block.forward_train(&input, context)?.1,
                };
                dx = block.backward(saved, &dx, context, sink)?;
                Ok(())
            })?;
            sink.block_done(layer)?;
        }
        Ok(dx)
    }
}

/// Activations of a block between the passes.
enum SavedActivations {
    /// Everything that its backward pass needs.
    Full(BlockSaved),
    /// Its input `[tokens, d]`, for recomputation.
    Input(Tensor),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradients::Gradients;
    use crate::nn::{Block, BlockSource};
    use crate::params::ParamId;
    use crate::testing::{assert_close, tiny_model};
    use crate::{Adapter, LoraConfig, MptConfig, Params, WithAdapter};
    use candle_core::Device;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn ids(n: u32, seed: u32) -> Vec<u32> {
        (0..n).map(|i| (i * i * 7 + seed) % 50).collect()
    }

    const DROPOUT: Option<StepDropout> = Some(StepDropout { seed: 9, first_row: 0 });

    fn run(
        model: &CausalLm,
        rows: &[Vec<u32>],
        recompute: Recompute,
        dropout: Option<StepDropout>,
        gradients: &mut Gradients,
    ) -> f64 {
        let labels: Vec<u32> = rows.iter().flatten().map(|id| (id + 1) % 50).collect();
        let mask = AttnMask::causal(rows.len(), rows[0].len());
        let batch = TrainBatch { tokens: rows, mask: &mask, labels: &labels, dropout };
        model.loss_and_gradients(&batch, recompute, gradients).unwrap()
    }

    fn dropping() -> (MptConfig, Params) {
        let (mut config, params) = tiny_model(3);
        config.dropout = crate::config::DropoutRates { embedding: 0.1, residual: 0.2, attention: 0.3 };
        (config, params)
    }

    #[test]
    fn recomputing_changes_no_bit() {
        let (config, params) = dropping();
        let model = CausalLm::new(&config, &params).unwrap();
        let found = |recompute| {
            let mut gradients = Gradients::default();
            (run(&model, &[ids(12, 1), ids(12, 5)], recompute, DROPOUT, &mut gradients), gradients)
        };
        let (kept_loss, kept) = found(Recompute::None);
        for recompute in [Recompute::All, Recompute::AllButLast(1)] {
            let (loss, again) = found(recompute);
            assert_eq!(kept_loss, loss);
            assert_eq!(kept.iter().count(), params.iter().count());
            for ((_, a), (_, b)) in kept.iter().zip(again.iter()) {
                assert_close(a, b, 0.0);
            }
        }
    }

    #[test]
    fn dropout_is_that_of_the_whole_batch_for_any_microbatches() {
        let (config, params) = dropping();
        let model = CausalLm::new(&config, &params).unwrap();
        let rows = [ids(12, 1), ids(12, 5)];
        let (mut whole, mut parts) = (Gradients::default(), Gradients::default());
        let loss = run(&model, &rows, Recompute::None, DROPOUT, &mut whole);
        let mut sum = 0.0;
        for (number, row) in rows.iter().enumerate() {
            let dropout = DROPOUT.map(|step| StepDropout { first_row: number as u64, ..step });
            sum += run(&model, std::slice::from_ref(row), Recompute::None, dropout, &mut parts);
        }
        assert!((loss - sum).abs() < 1e-3, "{loss} {sum}");
        for ((_, a), (_, b)) in whole.iter().zip(parts.iter()) {
            assert_close(a, b, 1e-4);
        }
        let without = run(&model, &rows, Recompute::None, None, &mut Gradients::default());
        assert!((without - loss).abs() > 1e-2, "something is dropped");
    }

    /// Blocks gathered on demand, as under sharding.
    #[derive(Debug)]
    struct Gathered {
        config: MptConfig,
        params: Arc<Params>,
        in_use: AtomicUsize,
    }

    impl BlockSource for Gathered {
        fn num_blocks(&self) -> usize {
            self.config.n_layers
        }

        fn with_block(&self, layer: usize, body: &mut dyn FnMut(&Block) -> Result<()>) -> Result<()> {
            assert_eq!(self.in_use.fetch_add(1, Ordering::SeqCst), 0, "one block at a time");
            let done = body(&Block::new(&self.config, &*self.params, layer)?);
            self.in_use.fetch_sub(1, Ordering::SeqCst);
            done
        }
    }

    #[test]
    fn blocks_may_be_gathered_and_released() {
        let (config, params) = tiny_model(3);
        let params = Arc::new(params);
        let resident = CausalLm::new(&config, &*params).unwrap();
        let gathered =
            Gathered { config: config.clone(), params: Arc::clone(&params), in_use: AtomicUsize::new(0) };
        let gathered = CausalLm::with_blocks(&config, &*params, Arc::new(gathered)).unwrap();
        let rows = [ids(12, 1)];
        let [a, b] = [&resident, &gathered].map(|model| {
            let mut gradients = Gradients::default();
            run(model, &rows, Recompute::All, None, &mut gradients);
            gradients
        });
        for ((_, a), (_, b)) in a.iter().zip(b.iter()) {
            assert_close(a, b, 0.0);
        }
    }

    /// Only the adapter is trained, and `block_done` comes from the last block to the first.
    #[test]
    fn frozen_weights_get_no_gradient() {
        struct OrderedSink(Gradients, Vec<usize>);
        impl GradSink for OrderedSink {
            fn wants(&self, id: ParamId) -> bool {
                self.0.wants(id)
            }
            fn add(&mut self, id: ParamId, gradient: Tensor) -> Result<()> {
                assert!(self.wants(id), "{id} was not wanted");
                self.0.add(id, gradient)
            }
            fn add_rows(&mut self, id: ParamId, _: usize, _: &[u32], _: &Tensor) -> Result<()> {
                panic!("{id} was not wanted")
            }
            fn block_done(&mut self, layer: usize) -> Result<()> {
                self.1.push(layer);
                Ok(())
            }
        }
        let (config, params) = tiny_model(3);
        let lora = LoraConfig {
            r: 4,
            lora_alpha: 8.0,
            target_modules: ["Wqkv", "out_proj", "up_proj", "down_proj"].map(str::to_owned).into(),
            use_rslora: false,
        };
        let adapter = Adapter::init(&config, lora, 1, &Device::Cpu).unwrap();
        let model = CausalLm::new(&config, &WithAdapter { base: &params, adapter: &adapter }).unwrap();
        let mut sink = OrderedSink(Gradients::for_params(adapter.params().map(|(id, _)| id)), Vec::new());
        let rows = [ids(12, 1)];
        let labels: Vec<u32> = rows[0].iter().map(|id| (id + 1) % 50).collect();
        let mask = AttnMask::causal(1, 12);
        let batch = TrainBatch { tokens: &rows, mask: &mask, labels: &labels, dropout: None };
        model.loss_and_gradients(&batch, Recompute::None, &mut sink).unwrap();
        assert_eq!(sink.1, [1, 0]);
        assert_eq!(sink.0.iter().count(), adapter.vars().count());
        // B is zero at first, and so is A's gradient
        let norm = |name: &str| ops_norm(sink.0.get(name).unwrap());
        assert!(norm("transformer.blocks.0.attn.Wqkv.lora_B.weight") > 0.0);
        assert_eq!(norm("transformer.blocks.0.attn.Wqkv.lora_A.weight"), 0.0);
    }

    fn ops_norm(x: &Tensor) -> f64 {
        crate::ops::square_norm(x).unwrap()
    }
}
