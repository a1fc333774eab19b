//! The layers of the crates: what stands above what.

/// The modules of a crate from top to bottom: each may use those below it. A crate that is not here has no layers yet.
pub(super) const LAYERS: &[(&str, &[&str])] = &[];

/// Folders whose modules may still use one another in a cycle, as `crate` or `crate::folder`.
pub(super) const CYCLES_STILL_ALLOWED: &[&str] = &[
    "mpt-cli",
    "mpt-core",
    "mpt-core::kernels::cpu",
    "mpt-core::kernels::cpu::gemm",
    "mpt-core::kernels::cpu::gemm::pack",
    "mpt-core::weights::gguf",
    "mpt-data",
    "mpt-data::prepare",
    "mpt-tokenize",
];
