//! Forward pass over a pool as a transaction: begin, append, commit, rollback.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::Tensor;

use super::head_view::HeadView;
use super::sequence::CachedSequence;
use super::{KvPool, unknown_sequence};
use crate::batch::{Batch, SeqId};
use crate::error::{Error, Result};
use crate::kernels::cpu::attention::paged::{self, PAGE, TokenRun};

/// Open transaction: pages are reserved for its tokens.
#[derive(Debug)]
pub(super) struct ForwardPass {
    /// Sequences with their token ranges in the batch.
    sequences: Vec<(SeqId, Range<usize>)>,
    /// Index of the first token of each new token's document, `[tokens]`.
    document_starts: Vec<u32>,
}

impl KvPool {
    /// Begins a forward pass: reserves pages for the new tokens and copies shared pages that they write to. An open forward
    /// pass is rolled back first.
    ///
    /// # Errors
    /// [`Error::PoolFull`] when too few pages are free, [`Error::NoRoom`] when the system has no memory for them,
    /// [`Error::Shape`] when the batch is empty, has an unknown sequence or resumes a document that has ended. On error every
    /// sequence is unchanged.
    pub fn begin(&mut self, batch: &Batch) -> Result<()> {
        self.rollback();
        if batch.is_empty() {
            let (actual, expected) = ("empty".to_owned(), "at least one token".to_owned());
            return Err(Error::Shape { op: "forward pass", argument: "batch", actual, expected });
        }
        let document_starts = self.document_starts(batch)?;
        let needed = self.pages_needed(batch);
        if needed > self.allocator.free() {
            let [needed, free, capacity] =
                [needed, self.allocator.free(), self.allocator.total()].map(|n| n * PAGE);
            return Err(Error::PoolFull { needed, free, capacity });
        }
        self.storage.reserve(self.allocator.high_water_with(needed))?;
        for seq in batch.sequences() {
            self.reserve(seq.id(), seq.token_range().len());
        }
        let sequences = batch.sequences().iter().map(|seq| (seq.id(), seq.token_range())).collect();
        self.pass = Some(ForwardPass { sequences, document_starts });
        Ok(())
    }

    /// Free pages that the new tokens of a batch need, copies on write included.
    fn pages_needed(&self, batch: &Batch) -> usize {
        let mut writers: BTreeMap<u32, u32> = BTreeMap::new(); // by partly filled page
        let mut needed = 0;
        for seq in batch.sequences() {
            let sequence = self.sequence(seq.id());
            needed +=
                CachedSequence::pages_for(sequence.len + seq.token_range().len()) - sequence.pages.len();
            if let Some(page) = sequence.partial_page() {
                *writers.entry(page).or_default() += 1;
            }
        }
        // the last sequence that has a page writes to it, the others to copies
        let copies = writers.iter().map(|(&page, &writers)| writers.min(self.allocator.ref_count(page) - 1));
        needed + copies.sum::<u32>() as usize
    }

    /// Reserves pages for new tokens of a sequence. Enough pages are free.
    fn reserve(&mut self, id: SeqId, tokens: usize) {
        let sequence = self.sequences.get_mut(&id).expect("a sequence of this pool");
        if let Some(shared) = sequence.partial_page().filter(|&page| self.allocator.ref_count(page) > 1) {
            let own = self.allocator.allocate();
            self.storage.copy(shared, own);
            self.allocator.release(shared);
            sequence.pages[sequence.len / PAGE] = own;
        }
        let pages = CachedSequence::pages_for(sequence.len + tokens);
        sequence.pages.resize_with(pages, || self.allocator.allocate());
    }

    /// Rolls back an open forward pass: releases its pages. No effect when none is open.
    pub fn rollback(&mut self) {
        for (id, _) in self.pass.take().map(|pass| pass.sequences).unwrap_or_default() {
            self.release_unused_pages(id);
        }
    }

    /// Writes the keys and values of the new tokens in one layer, each `[tokens, kv_n_heads, head_dim]`, f32. Views are
    /// accepted when a head is contiguous.
    ///
    /// # Errors
    /// [`Error::Shape`] for another shape, an unknown layer, or a batch that has not begun.
    pub(crate) fn append(
        &mut self,
        layer: usize,
        batch: &Batch,
        keys: &Tensor,
        values: &Tensor,
    ) -> Result<()> {
        self.check_begun(batch)?;
        self.check_layer(layer)?;
        let sizes = [batch.len(), self.layout.kv_n_heads, self.layout.head_dim].map(Some);
        let keys = HeadView::new("append", "keys", keys, sizes)?;
        let values = HeadView::new("append", "values", values, sizes)?;
        let (runs, per_slab) = (self.slot_mapping(batch), self.storage.slab_pages());
        let slabs = (&mut self.storage.bytes_mut()[..], per_slab);
        paged::write_kv(self.layout, layer, slabs, &runs, [keys.rows(), values.rows()]);
        Ok(())
    }

