//! Which pages are used, and by how many sequences. Pages are numbers here; `slabs` has their memory.

/// Counts the sequences that share each page.
#[derive(Debug)]
pub(super) struct Pages {
    /// Sequences that have each page that was ever used, `[pages]`.
    owners: Vec<u32>,
    /// Pages that were used and are free again.
    free: Vec<u32>,
    total: usize,
}

impl Pages {
    /// `total` free pages.
    pub(super) fn new(total: usize) -> Self {
        Self { owners: Vec::new(), free: Vec::new(), total }
    }

    pub(super) fn total(&self) -> usize {
        self.total
    }

    pub(super) fn used(&self) -> usize {
        self.owners.len() - self.free.len()
    }

    pub(super) fn free(&self) -> usize {
        self.total - self.used()
    }

    /// Pages that have memory once `more` are taken.
    pub(super) fn reached_with(&self, more: usize) -> usize {
        self.owners.len() + more.saturating_sub(self.free.len())
    }

    /// Takes a free page for one sequence.
    ///
    /// # Panics
    /// When there is none.
    pub(super) fn take(&mut self) -> u32 {
        let page = self.free.pop().unwrap_or_else(|| {
            assert!(self.owners.len() < self.total, "a page was promised");
            self.owners.push(0);
            self.owners.len() as u32 - 1
        });
        self.owners[page as usize] = 1;
        page
    }

    /// Lets one more sequence have a page.
    pub(super) fn share(&mut self, page: u32) {
        self.owners[page as usize] += 1;
    }

    /// Sequences that have a page.
    pub(super) fn owners(&self, page: u32) -> u32 {
        self.owners[page as usize]
    }

    /// Takes a page from a sequence; it is free when no other has it.
    ///
    /// # Panics
    /// When no sequence has it.
    pub(super) fn give_back(&mut self, page: u32) {
        let owners = &mut self.owners[page as usize];
        *owners = owners.checked_sub(1).expect("a page that is given back is had");
        if *owners == 0 {
            self.free.push(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_free_when_its_last_sequence_gives_it_back() {
        let mut pages = Pages::new(3);
        let [a, b] = [pages.take(), pages.take()];
        pages.share(a);
        assert_eq!((pages.owners(a), pages.used(), pages.free()), (2, 2, 1));
        pages.give_back(a);
        pages.give_back(b);
        assert_eq!((pages.used(), pages.free()), (1, 2));
        assert_eq!((pages.reached_with(1), pages.reached_with(2)), (2, 3));
        pages.give_back(a);
        assert_eq!((pages.take(), pages.free()), (a, 2), "a used page goes before a fresh one");
    }
}
