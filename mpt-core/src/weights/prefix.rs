//! Prefixes that wrappers put before tensor names: `torch.compile`, data parallelism, trainers.

use super::file::MappedFile;

/// Prefixes of wrappers; they repeat and nest.
const WRAPPERS: [&str; 5] = ["_orig_mod.", "_fsdp_wrapped_module.", "module.", "model.", "state_dict."];

/// Name of the embedding below [`BASE`], the prefix of all tensors but the head.
const EMBEDDING: &str = "wte.weight";
const BASE: &str = "transformer.";

/// Restores checkpoint names. The embedding's name tells the wrapper prefix, and whether `transformer.` is missing, as in
/// transformers' base model.
pub(super) fn strip(files: &mut [MappedFile]) {
    let mut tensors = files.iter().flat_map(|file| &file.tensors);
    let Some((prefix, has_base)) = tensors.find_map(|tensor| wrapper_prefix(&tensor.name)) else { return };
    let prefix = prefix.to_owned();
    for tensor in files.iter_mut().flat_map(|file| &mut file.tensors) {
        let rest = tensor.name.strip_prefix(&prefix).unwrap_or(&tensor.name);
        let base = if has_base || rest.starts_with("lm_head.") { "" } else { BASE };
        tensor.name = format!("{base}{rest}");
    }
}

/// Wrapper prefix of the embedding's name, and whether `transformer.` follows; `None` for a plain checkpoint name and for
/// another tensor.
fn wrapper_prefix(name: &str) -> Option<(&str, bool)> {
    let before = name.strip_suffix(EMBEDDING)?;
    let (prefix, has_base) = before.strip_suffix(BASE).map_or((before, false), |prefix| (prefix, true));
    let mut rest = prefix;
    while let Some(inner) = WRAPPERS.iter().find_map(|wrapper| rest.strip_prefix(wrapper)) {
        rest = inner;
    }
    (rest.is_empty() && (!has_base || !prefix.is_empty())).then_some((prefix, has_base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_are_seen_and_other_names_left_alone() {
        assert_eq!(wrapper_prefix("transformer.wte.weight"), None);
        assert_eq!(wrapper_prefix("wte.weight"), Some(("", false)));
        assert_eq!(wrapper_prefix("model.transformer.wte.weight"), Some(("model.", true)));
        assert_eq!(
            wrapper_prefix("module._orig_mod.transformer.wte.weight"),
            Some(("module._orig_mod.", true))
        );
        assert_eq!(wrapper_prefix("other.transformer.wte.weight"), None);
        assert_eq!(wrapper_prefix("transformer.norm_f.weight"), None);
    }
}
