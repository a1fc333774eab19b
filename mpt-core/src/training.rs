//! A training pass: the loss of a batch, and its gradients block by block.
//!
//! Forward keeps what each block saved; backward walks the blocks from the loss, hands gradients to a sink, and frees what
//! a block saved as soon as it is done. A block may keep its input alone and run forward again: dropout is a function of
//! seed and position, so the second run has the bits of the first.

use candle_core::Tensor;

use crate::error::Result;
use crate::gradients::GradSink;
use crate::mask::AttnMask;
use crate::model::{CausalLm, flat};
use crate::nn::{BlockSaved, StepDropout, TrainContext};

/// Rows of tokens to learn from.
#[derive(Clone, Copy, Debug)]
pub struct TrainBatch<'a, R> {
    /// Token ids, `[batch, seq]`.
    pub tokens: &'a [R],
    /// What each token sees.
    pub mask: &'a AttnMask,
    /// The id that each position is scored against, or [`IGNORE_LABEL`](crate::IGNORE_LABEL), `[batch * seq]`.
    pub labels: &'a [u32],
    /// What the dropout that the configuration asks for is drawn from; nothing is dropped where absent.
    pub dropout: Option<StepDropout>,
}

/// Which blocks keep their input alone and are run again in the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recompute {
    /// None.
    #[default]
    None,
    /// All of them.
    All,
    /// The last `n` blocks keep what they save, the others are run again: what fits is kept.
    AllButLast(usize),
}

impl Recompute {
    pub(crate) fn covers(self, layer: usize, n_layers: usize) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::AllButLast(kept) => layer + kept < n_layers,
        }
    }
}

impl CausalLm {
    /// The summed loss of a batch in nats; gradients of that sum go to `sink`.
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
        let ids = flat(batch.tokens, batch.mask)?;
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

    /// Runs all blocks; gives what each keeps for its backward pass.
    fn blocks_forward(
        &self,
        mut x: Tensor,
        context: TrainContext<'_>,
        recompute: Recompute,
    ) -> Result<(Tensor, Vec<Kept>)> {
        let n_layers = self.blocks().num_blocks();
        let mut kept = Vec::with_capacity(n_layers);
        for layer in 0..n_layers {
            self.blocks().with_block(layer, &mut |block| {
                let (y, saved) = block.forward_train(&x, context)?;
                let input = std::mem::replace(&mut x, y);
                kept.push(match recompute.covers(layer, n_layers) {
                    true => Kept::Input(input),
                    false => Kept::Saved(saved),
                });
                Ok(())
            })?;
        }
        Ok((x, kept))
    }

    /// Gradient of the first block's input, given that of the last one's result.
    fn blocks_backward(
        &self,
        mut kept: Vec<Kept>,
        mut dx: Tensor,
        context: TrainContext<'_>,
        sink: &mut dyn GradSink,
    ) -> Result<Tensor> {
        while let Some(of_block) = kept.pop() {
            let layer = kept.len();
            let mut of_block = Some(of_block);
            self.blocks().with_block(layer, &mut |block| {
                let saved = match of_block.take().expect("a block is used once") {
                    Kept::Saved(saved) => saved,
                    Kept::Input(input) => block.forward_train(&input, context)?.1,
                };
                dx = block.backward(saved, &dx, context, sink)?;
                Ok(())
            })?;
            sink.block_done(layer)?;
        }
        Ok(dx)
    }
}

/// What is kept of a block between the passes.
enum Kept {
    Saved(BlockSaved),
    /// Its input, `[tokens, d]`.
    Input(Tensor),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradients::Gradients;
    use crate::testing::{assert_close, tiny_model};
    use crate::{Adapted, Adapter, Block, BlockSource, LoraConfig, MptConfig, ParamId, Params};
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
        config.dropout = crate::DropoutRates { embedding: 0.1, residual: 0.2, attention: 0.3 };
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

    /// Blocks that are built when they are needed, as under sharding.
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

    /// Adapters train alone, and say when a block is done, last one first.
    #[test]
    fn frozen_weights_get_no_gradient() {
        struct Order(Gradients, Vec<usize>);
        impl GradSink for Order {
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
        let model = CausalLm::new(&config, &Adapted { base: &params, adapter: &adapter }).unwrap();
        let mut sink = Order(Gradients::of(adapter.params().map(|(id, _)| id)), Vec::new());
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
