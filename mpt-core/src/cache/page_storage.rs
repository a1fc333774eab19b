//! Host memory of pages, allocated in slabs at first use. Slabs never move.
//!
//! Another device needs its own version of this file; the rest of the pool does not know the device.

use memmap2::MmapMut;

use crate::error::{Error, Result};
use crate::kernels::cpu::attention::paged::PageLayout;

/// Bytes of a slab, unless a page is larger.
const SLAB_BYTES: usize = 64 << 20;

/// Slabs of page memory.
#[derive(Debug)]
pub(super) struct PageStorage {
    layout: PageLayout,
    slab_pages: usize,
    slabs: Vec<MmapMut>,
}

impl PageStorage {
    /// Empty storage for up to `total` pages.
    pub(super) fn new(layout: PageLayout, total: usize) -> Self {
        let slab_pages = (SLAB_BYTES / layout.page_bytes().max(1)).min(total).max(1);
        Self { layout, slab_pages, slabs: Vec::new() }
    }

    /// Pages per slab.
    pub(super) fn slab_pages(&self) -> usize {
        self.slab_pages
    }

    /// Allocates memory for the pages `0..pages`. It is zero and becomes resident when first written.
    ///
    /// # Errors
    /// [`Error::NoRoom`] when the system has none; existing slabs stay.
    pub(super) fn reserve(&mut self, pages: usize) -> Result<()> {
        let bytes = self.layout.page_bytes().saturating_mul(self.slab_pages);
        while self.slabs.len() * self.slab_pages < pages {
            let needed = (self.layout.page_bytes() as u64).saturating_mul(pages as u64);
            let slab = MmapMut::map_anon(bytes).map_err(|source| Error::NoRoom { bytes: needed, source })?;
            advise_huge_pages(&slab);
            self.slabs.push(slab);
        }
        Ok(())
    }

    /// Copies a page.
    pub(super) fn copy(&mut self, from: u32, to: u32) {
        let (bytes, per_slab) = (self.layout.page_bytes(), self.slab_pages);
        let locate = |page: u32| (page as usize / per_slab, page as usize % per_slab * bytes);
        let ((from_slab, from), (to_slab, to)) = (locate(from), locate(to));
        if from_slab == to_slab {
            return self.slabs[to_slab].copy_within(from..from + bytes, to);
        }
        let [source, target] =
            self.slabs.get_disjoint_mut([from_slab, to_slab]).expect("two slabs of the pool");
        target[to..to + bytes].copy_from_slice(&source[from..from + bytes]);
    }

    /// Bytes of each slab.
    pub(super) fn bytes(&self) -> Vec<&[u8]> {
        self.slabs.iter().map(|slab| &slab[..]).collect()
    }

    /// Mutable bytes of each slab.
    pub(super) fn bytes_mut(&mut self) -> Vec<&mut [u8]> {
        self.slabs.iter_mut().map(|slab| &mut slab[..]).collect()
    }
}

/// Asks the system for huge pages. Attention over a long sequence is bound by memory reads, and address translation then
/// costs a tenth less. The request is a hint.
fn advise_huge_pages(slab: &MmapMut) {
    #[cfg(target_os = "linux")]
    let _ = slab.advise(memmap2::Advice::HugePage);
    #[cfg(not(target_os = "linux"))]
    let _ = slab;
}
