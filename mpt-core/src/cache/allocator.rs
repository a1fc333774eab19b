//! Page allocator: free list and reference counts. Pages are indices here; `page_storage` has their memory.

/// Free list and reference counts of a pool's pages.
#[derive(Debug)]
pub(super) struct PageAllocator {
    /// Number of sequences on each page ever used, `[pages]`.
    ref_counts: Vec<u32>,
    /// Released pages.
    free: Vec<u32>,
    total: usize,
}

impl PageAllocator {
    /// Allocator of `total` free pages.
    pub(super) fn new(total: usize) -> Self {
        Self { ref_counts: Vec::new(), free: Vec::new(), total }
    }

    /// Number of pages.
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// Number of pages in use.
    pub(super) fn used(&self) -> usize {
        self.ref_counts.len() - self.free.len()
    }

    /// Number of free pages.
    pub(super) fn free(&self) -> usize {
        self.total - self.used()
    }

    /// Number of pages ever used, after `more` further allocations.
    pub(super) fn high_water_with(&self, more: usize) -> usize {
        self.ref_counts.len() + more.saturating_sub(self.free.len())
    }

    /// Allocates a page with a reference count of 1; released pages come first.
    ///
    /// # Panics
    /// When no page is free.
    pub(super) fn allocate(&mut self) -> u32 {
        let page = self.free.pop().unwrap_or_else(|| {
            assert!(self.ref_counts.len() < self.total, "a free page was checked for");
            self.ref_counts.push(0);
            self.ref_counts.len() as u32 - 1
        });
        self.ref_counts[page as usize] = 1;
        page
    }

    /// Increments the reference count of a page.
    pub(super) fn retain(&mut self, page: u32) {
        self.ref_counts[page as usize] += 1;
    }

    /// Reference count of a page.
    pub(super) fn ref_count(&self, page: u32) -> u32 {
        self.ref_counts[page as usize]
    }

    /// Decrements the reference count of a page, and frees it at 0.
    ///
    /// # Panics
    /// When the page is free.
    pub(super) fn release(&mut self, page: u32) {
        let ref_count = &mut self.ref_counts[page as usize];
        *ref_count = ref_count.checked_sub(1).expect("a released page is in use");
        if *ref_count == 0 {
            self.free.push(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_free_when_its_last_sequence_releases_it() {
        let mut pages = PageAllocator::new(3);
        let [a, b] = [pages.allocate(), pages.allocate()];
        pages.retain(a);
        assert_eq!((pages.ref_count(a), pages.used(), pages.free()), (2, 2, 1));
        pages.release(a);
        pages.release(b);
        assert_eq!((pages.used(), pages.free()), (1, 2));
        assert_eq!((pages.high_water_with(1), pages.high_water_with(2)), (2, 3));
        pages.release(a);
        assert_eq!((pages.allocate(), pages.free()), (a, 2), "a used page goes before a fresh one");
    }
}
