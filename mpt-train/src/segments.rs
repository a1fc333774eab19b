//! The model as a chain of segments: embedding, each block, head with loss.
//!
//! Each segment is recorded from a detached input: a plain block by its own pass, others on an autograd graph each. Backward
//! walks the chain from the loss and pulls the incoming gradient through one segment at a time, so that what a segment keeps
//! is freed as soon as it is done. With activation checkpointing a block keeps its input alone and is recomputed: memory
//! holds one block's intermediates.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor, Var};
use mpt_core::{AttnMask, Block, BlockPass, CausalLm, Params};

use crate::error::Result;

/// Gradients by parameter name, summed over everything added so far.
#[derive(Debug, Default)]
pub struct Gradients {
    sums: BTreeMap<String, Tensor>,
}

impl Gradients {
    /// The gradient of a parameter.
    ///
    /// # Errors
    /// When it has received none: a bug in the graph.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.sums
            .get(name)
            .ok_or_else(|| candle_core::Error::Msg(format!("parameter `{name}` received no gradient")).into())
    }

    /// Names and gradients in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.sums.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The L2 norm over all gradients.
    ///
    /// # Errors
    /// When a gradient is not f32 on the CPU.
    pub fn norm(&self) -> Result<f64> {
        let squares = self.sums.values().map(mpt_core::ops::square_norm);
        Ok(squares.sum::<mpt_core::Result<f64>>()?.sqrt())
    }

    /// Adds the gradients of the parameters `wanted` that a segment's backward pass found.
    fn take<'a>(
        &mut self,
        store: &mut GradStore,
        wanted: impl Iterator<Item = (&'a str, &'a Var)>,
    ) -> Result<()> {
        for (name, var) in wanted {
            if let Some(new) = store.remove(var.as_tensor()) {
                self.add(name, new)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, name: &str, new: Tensor) -> Result<()> {
        let sum = match self.sums.remove(name) {
            Some(sum) => (sum + new)?,
            None => new,
        };
        self.sums.insert(name.to_owned(), sum);
        Ok(())
    }
}

/// The summed loss of a batch, with its gradients added to `gradients`.
///
/// `tokens` are rows of ids `[batch, seq]`, `labels` `[batch * seq]` the id each position is scored against, or
/// [`mpt_core::IGNORE_LABEL`]. `params` are the variables that `model` was built from. Gradients are those of the sum
/// over labels, in nats; with `recompute`, blocks are run again instead of kept.
///
/// # Errors
/// Those of the model's forward pass.
pub fn loss_and_gradients<R: AsRef<[u32]>>(
    model: &CausalLm,
    params: &Params,
    tokens: &[R],
    mask: &AttnMask,
    labels: &[u32],
    recompute: bool,
    gradients: &mut Gradients,
) -> Result<f64> {
    let groups = Groups::new(model, params);
    let embedded = model.embed(tokens, mask, &vec![0; mask.dims().0])?;
    let mut segments = Vec::with_capacity(model.blocks().len());
    let mut x = embedded.detach();
    for block in model.blocks() {
        let (output, recorded) = Recorded::forward(block, &x, mask)?;
        segments.push((x, (!recompute).then_some(recorded)));
        x = output;
    }

    let input = Var::from_tensor(&x)?;
    let loss = model.loss_sum(&model.norm_f(&input)?, labels)?;
    let mut store = loss.backward()?;
    gradients.take(&mut store, groups.head())?;
    let mut incoming = taken(&mut store, &input);
    drop((store, x));

    for (layer, (block, (input, recorded))) in model.blocks().iter().zip(segments).enumerate().rev() {
        let recorded = match recorded {
            Some(recorded) => recorded,
            None => Recorded::forward(block, &input, mask)?.1,
        };
        incoming = recorded.backward(block, incoming, &groups, layer, gradients)?;
    }
    gradients.take(&mut pull(&embedded, incoming)?, groups.embedding())?;
    Ok(f64::from(loss.to_scalar::<f32>()?))
}

/// What a block's forward pass left for its backward pass.
enum Recorded {
    /// Of a plain block.
    Pass(BlockPass),
    /// The input and the output of any other one, with the graph between them.
    Graph(Var, Tensor),
}

impl Recorded {
    /// The output of `block` for `x`, detached, and what it leaves.
    fn forward(block: &Block, x: &Tensor, mask: &AttnMask) -> Result<(Tensor, Self)> {
        if let Some(plain) = block.plain() {
            let (output, pass) = plain.forward(x, mask)?;
            return Ok((output, Self::Pass(pass)));
        }
        let input = Var::from_tensor(x)?;
        let output = block.forward(&input, mask, None)?;
        Ok((output.detach(), Self::Graph(input, output)))
    }

    /// The gradient of the input, given that of the output; those of the parameters go to `gradients`.
    fn backward(
        self,
        block: &Block,
        incoming: Tensor,
        groups: &Groups<'_>,
        layer: usize,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        match (self, block.plain()) {
            (Self::Pass(pass), Some(plain)) => {
                let found = plain.backward(pass, &incoming)?;
                for (name, gradient) in found.parameters {
                    gradients.add(&Groups::name(layer, name), gradient)?;
                }
                Ok(found.input)
            }
            (Self::Graph(input, output), _) => {
                let mut store = pull(&output, incoming)?;
                gradients.take(&mut store, groups.block(layer))?;
                Ok(taken(&mut store, &input))
            }
            (Self::Pass(_), None) => unreachable!("a block stays what it is"),
        }
    }
}

fn taken(store: &mut GradStore, input: &Var) -> Tensor {
    store.remove(input.as_tensor()).expect("every segment passes a gradient to its input")
}

/// What names of blocks' parameters begin with; the layer's number follows.
const BLOCKS: &str = "transformer.blocks.";

/// The parameters of each segment. A tied embedding is in two of them.
struct Groups<'a> {
    params: &'a Params,
    blocks: Vec<Vec<(&'a str, &'a Var)>>,
}

