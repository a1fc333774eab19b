//! A forward pass over a pool: pages for new tokens, their keys and values, and the moment when they count.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::Tensor;

use super::heads::HostHeads;
use super::sequence::Sequence;
use super::{KvPool, unknown};
use crate::batch::{Batch, SeqId};
use crate::error::{Error, Result};
use crate::kernels::cpu::attention::paged::{self, PAGE, TokenRun};

/// A forward pass that has begun: pages are reserved for its tokens.
#[derive(Debug)]
pub(super) struct Pass {
    parts: Vec<(SeqId, Range<usize>)>,
    /// First token of the document of each new token, `[tokens]`.
    document_starts: Vec<u32>,
}

impl KvPool {
    /// Begins a forward pass: reserves pages for all new tokens of the batch, and copies those that would be written to
    /// and are shared. One that had begun before and was not committed is ended without effect.
    ///
    /// # Errors
    /// [`Error::PoolFull`] when there are not enough pages, [`Error::NoRoom`] when the system has no memory for them,
    /// [`Error::Shape`] when the batch is empty, has a sequence that is not of this pool, or resumes a document that has
    /// ended. No sequence has changed then.
    pub fn begin(&mut self, batch: &Batch) -> Result<()> {
        self.abandon();
        if batch.is_empty() {
            let (actual, expected) = ("empty".to_owned(), "at least one token".to_owned());
            return Err(Error::Shape { op: "forward pass", argument: "batch", actual, expected });
        }
        let document_starts = self.document_starts(batch)?;
        let needed = self.pages_needed(batch);
        if needed > self.pages.free() {
            let [needed, free, capacity] = [needed, self.pages.free(), self.pages.total()].map(|n| n * PAGE);
            return Err(Error::PoolFull { needed, free, capacity });
        }
        self.slabs.reach(self.pages.reached_with(needed))?;
        for part in batch.parts() {
            self.reserve(part.sequence(), part.tokens().len());
        }
        let parts = batch.parts().iter().map(|part| (part.sequence(), part.tokens())).collect();
        self.pass = Some(Pass { parts, document_starts });
        Ok(())
    }

    /// Pages that the new tokens of a batch, whose sequences are of this pool, take from those that are free.
    fn pages_needed(&self, batch: &Batch) -> usize {
        let mut writers: BTreeMap<u32, u32> = BTreeMap::new(); // of pages partly filled
        let mut needed = 0;
        for part in batch.parts() {
            let sequence = self.sequence(part.sequence());
            needed += Sequence::pages_of(sequence.len + part.tokens().len()) - sequence.pages.len();
            if let Some(page) = sequence.open_page() {
                *writers.entry(page).or_default() += 1;
            }
        }
        // the last sequence that has a page writes to it, the others to copies
        let copies = writers.iter().map(|(&page, &writers)| writers.min(self.pages.owners(page) - 1));
        needed + copies.sum::<u32>() as usize
    }

    /// Gives a sequence pages of its own for new tokens. There are enough.
    fn reserve(&mut self, id: SeqId, tokens: usize) {
        let sequence = self.sequences.get_mut(&id).expect("a sequence of this pool");
        if let Some(shared) = sequence.open_page().filter(|&page| self.pages.owners(page) > 1) {
            let own = self.pages.take();
            self.slabs.copy(shared, own);
            self.pages.give_back(shared);
            sequence.pages[sequence.len / PAGE] = own;
        }
        let pages = Sequence::pages_of(sequence.len + tokens);
        sequence.pages.resize_with(pages, || self.pages.take());
    }

    /// Ends a forward pass that has begun without effect: its pages are free again. Does nothing when there is none.
    pub fn abandon(&mut self) {
        for (id, _) in self.pass.take().map(|pass| pass.parts).unwrap_or_default() {
            self.trim(id);
        }
    }

    /// Writes one layer's keys and values of the new tokens, `[tokens, kv_n_heads, head_dim]`, f32: views of a larger
    /// tensor too, as long as the numbers of a head are neighbors.
    ///
    /// # Errors
    /// [`Error::Shape`] when they are of another size, there is no such layer, or the batch has not begun.
    pub(crate) fn append(
        &mut self,
        layer: usize,
        batch: &Batch,
        keys: &Tensor,
        values: &Tensor,
    ) -> Result<()> {
        self.expect_begun(batch)?;
        self.expect_layer(layer)?;
        let sizes = [batch.len(), self.layout.kv_n_heads, self.layout.head_dim].map(Some);
        let keys = HostHeads::new("append", "keys", keys, sizes)?;
        let values = HostHeads::new("append", "values", values, sizes)?;
        let (runs, per_slab) = (self.runs(batch), self.slabs.slab_pages());
        let slabs = (&mut self.slabs.bytes_mut()[..], per_slab);
        paged::write_kv(self.layout, layer, slabs, &runs, [keys.rows(), values.rows()]);
        Ok(())
    }

