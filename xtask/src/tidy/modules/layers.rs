//! The layers of the crates: what stands above what.

/// The modules of a crate from top to bottom: each may use those below it. A crate that is not here has no layers yet.
pub(super) const LAYERS: &[(&str, &[&str])] = &[
    (
        "mpt-data",
        &[
            "report",
            "trace",
            "simulate",
            "interop",
            "prepare",
            "loader",
            "order",
            "manifest",
            "document_tables",
            "shard",
            "source",
            "config",
            "dedup",
            "filter",
            "mixing",
            "compressed",
            "hashed_file",
            "blob",
            "remote",
            "layout",
            "pack",
            "document",
            "runfile",
            "progress",
            "durable",
            "map",
            "hash",
            "error",
        ],
    ),
    (
        "mpt-tokenize",
        &[
            "chat",
            "gguf",
            "stream",
            "tokenizer",
            "file",
            "split",
            "added",
            "bpe",
            "classes",
            "bytes",
            "train",
            "error",
        ],
    ),
];

/// Folders whose modules may still use one another in a cycle, as `crate` or `crate::folder`.
pub(super) const CYCLES_STILL_ALLOWED: &[&str] = &[
    "mpt-cli",
    "mpt-core",
    "mpt-core::kernels::cpu",
    "mpt-core::kernels::cpu::gemm",
    "mpt-core::kernels::cpu::gemm::pack",
    "mpt-core::weights::gguf",
];
