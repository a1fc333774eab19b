//! Listing of a repository at a commit, and the selection of files that mpt reads: configuration, tokenizer and
//! weights; never code.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::hub::digest::Digest;
use crate::hub::name::{is_hex, is_safe_file_name};

/// Files that describe a model and its tokenizer.
const CONFIG_FILES: [&str; 7] = [
    "adapter_config.json",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

/// Weights of a LoRA adapter. They are no alternative to those of a model.
const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// Files to download, all of one commit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    /// Commit, 40 hexadecimal digits.
    pub(crate) commit: String,
    /// Files, configuration before weights, each group by name.
    pub(crate) files: Vec<RemoteFile>,
    /// Sum of their sizes.
    pub(crate) bytes: u64,
}

/// File on the hub.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RemoteFile {
    /// Name, without folders.
    pub(crate) name: String,
    /// Size in bytes.
    pub(crate) size: u64,
    /// Digest of its bytes.
    pub(crate) digest: Digest,
}

#[derive(Deserialize)]
struct ModelInfo {
    sha: String,
    siblings: Vec<RepoSibling>,
}

#[derive(Deserialize)]
struct RepoSibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<LfsInfo>,
}

#[derive(Deserialize)]
struct LfsInfo {
    sha256: String,
}

/// Format of a weights file, in order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum WeightsFormat {
    Safetensors,
    Torch,
    Gguf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum FileRole {
    Config,
    Adapter,
    Index(WeightsFormat),
    Weights(WeightsFormat),
}

/// Parses the hub's response and selects the files that mpt reads. The error describes the problem of the response.
pub(crate) fn parse(body: &[u8]) -> Result<Listing, String> {
    let raw: ModelInfo = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if !is_hex(&raw.sha, 40) {
        return Err(format!("`sha` is {:?}, expected a commit of 40 hexadecimal digits", raw.sha));
    }
    if let Some(bad) = raw.siblings.iter().find(|file| !is_safe_file_name(&file.rfilename)) {
        return Err(format!("the file name {:?} would lead out of the repository's folder", bad.rfilename));
    }
    let named = raw.siblings.into_iter().map(|file| (file.rfilename.clone(), file));
    let files =
        select_files(named).into_iter().map(|(_, file)| remote_file(file)).collect::<Result<Vec<_>, _>>()?;
    let bytes = files.iter().try_fold(0u64, |sum, file| sum.checked_add(file.size));
    let bytes = bytes.ok_or("the sizes of the files are out of range")?;
    Ok(Listing { commit: raw.sha, files, bytes })
}

/// Selects the files that mpt reads, with weights of the most preferred format alone, sorted by role and name.
pub(crate) fn select_files<T>(files: impl IntoIterator<Item = (String, T)>) -> Vec<(String, T)> {
    let with_role = |(name, file): (String, T)| Some(((role(&name)?, name), file));
    let mut files: BTreeMap<_, _> = files.into_iter().filter_map(with_role).collect();
    let best = files.keys().find_map(|(role, _)| match role {
        FileRole::Weights(format) => Some(*format),
        _ => None,
    });
    files.retain(|(role, _), _| match role {
        FileRole::Config | FileRole::Adapter => true,
        FileRole::Index(format) | FileRole::Weights(format) => Some(*format) == best,
    });
    files.into_iter().map(|((_, name), file)| (name, file)).collect()
}

fn role(name: &str) -> Option<FileRole> {
    let torch = name.starts_with("pytorch_model");
    match name {
        // In a folder, or on a drive of its own on some systems: `c:model.gguf`.
        _ if name.contains(['/', ':']) => None,
        _ if CONFIG_FILES.contains(&name) => Some(FileRole::Config),
        ADAPTER_WEIGHTS => Some(FileRole::Adapter),
        _ if name.ends_with(".safetensors") => Some(FileRole::Weights(WeightsFormat::Safetensors)),
        _ if name.ends_with(".safetensors.index.json") => Some(FileRole::Index(WeightsFormat::Safetensors)),
        _ if torch && name.ends_with(".bin") => Some(FileRole::Weights(WeightsFormat::Torch)),
        _ if torch && name.ends_with(".bin.index.json") => Some(FileRole::Index(WeightsFormat::Torch)),
        _ if name.ends_with(".gguf") => Some(FileRole::Weights(WeightsFormat::Gguf)),
        _ => None,
    }
}

