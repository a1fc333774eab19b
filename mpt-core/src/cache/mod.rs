//! Paged KV cache: a pool of fixed-size pages, a page table per sequence, copy on write.
//!
//! A page holds 64 tokens of all layers. [`KvPool::fork`] shares the pages of a common prefix; a shared page is copied when
//! one of its sequences writes to it. Page memory is allocated at first use, and the pages of removed sequences are reused.
//!
//! A forward pass is a transaction: [`KvPool::begin`] reserves pages, [`KvPool::append`] writes each layer,
//! [`KvPool::commit`] makes the tokens count. [`KvPool::rollback`], or no commit, leaves every sequence unchanged.
//!
//! The layout of a page belongs to the kernels (`kernels/cpu/attention/paged`).

mod allocator;
mod forward_pass;
mod gather;
mod head_view;
mod page_storage;
mod sequence;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::batch::SeqId;
use crate::config::MptConfig;
use crate::error::{Error, Result};
use crate::kernels::cpu::attention::paged::{PAGE, PageLayout};
use crate::kv_dtype::KvDtype;
use allocator::PageAllocator;
use forward_pass::ForwardPass;
pub(crate) use head_view::HeadView;
use page_storage::PageStorage;
use sequence::CachedSequence;

/// Page pool with the keys and values of many sequences.
#[derive(Debug)]
pub struct KvPool {
    layout: PageLayout,
    allocator: PageAllocator,
    storage: PageStorage,
    sequences: BTreeMap<SeqId, CachedSequence>,
    /// Open transaction.
    pass: Option<ForwardPass>,
}

impl KvPool {
    /// Pool of `capacity_tokens` tokens over all sequences, rounded up to pages. Page memory is allocated at first use.
    ///
    /// # Errors
    /// [`Error::NoRoom`] when the system has no memory for the first page.
    pub fn new(config: &MptConfig, capacity_tokens: usize, dtype: KvDtype) -> Result<Self> {
        let mut pool = Self::with_layout(layout(config, dtype), capacity_tokens.div_ceil(PAGE));
        pool.storage.reserve(pool.allocator.total().min(1))?;
        Ok(pool)
    }

    /// Unbounded pool of one layer in f32, for keys that are recomputed at each use.
    pub fn scratch(kv_n_heads: usize, head_dim: usize) -> Self {
        let layout = PageLayout { dtype: KvDtype::F32, n_layers: 1, kv_n_heads, head_dim };
        Self::with_layout(layout, u32::MAX as usize)
    }

    fn with_layout(layout: PageLayout, pages: usize) -> Self {
        let pages = pages.min(u32::MAX as usize);
        Self {
            layout,
            allocator: PageAllocator::new(pages),
            storage: PageStorage::new(layout, pages),
            sequences: BTreeMap::new(),
            pass: None,
        }
    }

    /// Adds an empty sequence.
    pub fn add(&mut self) -> SeqId {
        self.insert(CachedSequence::default())
    }

    fn insert(&mut self, sequence: CachedSequence) -> SeqId {
        let id = SeqId::unused();
        self.sequences.insert(id, sequence);
        id
    }

    /// Number of cached tokens of a sequence; new tokens count after [`KvPool::commit`].
    ///
    /// # Panics
    /// When the pool has no such sequence.
    pub fn len(&self, id: SeqId) -> usize {
        self.sequence(id).len
    }

    /// Whether the sequence was added or forked in this pool and not removed.
    pub fn contains(&self, id: SeqId) -> bool {
        self.sequences.contains_key(&id)
    }

    /// Adds a sequence that shares the first `len` tokens of `id`. An open forward pass is rolled back.
    ///
    /// # Errors
    /// [`Error::Shape`] when the sequence is unknown or has fewer tokens.
    pub fn fork(&mut self, id: SeqId, len: usize) -> Result<SeqId> {
        self.rollback();
        let source = self.sequences.get(&id).ok_or_else(unknown_sequence)?;
        if len > source.len {
            let (actual, expected) = (len.to_string(), format!("up to {}, the tokens held", source.len));
            return Err(Error::Shape { op: "fork", argument: "len", actual, expected });
        }
        let pages = source.pages[..CachedSequence::pages_for(len)].to_vec();
        let mut fork = CachedSequence { pages, len, documents: source.documents.clone() };
        fork.documents.truncate(len);
        fork.pages.iter().for_each(|&page| self.allocator.retain(page));
        Ok(self.insert(fork))
    }

    /// Keeps the first `len` tokens of a sequence; no effect when it has fewer. An open forward pass is rolled back.
    ///
    /// # Panics
    /// When the pool has no such sequence.
    pub fn truncate(&mut self, id: SeqId, len: usize) {
        self.rollback();
        let sequence = self.sequences.get_mut(&id).expect("a sequence of this pool");
        sequence.len = sequence.len.min(len);
        sequence.documents.truncate(sequence.len);
        self.release_unused_pages(id);
    }

    /// Removes a sequence. An open forward pass is rolled back.
    ///
    /// # Panics
    /// When the pool has no such sequence.
    pub fn remove(&mut self, id: SeqId) {
        self.rollback();
        let sequence = self.sequences.remove(&id).expect("a sequence of this pool");
        sequence.pages.into_iter().for_each(|page| self.allocator.release(page));
    }

    /// Releases the pages after the cached tokens.
    fn release_unused_pages(&mut self, id: SeqId) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        let kept = CachedSequence::pages_for(sequence.len);
        sequence.pages.drain(kept..).for_each(|page| self.allocator.release(page));
    }

    fn sequence(&self, id: SeqId) -> &CachedSequence {
        self.sequences.get(&id).expect("a sequence of this pool")
    }

    /// `tokens` rounded up to whole pages: the share of the capacity that a sequence of this length occupies.
    pub fn round_up_to_pages(tokens: usize) -> usize {
        tokens.div_ceil(PAGE).saturating_mul(PAGE)
    }

    /// Tokens per page.
    pub fn page_size(&self) -> usize {
        PAGE
    }

    /// Number of free pages.
    pub fn free_pages(&self) -> usize {
        self.allocator.free()
    }

    /// Number of pages.
    pub fn total_pages(&self) -> usize {
        self.allocator.total()
    }

    /// Number of pages in use; a shared page counts once.
    pub fn used_pages(&self) -> usize {
        self.allocator.used()
    }

    /// Element type of keys and values.
    pub fn dtype(&self) -> KvDtype {
        self.layout.dtype
    }

    /// Bytes of the pages of a sequence of `tokens` tokens, over all layers.
    pub fn bytes(config: &MptConfig, tokens: usize, dtype: KvDtype) -> u64 {
        (layout(config, dtype).page_bytes() as u64).saturating_mul(tokens.div_ceil(PAGE) as u64)
    }

    /// Number of key/value heads.
    pub(crate) fn kv_n_heads(&self) -> usize {
        self.layout.kv_n_heads
    }

    /// Width of a head.
    pub(crate) fn head_dim(&self) -> usize {
        self.layout.head_dim
    }
}

fn layout(config: &MptConfig, dtype: KvDtype) -> PageLayout {
    let (kv_n_heads, head_dim) = (config.attn_config.kv_n_heads, config.head_dim);
    PageLayout { dtype, n_layers: config.n_layers, kv_n_heads, head_dim }
}

fn unknown_sequence() -> Error {
    Error::Shape {
        op: "key/value pool",
        argument: "sequence",
        actual: "none of this pool".to_owned(),
        expected: "one that was added here and not removed".to_owned(),
    }
}
