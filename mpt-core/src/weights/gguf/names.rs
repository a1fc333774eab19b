//! Tensor names of MPT in checkpoints and in GGUF.

use crate::params::{Module, ModuleId, ParamId, ParamKind};

/// GGUF names of the modules outside blocks.
const OF_MODEL: [(Module, &str); 4] = [
    (Module::Wte, "token_embd"),
    (Module::Wpe, "position_embd"),
    (Module::NormF, "output_norm"),
    (Module::LmHead, "output"),
];

/// GGUF names of the modules of a block.
const OF_BLOCK: [(Module, &str); 8] = [
    (Module::Norm1, "attn_norm"),
    (Module::Norm2, "ffn_norm"),
    (Module::Wqkv, "attn_qkv"),
    (Module::QLn, "attn_q_norm"),
    (Module::KLn, "attn_k_norm"),
    (Module::OutProj, "attn_output"),
    (Module::UpProj, "ffn_up"),
    (Module::DownProj, "ffn_down"),
];

/// GGUF name of a checkpoint name; `None` when llama.cpp's MPT has no such tensor.
pub(crate) fn to_gguf(name: &str) -> Option<String> {
    let ParamId { module, kind } = name.parse().ok()?;
    let kind = match kind {
        ParamKind::Weight => "weight",
        ParamKind::Bias => "bias",
        ParamKind::LoraA | ParamKind::LoraB => return None,
    };
    let find = |table: &[(Module, &'static str)]| {
        table.iter().find(|(known, _)| *known == module.module).map(|&(_, name)| name)
    };
    Some(match module.layer {
        Some(layer) => format!("blk.{layer}.{}.{kind}", find(&OF_BLOCK)?),
        None => format!("{}.{kind}", find(&OF_MODEL)?),
    })
}

/// Checkpoint name of a GGUF name; `None` when MPT has no such tensor.
pub(crate) fn from_gguf(name: &str) -> Option<String> {
    let (module, kind) = name.rsplit_once('.')?;
    let kind = match kind {
        "weight" => ParamKind::Weight,
        "bias" => ParamKind::Bias,
        _ => return None,
    };
    let find = |table: &[(Module, &str)], name: &str| {
        table.iter().find(|(_, known)| *known == name).map(|&(module, _)| module)
    };
    let module = match module.strip_prefix("blk.") {
        Some(rest) => {
            let (layer, name) = rest.split_once('.')?;
            ModuleId::of_block(layer.parse().ok()?, find(&OF_BLOCK, name)?)
        }
        None => ModuleId::of_model(find(&OF_MODEL, module)?),
    };
    Some(module.param(kind).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tensor_has_one_name_in_each_format() {
        let json = r#"{"n_layers": 2, "no_bias": false, "tie_word_embeddings": false,
                       "attn_config": {"alibi": false, "qk_ln": true}}"#;
        let config = crate::MptConfig::from_json(json, std::path::Path::new("config.json")).unwrap();
        for name in config.parameter_shapes().keys() {
            let gguf = to_gguf(name).unwrap_or_else(|| panic!("{name} has no name in GGUF"));
            assert_eq!(from_gguf(&gguf).as_ref(), Some(name));
        }
        assert_eq!(to_gguf("transformer.blocks.0.ffn.gate_proj.weight"), None);
        assert_eq!(from_gguf("blk.0.attn_q.weight"), None);
    }
}