    /// Slot mapping: page and slots of each run of new tokens.
    fn slot_mapping(&self, batch: &Batch) -> Vec<TokenRun> {
        let mut runs = Vec::new();
        for seq in batch.sequences() {
            let (sequence, tokens) = (self.sequence(seq.id()), seq.token_range());
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

    /// Commits a forward pass: its tokens count from now on. Every layer has been appended.
    ///
    /// # Errors
    /// [`Error::Shape`] when the batch has not begun.
    pub fn commit(&mut self, batch: &Batch) -> Result<()> {
        self.check_begun(batch)?;
        self.pass = None;
        for seq in batch.sequences() {
            let sequence = self.sequences.get_mut(&seq.id()).ok_or_else(unknown_sequence)?;
            sequence.documents.extend(sequence.len, seq)?;
            sequence.len += seq.token_range().len();
        }
        Ok(())
    }

    /// Position of each new token of an uncommitted batch, `[tokens]`, from the start of its document; from the start of its
    /// sequence when no documents were given.
    ///
    /// # Errors
    /// [`Error::Shape`] when the batch has an unknown sequence or resumes a document that has ended.
    pub fn positions(&self, batch: &Batch) -> Result<Vec<u32>> {
        let starts = self.document_starts(batch)?;
        let per_sequence = |seq: &crate::batch::BatchSeq| {
            let (len, tokens) = (self.len(seq.id()), seq.token_range());
            let index = move |token: usize| (len + token - tokens.start) as u32;
            seq.token_range().map(index).collect::<Vec<_>>()
        };
        let indices = batch.sequences().iter().flat_map(per_sequence);
        Ok(indices.zip(starts).map(|(index, start)| index - start).collect())
    }

    /// Index of the first token of each new token's document, `[tokens]`.
    fn document_starts(&self, batch: &Batch) -> Result<Vec<u32>> {
        let mut starts = Vec::with_capacity(batch.len());
        for seq in batch.sequences() {
            let sequence = self.sequences.get(&seq.id()).ok_or_else(unknown_sequence)?;
            starts.extend(sequence.documents.clone().extend(sequence.len, seq)?);
        }
        Ok(starts)
    }

    /// First visible key of each new token, `[tokens]`, under its document and a sliding window of `window` keys before its own.
    ///
    /// # Errors
    /// [`Error::Shape`] when the batch has not begun.
    pub(crate) fn first_keys(&self, batch: &Batch, window: Option<usize>) -> Result<Vec<u32>> {
        let mut first = self.check_begun(batch)?.document_starts.clone();
        let Some(window) = window else { return Ok(first) };
        for seq in batch.sequences() {
            let (len, tokens) = (self.len(seq.id()), seq.token_range());
            for (at, first) in first[tokens].iter_mut().enumerate() {
                *first = (*first).max((len + at).saturating_sub(window) as u32);
            }
        }
        Ok(first)
    }

    /// Page table, cached length and new tokens of each sequence of a batch.
    pub(crate) fn block_tables<'a>(&'a self, batch: &'a Batch) -> Vec<paged::SequenceView<'a>> {
        let per_sequence = |seq: &crate::batch::BatchSeq| {
            let sequence = self.sequence(seq.id());
            paged::SequenceView { pages: &sequence.pages, start: sequence.len, tokens: seq.token_range() }
        };
        batch.sequences().iter().map(per_sequence).collect()
    }

    /// Slabs of page memory, and the number of pages per slab.
    pub(crate) fn slabs(&self) -> (Vec<&[u8]>, usize) {
        (self.storage.bytes(), self.storage.slab_pages())
    }

    /// View of one layer of the pages in `slabs`.
    pub(crate) fn layer_pages<'a>(
        &self,
        layer: usize,
        (slabs, slab_pages): &'a (Vec<&'a [u8]>, usize),
    ) -> paged::LayerPages<'a> {
        paged::LayerPages { layout: self.layout, layer, slabs, slab_pages: *slab_pages }
    }

    /// Open forward pass of this batch.
    fn check_begun(&self, batch: &Batch) -> Result<&ForwardPass> {
        let is_begun = |pass: &&ForwardPass| {
            let sequences = batch.sequences().iter().map(|seq| (seq.id(), seq.token_range()));
            sequences.eq(pass.sequences.iter().cloned())
        };
        self.pass.as_ref().filter(is_begun).ok_or_else(|| Error::Shape {
            op: "forward pass",
            argument: "batch",
            actual: "one that has not begun".to_owned(),
            expected: "the batch given to `begin`, before `commit`".to_owned(),
        })
    }

    /// Checks that the pool has `layer`.
    pub(crate) fn check_layer(&self, layer: usize) -> Result<()> {
        if layer < self.layout.n_layers {
            return Ok(());
        }
        let (actual, expected) = (layer.to_string(), format!("below {}, the layers", self.layout.n_layers));
        Err(Error::Shape { op: "key/value pool", argument: "layer", actual, expected })
    }
}
