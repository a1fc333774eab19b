//! Guard for calls into libraries that panic on some damaged files, where a panic is an error and no bug of ours.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Whether a panic of this thread would be caught as an error. A program's panic hook should stay silent then.
pub fn is_panic_caught() -> bool {
    DEPTH.get() > 0
}

/// Result of `call`, or the message of its panic, after which its data must not be used.
pub(crate) fn catch_panic<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    DEPTH.set(DEPTH.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(call));
    DEPTH.set(DEPTH.get() - 1);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no reason given".into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_inside_and_only_there() {
        assert!(!is_panic_caught());
        assert_eq!(catch_panic(is_panic_caught), Ok(true));
        let found = catch_panic(|| [1, 2][std::hint::black_box(2)]).expect_err("out of bounds");
        assert!(found.contains("index out of bounds"), "{found}");
        assert!(!is_panic_caught());
    }
}
