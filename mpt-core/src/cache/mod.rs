//! Keys and values of the tokens of many sequences, in pages that sequences share: the paged cache.
//!
//! A sequence is a list of pages of 64 tokens each. Sequences that begin alike share the pages of their common prefix
//! ([`KvPool::fork`]); a page that is shared is copied when one of its sequences writes to it. Memory comes as pages are
//! first used, and a removed sequence's pages are used again.
//!
//! A forward pass is [`KvPool::begin`], for each layer [`KvPool::append`] and attention, then [`KvPool::commit`]. Without
//! the last, every sequence is as it was.

mod heads;
mod pages;
mod pass;
mod read;
mod sequence;
mod slabs;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::batch::SeqId;
use crate::config::MptConfig;
use crate::error::{Error, Result};
use crate::kernels::cpu::attention::paged::{PAGE, PageLayout};
use crate::kv_dtype::KvDtype;
pub(crate) use heads::HostHeads;
use pages::Pages;
use pass::Pass;
use sequence::Sequence;
use slabs::Slabs;

/// Keys and values of many sequences.
#[derive(Debug)]
pub struct KvPool {
    layout: PageLayout,
    pages: Pages,
    slabs: Slabs,
    sequences: BTreeMap<SeqId, Sequence>,
    /// The forward pass that has begun.
    pass: Option<Pass>,
}

impl KvPool {
    /// A pool for `capacity_tokens` tokens of all sequences together, rounded up to pages. A page has memory once it is used.
    ///
    /// # Errors
    /// [`Error::NoRoom`] when the system has no memory for a first page.
    pub fn new(config: &MptConfig, capacity_tokens: usize, dtype: KvDtype) -> Result<Self> {
        let mut pool = Self::with_layout(layout(config, dtype), capacity_tokens.div_ceil(PAGE));
        pool.slabs.reach(pool.pages.total().min(1))?;
        Ok(pool)
    }

    /// A pool of one layer in f32, of no bound but the system's: for keys that are computed again at each use.
    pub fn scratch(kv_n_heads: usize, head_dim: usize) -> Self {
        let layout = PageLayout { dtype: KvDtype::F32, n_layers: 1, kv_n_heads, head_dim };
        Self::with_layout(layout, u32::MAX as usize)
    }

    fn with_layout(layout: PageLayout, pages: usize) -> Self {
        let pages = pages.min(u32::MAX as usize);
        Self {
            layout,
            pages: Pages::new(pages),
            slabs: Slabs::new(layout, pages),
            sequences: BTreeMap::new(),
            pass: None,
        }
    }

    /// A new sequence without tokens.
    pub fn add(&mut self) -> SeqId {
        self.insert(Sequence::default())
    }

    fn insert(&mut self, sequence: Sequence) -> SeqId {
        let id = SeqId::unused();
        self.sequences.insert(id, sequence);
        id
    }

    /// Tokens held of a sequence; those of a forward pass count once it is committed.
    ///
    /// # Panics
    /// When the pool has no such sequence.
    pub fn len(&self, id: SeqId) -> usize {
        self.sequence(id).len
    }

    /// Whether the pool has this sequence: one that was added or forked here and not removed.
    pub fn contains(&self, id: SeqId) -> bool {
        self.sequences.contains_key(&id)
    }

    /// A new sequence that holds the first `len` tokens of `id`, on the same pages. A forward pass that has begun is ended
    /// without effect.
    ///
    /// # Errors
    /// [`Error::Shape`] when the pool has no such sequence or it holds fewer tokens.
    pub fn fork(&mut self, id: SeqId, len: usize) -> Result<SeqId> {
        self.abandon();
        let source = self.sequences.get(&id).ok_or_else(unknown)?;
        if len > source.len {
            let (actual, expected) = (len.to_string(), format!("up to {}, the tokens held", source.len));
            return Err(Error::Shape { op: "fork", argument: "len", actual, expected });
        }
        let pages = source.pages[..Sequence::pages_of(len)].to_vec();
        let mut fork = Sequence { pages, len, documents: source.documents.clone() };
        fork.documents.truncate(len);
        fork.pages.iter().for_each(|&page| self.pages.share(page));
        Ok(self.insert(fork))
    }

    /// Forgets all but the first `len` tokens of a sequence; does nothing when it holds fewer. A forward pass that has
    /// begun is ended without effect.
    ///
    /// # Panics
    /// When the pool has no such sequence.
    pub fn truncate(&mut self, id: SeqId, len: usize) {
        self.abandon();
        let sequence = self.sequences.get_mut(&id).expect("a sequence of this pool");
        sequence.len = sequence.len.min(len);
        sequence.documents.truncate(sequence.len);
        self.trim(id);
    }

    /// Forgets a sequence. A forward pass that has begun is ended without effect.
    ///
    /// # Panics
    /// When the pool has no such sequence.
    pub fn remove(&mut self, id: SeqId) {
        self.abandon();
        let sequence = self.sequences.remove(&id).expect("a sequence of this pool");
        sequence.pages.into_iter().for_each(|page| self.pages.give_back(page));
    }

    /// Gives back the pages behind the tokens held.
    fn trim(&mut self, id: SeqId) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        let kept = Sequence::pages_of(sequence.len);
        sequence.pages.drain(kept..).for_each(|page| self.pages.give_back(page));
    }

    fn sequence(&self, id: SeqId) -> &Sequence {
        self.sequences.get(&id).expect("a sequence of this pool")
    }

    /// `tokens` rounded up to whole pages: what a sequence of so many takes of a pool's capacity.
    pub fn whole_pages(tokens: usize) -> usize {
        tokens.div_ceil(PAGE).saturating_mul(PAGE)
    }

    /// Tokens of a page.
    pub fn page_tokens(&self) -> usize {
        PAGE
    }

    /// Pages that no sequence has.
    pub fn free_pages(&self) -> usize {
        self.pages.free()
    }

    /// Pages in all.
    pub fn total_pages(&self) -> usize {
        self.pages.total()
    }

    /// Pages that sequences have; one that several share counts once.
    pub fn used_pages(&self) -> usize {
        self.pages.used()
    }

    /// How numbers are held.
    pub fn dtype(&self) -> KvDtype {
        self.layout.dtype
    }

    /// Bytes of the pages of a sequence of `tokens` tokens.
    pub fn bytes(config: &MptConfig, tokens: usize, dtype: KvDtype) -> u64 {
        (layout(config, dtype).page_bytes() as u64).saturating_mul(tokens.div_ceil(PAGE) as u64)
    }

    /// Heads of keys and values.
    pub(crate) fn kv_n_heads(&self) -> usize {
        self.layout.kv_n_heads
    }

    /// Numbers of a head.
    pub(crate) fn head_dim(&self) -> usize {
        self.layout.head_dim
    }
}

fn layout(config: &MptConfig, dtype: KvDtype) -> PageLayout {
    let (kv_n_heads, head_dim) = (config.attn_config.kv_n_heads, config.head_dim);
    PageLayout { dtype, n_layers: config.n_layers, kv_n_heads, head_dim }
}

fn unknown() -> Error {
    Error::Shape {
        op: "key/value pool",
        argument: "sequence",
        actual: "none of this pool".to_owned(),
        expected: "one that was added here and not removed".to_owned(),
    }
}