impl<'a> Groups<'a> {
    fn new(model: &CausalLm, params: &'a Params) -> Self {
        let mut blocks = vec![Vec::new(); model.blocks().len()];
        for (name, var) in params.iter() {
            let layer = name.strip_prefix(BLOCKS).and_then(|rest| rest.split('.').next()?.parse().ok());
            if let Some(layer) = layer {
                let block: &mut Vec<_> = &mut blocks[usize::min(layer, model.blocks().len() - 1)];
                block.push((name, var));
            }
        }
        Self { params, blocks }
    }

    fn head(&self) -> impl Iterator<Item = (&'a str, &'a Var)> {
        let of_head = |name: &str| {
            name.starts_with("transformer.norm_f.")
                || name == "lm_head.weight"
                || name == "transformer.wte.weight"
        };
        self.params.iter().filter(move |(name, _)| of_head(name))
    }

    /// The full name of a parameter below a block.
    fn name(layer: usize, below: &str) -> String {
        format!("{BLOCKS}{layer}.{below}")
    }

    fn block(&self, layer: usize) -> impl Iterator<Item = (&'a str, &'a Var)> {
        self.blocks[layer].iter().copied()
    }

    fn embedding(&self) -> impl Iterator<Item = (&'a str, &'a Var)> {
        let names = ["transformer.wte.weight", "transformer.wpe.weight"];
        self.params.iter().filter(move |(name, _)| names.contains(name))
    }
}

/// Gradients of everything `output` was computed from, given its own.
fn pull(output: &Tensor, gradient: Tensor) -> Result<GradStore> {
    Ok(output.apply_op1(PullGradient { gradient })?.backward()?)
}

/// A scalar whose gradient with respect to its argument is a given tensor: it starts a backward pass in the middle of
/// a chain without a multiplication or a sum.
struct PullGradient {
    gradient: Tensor,
}

impl CustomOp1 for PullGradient {
    fn name(&self) -> &'static str {
        "pull gradient"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), Shape::from(())))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(self.gradient.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpt_core::testing::{assert_close, tiny_model};

    fn ids(n: u32, seed: u32) -> Vec<u32> {
        (0..n).map(|i| (i * i * 7 + seed) % 50).collect()
    }

    fn gradients(recompute: bool) -> (f64, Gradients) {
        let (config, params) = tiny_model(3);
        let model = CausalLm::new(&config, &params).unwrap();
        let rows = [ids(12, 1), ids(12, 5)];
        let labels: Vec<u32> = rows.iter().flatten().map(|id| (id + 1) % 50).collect();
        let mut found = Gradients::default();
        let mask = AttnMask::causal(2, 12);
        let loss = loss_and_gradients(&model, &params, &rows, &mask, &labels, recompute, &mut found).unwrap();
        (loss, found)
    }

    /// The chain of segments against one backward pass over the whole graph: tolerance for another order of sums.
    #[test]
    fn segments_give_the_gradients_of_the_whole_graph() {
        let (config, params) = tiny_model(3);
        let model = CausalLm::new(&config, &params).unwrap();
        let rows = [ids(12, 1), ids(12, 5)];
        let labels: Vec<u32> = rows.iter().flatten().map(|id| (id + 1) % 50).collect();
        let hidden = model.hidden(&rows, &AttnMask::causal(2, 12), None).unwrap();
        let loss = model.loss_sum(&hidden, &labels).unwrap();
        let whole = loss.backward().unwrap();
        let (found_loss, found) = gradients(false);
        assert!((found_loss - f64::from(loss.to_scalar::<f32>().unwrap())).abs() < 1e-4);
        for (name, var) in params.iter() {
            assert_close(found.get(name).unwrap(), whole.get(var).unwrap(), 1e-4);
        }
        assert_eq!(found.iter().count(), params.iter().count());
    }

    #[test]
    fn recomputing_changes_no_bit() {
        let ((kept_loss, kept), (loss, again)) = (gradients(false), gradients(true));
        assert_eq!(kept_loss, loss);
        for ((_, a), (_, b)) in kept.iter().zip(again.iter()) {
            assert_close(a, b, 0.0);
        }
    }
}
