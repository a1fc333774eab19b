//! Gather: keys and values of a sequence as contiguous tensors, for code that cannot read pages.

use candle_core::{Device, Tensor};

use super::sequence::CachedSequence;
use super::{KvPool, unknown_sequence};
use crate::batch::{Batch, SeqId};
use crate::error::{Error, Result};
use crate::kernels::cpu::attention::paged;

impl KvPool {
    /// Keys and values of a sequence in one layer, each `[tokens, kv_n_heads, head_dim]`, f32: the cached tokens and
    /// `new_tokens` of the open forward pass.
    ///
    /// # Errors
    /// [`Error::Shape`] for an unknown sequence or layer, or for more new tokens than are reserved.
    pub fn gather(&self, layer: usize, id: SeqId, new_tokens: usize) -> Result<(Tensor, Tensor)> {
        self.check_layer(layer)?;
        let sequence = self.sequences.get(&id).ok_or_else(unknown_sequence)?;
        let tokens = sequence.len + new_tokens;
        if CachedSequence::pages_for(tokens) > sequence.pages.len() {
            let (actual, expected) = (new_tokens.to_string(), "no more than have begun".to_owned());
            return Err(Error::Shape { op: "gather", argument: "new_tokens", actual, expected });
        }
        let slabs = self.slabs();
        let [keys, values] = paged::read_kv(&self.layer_pages(layer, &slabs), &sequence.pages, tokens);
        let shape = (tokens, self.layout.kv_n_heads, self.layout.head_dim);
        let tensor = |data| Tensor::from_vec(data, shape, &Device::Cpu);
        Ok((tensor(keys)?, tensor(values)?))
    }

    /// One-layer f32 copy of `layer` for the sequences of a batch that has begun, with `change` applied to the keys of each
    /// sequence.
    ///
    /// `change` takes positions `[tokens]` and keys `[tokens, kv_n_heads, head_dim]`, new tokens included, and returns keys
    /// of the same shape. The batch has begun in the copy too.
    ///
    /// # Errors
    /// As `change`, and [`Error::Shape`] when the batch has not begun or keys come back in another shape.
    pub fn map_keys(
        &self,
        layer: usize,
        batch: &Batch,
        mut change: impl FnMut(&[u32], &Tensor) -> Result<Tensor>,
    ) -> Result<Self> {
        let mut changed = Self::scratch(self.layout.kv_n_heads, self.layout.head_dim);
        let mut all = Batch::new();
        let (mut all_keys, mut all_values) = (Vec::new(), Vec::new());
        for seq in batch.sequences() {
            let (id, new) = (seq.id(), seq.token_range().len());
            let (keys, values) = self.gather(layer, id, new)?;
            let tokens = keys.dims()[0];
            let mut documents = self.sequence(id).documents.clone();
            documents.extend(self.len(id), seq)?;
            let starts = documents.starts(tokens);
            let positions: Vec<u32> = (0..).zip(starts).map(|(token, start)| token - start).collect();
            all_keys.push(change(&positions, &keys)?);
            all_values.push(values);
            changed.sequences.insert(id, CachedSequence::default());
            all.push(id, &vec![0; tokens])?;
        }
        let (keys, values) = (Tensor::cat(&all_keys, 0)?, Tensor::cat(&all_values, 0)?);
        changed.begin(&all)?;
        changed.append(0, &all, &keys, &values)?;
        changed.commit(&all)?;
        for seq in batch.sequences() {
            let held = self.sequence(seq.id());
            let copy = changed.sequences.get_mut(&seq.id()).ok_or_else(unknown_sequence)?;
            (copy.len, copy.documents) = (held.len, held.documents.clone());
        }
        changed.begin(batch)?;
        Ok(changed)
    }
}