/// Whether a file of this name holds weights.
pub(crate) fn is_weights(name: &str) -> bool {
    matches!(role(name), Some(FileRole::Weights(_) | FileRole::Adapter))
}

/// Whether a file of this name is an index of sharded weights.
pub(crate) fn is_index(name: &str) -> bool {
    matches!(role(name), Some(FileRole::Index(_)))
}

fn remote_file(raw: RepoSibling) -> Result<RemoteFile, String> {
    let digest = match (&raw.lfs, &raw.blob_id) {
        (Some(lfs), _) => Digest::sha256(&lfs.sha256),
        (None, Some(blob)) => Digest::git_sha1(blob),
        (None, None) => None,
    };
    let name = raw.rfilename;
    let digest =
        digest.ok_or_else(|| format!("{name}: no valid `lfs.sha256` or `blobId` to check it with"))?;
    let size = raw.size.ok_or_else(|| format!("{name}: no `size`"))?;
    Ok(RemoteFile { name, size, digest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names(files: &[&str]) -> Vec<String> {
        let siblings: Vec<_> = files
            .iter()
            .map(|name| json!({ "rfilename": name, "size": 1, "blobId": "a".repeat(40) }))
            .collect();
        let body = json!({ "sha": "c".repeat(40), "siblings": siblings }).to_string();
        let listing = parse(body.as_bytes()).expect("a good answer");
        listing.files.into_iter().map(|file| file.name).collect()
    }

    #[test]
    fn safetensors_come_before_all_other_weights() {
        let all = [
            "README.md",
            "modeling_mpt.py",
            "model.gguf",
            "pytorch_model-00001-of-00001.bin",
            "pytorch_model.bin.index.json",
            "training_args.bin",
            "model.safetensors.index.json",
            "model-00001-of-00001.safetensors",
            "onnx/model.safetensors",
            "c:model.safetensors",
            "tokenizer.json",
            "config.json",
        ];
        let shard = "model-00001-of-00001.safetensors";
        assert_eq!(names(&all), ["config.json", "tokenizer.json", "model.safetensors.index.json", shard]);
    }

    #[test]
    fn torch_and_gguf_stand_in_in_this_order() {
        let torch = ["model.gguf", "pytorch_model.bin", "adapter_model.safetensors"];
        assert_eq!(names(&torch), ["adapter_model.safetensors", "pytorch_model.bin"]);
        assert_eq!(names(&["model.gguf", "model.safetensors.index.json"]), ["model.gguf"]);
    }

    #[test]
    fn large_files_are_checked_by_sha256() {
        let lfs = json!({ "sha256": "b".repeat(64), "size": 5 });
        let blob = "a".repeat(40);
        let file = json!({ "rfilename": "model.safetensors", "size": 5, "blobId": blob, "lfs": lfs });
        let body = json!({ "sha": "c".repeat(40), "siblings": [file] }).to_string();
        let listing = parse(body.as_bytes()).expect("a good answer");
        assert_eq!(listing.files[0].digest.hex(), "b".repeat(64));
        assert_eq!(listing.bytes, 5);
    }

    #[test]
    fn bad_answers_are_refused_with_the_reason() {
        let (sha, blob) = ("c".repeat(40), "a".repeat(40));
        for (body, expected) in [
            (json!({ "sha": "../x", "siblings": [] }), "sha"),
            (json!({ "siblings": [] }), "sha"),
            (json!({ "sha": sha, "siblings": [{ "rfilename": "../x.bin" }] }), "../x.bin"),
            (json!({ "sha": sha, "siblings": [{ "rfilename": "config.json", "size": 1 }] }), "blobId"),
            (json!({ "sha": sha, "siblings": [{ "rfilename": "config.json", "blobId": blob }] }), "size"),
            (
                json!({ "sha": sha, "siblings": [
                    { "rfilename": "a.gguf", "blobId": blob, "size": u64::MAX },
                    { "rfilename": "b.gguf", "blobId": blob, "size": 1 },
                ] }),
                "out of range",
            ),
        ] {
            let error = parse(body.to_string().as_bytes()).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }
}
