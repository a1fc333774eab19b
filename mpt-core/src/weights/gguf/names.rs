//! Names of MPT's tensors: those of checkpoints, and those of llama.cpp.

/// Pairs of names of a whole model, checkpoint first.
const OF_MODEL: [(&str, &str); 4] = [
    ("transformer.wte", "token_embd"),
    ("transformer.wpe", "position_embd"),
    ("transformer.norm_f", "output_norm"),
    ("lm_head", "output"),
];

/// Pairs of names within a block, checkpoint first.
const OF_BLOCK: [(&str, &str); 8] = [
    ("norm_1", "attn_norm"),
    ("norm_2", "ffn_norm"),
    ("attn.Wqkv", "attn_qkv"),
    ("attn.q_ln", "attn_q_norm"),
    ("attn.k_ln", "attn_k_norm"),
    ("attn.out_proj", "attn_output"),
    ("ffn.up_proj", "ffn_up"),
    ("ffn.down_proj", "ffn_down"),
];

/// llama.cpp's name of a checkpoint's tensor.
pub(crate) fn to_gguf(name: &str) -> Option<String> {
    let (layer, kind) = name.rsplit_once('.')?;
    if let Some((_, gguf)) = OF_MODEL.iter().find(|(hf, _)| *hf == layer) {
        return Some(format!("{gguf}.{kind}"));
    }
    let (block, layer) = layer.strip_prefix("transformer.blocks.")?.split_once('.')?;
    let (_, gguf) = OF_BLOCK.iter().find(|(hf, _)| *hf == layer)?;
    Some(format!("blk.{block}.{gguf}.{kind}"))
}

/// A checkpoint's name of llama.cpp's tensor.
pub(crate) fn from_gguf(name: &str) -> Option<String> {
    let (layer, kind) = name.rsplit_once('.')?;
    if let Some((hf, _)) = OF_MODEL.iter().find(|(_, gguf)| *gguf == layer) {
        return Some(format!("{hf}.{kind}"));
    }
    let (block, layer) = layer.strip_prefix("blk.")?.split_once('.')?;
    let (hf, _) = OF_BLOCK.iter().find(|(_, gguf)| *gguf == layer)?;
    Some(format!("transformer.blocks.{block}.{hf}.{kind}"))
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
