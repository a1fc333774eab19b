//! Number of compute threads, of rayon's pool and of the kernels' pool.

use crate::error::{Error, Result};

/// Sets the number of compute threads of the process. Call it once, before any other work. Results do not depend on it.
///
/// # Errors
/// [`Error::Threads`] when the pool already exists with another number, or the system refuses threads.
pub fn set_threads(threads: usize) -> Result<()> {
    let fail = |reason: String| Error::Threads { threads, reason };
    if threads == 0 {
        return Err(fail("at least one is needed".to_owned()));
    }
    match rayon::ThreadPoolBuilder::new().num_threads(threads).build_global() {
        Ok(()) => Ok(()),
        Err(_) if rayon::current_num_threads() == threads => Ok(()),
        Err(error) => Err(fail(error.to_string())),
    }
}
