//! What wrappers of a model put before the names of its tensors: `torch.compile`, data parallelism, trainers.

use super::file::MappedFile;

/// What wrappers write, each once or more.
const WRAPPERS: [&str; 5] = ["_orig_mod.", "_fsdp_wrapped_module.", "module.", "model.", "state_dict."];

/// The tensor that every model has, and what all but the head have before their names.
const EMBEDDING: &str = "wte.weight";
const BASE: &str = "transformer.";

/// Gives all tensors checkpoint names, where the embedding's shows that they stand under a wrapper or, as the base model
/// of transformers is saved, without `transformer.`.
pub(super) fn strip(files: &mut [MappedFile]) {
    let mut tensors = files.iter().flat_map(|file| &file.tensors);
    let Some((prefix, has_base)) = tensors.find_map(|tensor| wrapped(&tensor.name)) else { return };
    let prefix = prefix.to_owned();
    for tensor in files.iter_mut().flat_map(|file| &mut file.tensors) {
        let rest = tensor.name.strip_prefix(&prefix).unwrap_or(&tensor.name);
        let base = if has_base || rest.starts_with("lm_head.") { "" } else { BASE };
        tensor.name = format!("{base}{rest}");
    }
}

/// What stands before the embedding's checkpoint name, and whether the name has `transformer.`; `None` where nothing does
/// or another tensor is named.
fn wrapped(name: &str) -> Option<(&str, bool)> {
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
        assert_eq!(wrapped("transformer.wte.weight"), None);
        assert_eq!(wrapped("wte.weight"), Some(("", false)));
        assert_eq!(wrapped("model.transformer.wte.weight"), Some(("model.", true)));
        assert_eq!(wrapped("module._orig_mod.transformer.wte.weight"), Some(("module._orig_mod.", true)));
        assert_eq!(wrapped("other.transformer.wte.weight"), None);
        assert_eq!(wrapped("transformer.norm_f.weight"), None);
    }
}