    /// Where the new tokens go.
    fn runs(&self, batch: &Batch) -> Vec<TokenRun> {
        let mut runs = Vec::new();
        for part in batch.parts() {
            let (sequence, tokens) = (self.sequence(part.sequence()), part.tokens());
            let mut at = sequence.len;
            let end = at + tokens.len();
            while at < end {
                let next = end.min((at / PAGE + 1) * PAGE);
                let slots = at % PAGE..at % PAGE + (next - at);
                let first = tokens.start + at - sequence.len;
                runs.push(TokenRun { page: sequence.pages[at / PAGE], slots, first });
                at = next;
            }
        }
        runs
    }

    /// Counts the new tokens as held, once every layer has their keys and values.
    ///
    /// # Errors
    /// [`Error::Shape`] when the batch has not begun.
    pub fn commit(&mut self, batch: &Batch) -> Result<()> {
        self.expect_begun(batch)?;
        self.pass = None;
        for part in batch.parts() {
            let sequence = self.sequences.get_mut(&part.sequence()).ok_or_else(unknown)?;
            sequence.documents.go_on(sequence.len, part)?;
            sequence.len += part.tokens().len();
        }
        Ok(())
    }

    /// Position of every new token of a batch that is not committed, `[tokens]`: counted from the first token of its
    /// document, or of its sequence where documents are not named.
    ///
    /// # Errors
    /// [`Error::Shape`] when the batch has a sequence that is not of this pool, or resumes a document that has ended.
    pub fn positions(&self, batch: &Batch) -> Result<Vec<u32>> {
        let starts = self.document_starts(batch)?;
        let of_part = |part: &crate::batch::Part| {
            let (len, tokens) = (self.len(part.sequence()), part.tokens());
            let index = move |token: usize| (len + token - tokens.start) as u32;
            part.tokens().map(index).collect::<Vec<_>>()
        };
        let indices = batch.parts().iter().flat_map(of_part);
        Ok(indices.zip(starts).map(|(index, start)| index - start).collect())
    }

    /// First token of the document of every new token, `[tokens]`.
    fn document_starts(&self, batch: &Batch) -> Result<Vec<u32>> {
        let mut starts = Vec::with_capacity(batch.len());
        for part in batch.parts() {
            let sequence = self.sequences.get(&part.sequence()).ok_or_else(unknown)?;
            starts.extend(sequence.documents.clone().go_on(sequence.len, part)?);
        }
        Ok(starts)
    }

    /// First key that each new token sees, `[tokens]`: of its document, under a sliding window of `window` keys before its own.
    ///
    /// # Errors
    /// [`Error::Shape`] when the batch has not begun.
    pub(crate) fn first_keys(&self, batch: &Batch, window: Option<usize>) -> Result<Vec<u32>> {
        let mut first = self.expect_begun(batch)?.document_starts.clone();
        let Some(window) = window else { return Ok(first) };
        for part in batch.parts() {
            let (len, tokens) = (self.len(part.sequence()), part.tokens());
            for (at, first) in first[tokens].iter_mut().enumerate() {
                *first = (*first).max((len + at).saturating_sub(window) as u32);
            }
        }
        Ok(first)
    }

    /// The sequences of a batch with their new tokens.
    pub(crate) fn of_batch<'a>(&'a self, batch: &'a Batch) -> Vec<paged::SequenceView<'a>> {
        let of_part = |part: &crate::batch::Part| {
            let sequence = self.sequence(part.sequence());
            paged::SequenceView { pages: &sequence.pages, start: sequence.len, tokens: part.tokens() }
        };
        batch.parts().iter().map(of_part).collect()
    }

    /// Memory of the pages, and how many pages each piece has.
    pub(crate) fn memory(&self) -> (Vec<&[u8]>, usize) {
        (self.slabs.bytes(), self.slabs.slab_pages())
    }

    /// One layer of the pages in `memory`.
    pub(crate) fn layer<'a>(
        &self,
        layer: usize,
        (slabs, slab_pages): &'a (Vec<&'a [u8]>, usize),
    ) -> paged::LayerPages<'a> {
        paged::LayerPages { layout: self.layout, layer, slabs, slab_pages: *slab_pages }
    }

    fn expect_begun(&self, batch: &Batch) -> Result<&Pass> {
        let is_begun = |pass: &&Pass| {
            let parts = batch.parts().iter().map(|part| (part.sequence(), part.tokens()));
            parts.eq(pass.parts.iter().cloned())
        };
        self.pass.as_ref().filter(is_begun).ok_or_else(|| Error::Shape {
            op: "forward pass",
            argument: "batch",
            actual: "one that has not begun".to_owned(),
            expected: "the batch given to `begin`, before `commit`".to_owned(),
        })
    }

    pub(crate) fn expect_layer(&self, layer: usize) -> Result<()> {
        if layer < self.layout.n_layers {
            return Ok(());
        }
        let (actual, expected) = (layer.to_string(), format!("below {}, the layers", self.layout.n_layers));
        Err(Error::Shape { op: "key/value pool", argument: "layer", actual, expected })
    }
}
