//! Git LFS pointers: texts that stand for files that were not fetched.

/// Description of a pointer in errors.
pub(crate) const POINTER: &str = "a Git LFS pointer, which stands for a file that was not fetched";

/// Expected content in errors.
pub(crate) const POINTED_AT: &str =
    "the file itself; run `git lfs pull` in the folder, or fetch the model again";

/// Whether `bytes` are a pointer.
pub(crate) fn is_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs.github.com/spec/")
}
