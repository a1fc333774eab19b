//! Number of compute threads, of rayon's pool and of the kernels' pool.

use crate::error::{Error, Result};

/// Sets the number of compute threads of the process. Call it once, before any other work. Results do not depend on it.
///
/// # Errors
/// [`Error::Threads`] when the pool already exists with another number, or the system refuses threads.
pub fn set_threads(threads: usize) -> Result<()> {
    if threads == 0 {
        let reason = "at least one is needed".to_owned();
        return Err(Error::Threads { threads, reason, source: None });
    }
    match rayon::ThreadPoolBuilder::new().num_threads(threads).build_global() {
        Ok(()) => Ok(()),
        Err(_) if rayon::current_num_threads() == threads => Ok(()),
        Err(error) => Err(Error::Threads { threads, reason: error.to_string(), source: Some(error.into()) }),
    }
}
