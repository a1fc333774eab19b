//! Memory of pages, on the host: a few pages at a time, as they are first needed. Nothing moves when more comes.
//!
//! A device of another kind has its own form of this file, and nothing else of the pool changes.

use memmap2::MmapMut;

use crate::error::{Error, Result};
use crate::kernels::cpu::attention::paged::PageLayout;

/// Bytes of a slab, unless a page is larger.
const SLAB_BYTES: usize = 64 << 20;

/// Memory of the pages that were ever used.
#[derive(Debug)]
pub(super) struct Slabs {
    layout: PageLayout,
    slab_pages: usize,
    slabs: Vec<MmapMut>,
}

impl Slabs {
    /// No memory yet, for up to `total` pages.
    pub(super) fn new(layout: PageLayout, total: usize) -> Self {
        let slab_pages = (SLAB_BYTES / layout.page_bytes().max(1)).min(total).max(1);
        Self { layout, slab_pages, slabs: Vec::new() }
    }

    /// Pages of a slab.
    pub(super) fn slab_pages(&self) -> usize {
        self.slab_pages
    }

    /// Makes sure that there is memory for the pages `0..pages`. The system gives it when it is first written.
    ///
    /// # Errors
    /// [`Error::NoRoom`] when the system has none; what there is stays.
    pub(super) fn reach(&mut self, pages: usize) -> Result<()> {
        let bytes = self.layout.page_bytes().saturating_mul(self.slab_pages);
        while self.slabs.len() * self.slab_pages < pages {
            let needed = (self.layout.page_bytes() as u64).saturating_mul(pages as u64);
            let slab = MmapMut::map_anon(bytes).map_err(|source| Error::NoRoom { bytes: needed, source })?;
            ask_for_large_pages(&slab);
            self.slabs.push(slab);
        }
        Ok(())
    }

    /// Copies a page to another.
    pub(super) fn copy(&mut self, from: u32, to: u32) {
        let (bytes, per_slab) = (self.layout.page_bytes(), self.slab_pages);
        let place = |page: u32| (page as usize / per_slab, page as usize % per_slab * bytes);
        let ((from_slab, from), (to_slab, to)) = (place(from), place(to));
        if from_slab == to_slab {
            return self.slabs[to_slab].copy_within(from..from + bytes, to);
        }
        let [source, target] =
            self.slabs.get_disjoint_mut([from_slab, to_slab]).expect("two slabs of the pool");
        target[to..to + bytes].copy_from_slice(&source[from..from + bytes]);
    }

    pub(super) fn bytes(&self) -> Vec<&[u8]> {
        self.slabs.iter().map(|slab| &slab[..]).collect()
    }

    pub(super) fn bytes_mut(&mut self) -> Vec<&mut [u8]> {
        self.slabs.iter_mut().map(|slab| &mut slab[..]).collect()
    }
}

/// Asks the system for memory in large pieces: attention over a long sequence is bound by reading it, and then spends a
/// tenth less on addresses. A system that has none gives small ones, and nothing else changes.
fn ask_for_large_pages(slab: &MmapMut) {
    #[cfg(target_os = "linux")]
    let _ = slab.advise(memmap2::Advice::HugePage);
    #[cfg(not(target_os = "linux"))]
    let _ = slab;
}
