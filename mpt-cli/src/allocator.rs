//! Global allocator, which keeps freed pages for the next tensor. With pages that go back to the system at once, a
//! training step spends a third of its time in page faults.

use std::ffi::{c_int, c_long};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(unsafe_code, reason = "an option of the allocator, which has no Rust interface")]
// SAFETY: the signature is that of `mimalloc.h`.
unsafe extern "C" {
    fn mi_option_set(option: c_int, value: c_long);
}

/// `mi_option_purge_delay` of `mimalloc.h`, the same in its versions 2 and 3.
const PURGE_DELAY: c_int = 15;

/// Keeps freed pages for the life of the process, whose memory stays at its peak.
pub(crate) fn keep_freed_pages() {
    const NEVER: c_long = -1;
    #[expect(unsafe_code, reason = "see above")]
    // SAFETY: the function takes any option and value and may be called at any time.
    unsafe {
        mi_option_set(PURGE_DELAY, NEVER);
    }
}
