//! Keys and values as tensors, for what cannot read pages.

use candle_core::{Device, Tensor};

use super::sequence::Sequence;
use super::{KvPool, unknown};
use crate::batch::{Batch, SeqId};
use crate::error::{Error, Result};
use crate::kernels::cpu::attention::paged;

impl KvPool {
    /// One layer's keys and values of a sequence with `new_tokens` of a forward pass that has begun, each
    /// `[tokens, kv_n_heads, head_dim]`, f32.
    ///
    /// # Errors
    /// [`Error::Shape`] when there is no such sequence or layer, or no pages are reserved for so many tokens.
    pub fn gather(&self, layer: usize, id: SeqId, new_tokens: usize) -> Result<(Tensor, Tensor)> {
        self.expect_layer(layer)?;
        let sequence = self.sequences.get(&id).ok_or_else(unknown)?;
        let tokens = sequence.len + new_tokens;
        if Sequence::pages_of(tokens) > sequence.pages.len() {
            let (actual, expected) = (new_tokens.to_string(), "no more than have begun".to_owned());
            return Err(Error::Shape { op: "gather", argument: "new_tokens", actual, expected });
        }
        let memory = self.memory();
        let [keys, values] = paged::read_kv(&self.layer(layer, &memory), &sequence.pages, tokens);
        let shape = (tokens, self.layout.kv_n_heads, self.layout.head_dim);
        let tensor = |data| Tensor::from_vec(data, shape, &Device::Cpu);
        Ok((tensor(keys)?, tensor(values)?))
    }

    /// A pool of one layer in f32 with the sequences of a batch that has begun, new tokens included, and other keys: those
    /// that `change` makes of the keys `[tokens, kv_n_heads, head_dim]` of a sequence, whose positions it is given.
    /// Attention over it is that over this pool's `layer` with the changed keys.
    ///
    /// # Errors
    /// As `change`, and [`Error::Shape`] when the batch has not begun or keys come back in another shape.
    pub fn with_keys(
        &self,
        layer: usize,
        batch: &Batch,
        mut change: impl FnMut(&[u32], &Tensor) -> Result<Tensor>,
    ) -> Result<Self> {
        let mut changed = Self::scratch(self.layout.kv_n_heads, self.layout.head_dim);
        let mut all = Batch::new();
        let mut halves = [Vec::new(), Vec::new()];
        for part in batch.parts() {
            let (id, new) = (part.sequence(), part.tokens().len());
            let (keys, values) = self.gather(layer, id, new)?;
            let tokens = keys.dims()[0];
            let mut documents = self.sequence(id).documents.clone();
            documents.go_on(self.len(id), part)?;
            let starts = documents.starts(tokens);
            let positions: Vec<u32> = (0..).zip(starts).map(|(token, start)| token - start).collect();
            halves[0].push(change(&positions, &keys)?);
            halves[1].push(values);
            changed.sequences.insert(id, Sequence::default());
            all.push(id, &vec![0; tokens])?;
        }
        let [keys, values] = halves.map(|half| Tensor::cat(&half, 0));
        changed.begin(&all)?;
        changed.append(0, &all, &keys?, &values?)?;
        changed.commit(&all)?;
        for part in batch.parts() {
            let held = self.sequence(part.sequence());
            let copy = changed.sequences.get_mut(&part.sequence()).ok_or_else(unknown)?;
            (copy.len, copy.documents) = (held.len, held.documents.clone());
        }
        changed.begin(batch)?;
        Ok(changed)
    }
}
