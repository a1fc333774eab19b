//! Pointers of Git LFS: small texts that stand for large files where these were not fetched.

/// What such a file is.
pub(crate) const POINTER: &str = "a Git LFS pointer, which stands for a file that was not fetched";

/// What should be there.
pub(crate) const POINTED_AT: &str =
    "the file itself; run `git lfs pull` in the folder, or fetch the model again";

/// Whether a file is one.
pub(crate) fn is_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs.github.com/spec/")
}
