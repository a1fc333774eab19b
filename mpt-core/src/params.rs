//! Parameter ids and their checkpoint names. No other file spells a checkpoint name.
//!
//! Names are those of `MPTForCausalLM` in llm-foundry and transformers, such as `transformer.blocks.3.attn.Wqkv.weight`.

use std::fmt;
use std::str::FromStr;

use Module::{
    DownProj, GateProj, KLn, LmHead, Norm1, Norm2, NormF, OutProj, QLn, UpProj, Wk, Wpe, Wq, Wqkv, Wte, Wv,
};

/// Module that owns parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Module {
    /// Token embedding.
    Wte,
    /// Learned position embedding.
    Wpe,
    /// Norm after the last block.
    NormF,
    /// Output projection of a model with an untied head.
    LmHead,
    /// Norm before attention.
    Norm1,
    /// Fused projection to queries, keys and values.
    Wqkv,
    /// Projection to queries.
    Wq,
    /// Projection to keys.
    Wk,
    /// Projection to values.
    Wv,
    /// Norm of queries.
    QLn,
    /// Norm of keys.
    KLn,
    /// Output projection of attention.
    OutProj,
    /// Norm before the feed-forward layer.
    Norm2,
    /// First projection of the feed-forward layer.
    UpProj,
    /// Gate of a gated feed-forward layer.
    GateProj,
    /// Second projection of the feed-forward layer.
    DownProj,
}

/// Modules outside blocks, with their checkpoint names.
const OF_MODEL: [(Module, &str); 4] =
    [(Wte, "transformer.wte"), (Wpe, "transformer.wpe"), (NormF, "transformer.norm_f"), (LmHead, "lm_head")];

/// Modules of a block, with their names below it.
const OF_BLOCK: [(Module, &str); 12] = [
    (Norm1, "norm_1"),
    (Wqkv, "attn.Wqkv"),
    (Wq, "attn.Wq"),
    (Wk, "attn.Wk"),
    (Wv, "attn.Wv"),
    (QLn, "attn.q_ln"),
    (KLn, "attn.k_ln"),
    (OutProj, "attn.out_proj"),
    (Norm2, "norm_2"),
    (UpProj, "ffn.up_proj"),
    (GateProj, "ffn.gate_proj"),
    (DownProj, "ffn.down_proj"),
];

/// Prefix of the names of a block; its index follows.
const BLOCKS: &str = "transformer.blocks.";

impl Module {
    /// Whether it is a linear of a block, which adapters and NF4 apply to.
    pub fn is_block_linear(self) -> bool {
        matches!(self, Wqkv | Wq | Wk | Wv | OutProj | UpProj | GateProj | DownProj)
    }

    /// Whether it is a norm.
    pub fn is_norm(self) -> bool {
        matches!(self, NormF | Norm1 | Norm2 | QLn | KLn)
    }

    /// Whether it is an embedding.
    pub fn is_embedding(self) -> bool {
        matches!(self, Wte | Wpe)
    }

    /// Last component of the name, such as `Wqkv`: peft's `target_modules`.
    pub fn short_name(self) -> &'static str {
        let name = self.name();
        name.rsplit_once('.').map_or(name, |(_, last)| last)
    }

    /// Checkpoint name, without `transformer.blocks.N.` for a module of a block: `attn.Wqkv`, `transformer.wte`.
    pub fn name(self) -> &'static str {
        let all = OF_MODEL.iter().chain(&OF_BLOCK);
        all.copied().find(|&(module, _)| module == self).map_or("", |(_, name)| name)
    }
}

/// Kind of a parameter within its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ParamKind {
    /// Matrix of a linear or an embedding; scale of a norm.
    Weight,
    /// Bias.
    Bias,
    /// LoRA matrix A, `[rank, in]`.
    LoraA,
    /// LoRA matrix B, `[out, rank]`.
    LoraB,
}

const KINDS: [(ParamKind, &str); 4] = [
    (ParamKind::Weight, "weight"),
    (ParamKind::Bias, "bias"),
    (ParamKind::LoraA, "lora_A.weight"),
    (ParamKind::LoraB, "lora_B.weight"),
];

/// Id of a module: its block and kind. `Display` and `FromStr` are its checkpoint name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleId {
    /// Block index; `None` outside blocks.
    pub layer: Option<usize>,
    /// Kind of module.
    pub module: Module,
}

impl ModuleId {
    /// Module outside blocks.
    pub const fn of_model(module: Module) -> Self {
        Self { layer: None, module }
    }

    /// Module of block `layer`.
    pub const fn of_block(layer: usize, module: Module) -> Self {
        Self { layer: Some(layer), module }
    }

    /// Id of one of its parameters.
    pub const fn param(self, kind: ParamKind) -> ParamId {
        ParamId { module: self, kind }
    }
}

impl fmt::Display for ModuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer {
            Some(layer) => write!(f, "{BLOCKS}{layer}.{}", self.module.name()),
            None => f.write_str(self.module.name()),
        }
    }
}

/// Error for a name that is no parameter of an MPT model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a parameter of an MPT model")]
pub struct UnknownParam;

impl FromStr for ModuleId {
    type Err = UnknownParam;

    fn from_str(name: &str) -> Result<Self, UnknownParam> {
        let find = |table: &[(Module, &str)], name: &str| {
            table.iter().find(|(_, known)| *known == name).map(|&(module, _)| module).ok_or(UnknownParam)
        };
        let Some(rest) = name.strip_prefix(BLOCKS) else { return Ok(Self::of_model(find(&OF_MODEL, name)?)) };
        let (number, below) = rest.split_once('.').ok_or(UnknownParam)?;
        let layer: usize = number.parse().map_err(|_| UnknownParam)?;
        // `+3` and `03` parse too, but are other names
        if layer.to_string() != number {
            return Err(UnknownParam);
        }
        Ok(Self::of_block(layer, find(&OF_BLOCK, below)?))
    }
}

/// Id of a parameter. `Display` and `FromStr` are its checkpoint name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId {
    /// Module that owns it.
    pub module: ModuleId,
    /// Kind of parameter.
    pub kind: ParamKind,
}

impl ParamId {
    /// Id of the weight of a module outside blocks.
    pub const fn weight(module: Module) -> Self {
        ModuleId::of_model(module).param(ParamKind::Weight)
    }

    /// Block index; `None` outside blocks.
    pub fn layer(self) -> Option<usize> {
        self.module.layer
    }

    /// Whether it is the weight of a linear of a block.
    pub fn is_block_linear(self) -> bool {
        self.kind == ParamKind::Weight && self.module.module.is_block_linear()
    }
}

impl fmt::Display for ParamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = KINDS.iter().find(|(kind, _)| *kind == self.kind).map_or("", |(_, name)| name);
        write!(f, "{}.{kind}", self.module)
    }
}

impl FromStr for ParamId {
    type Err = UnknownParam;

    fn from_str(name: &str) -> Result<Self, UnknownParam> {
        // longest first: `lora_A.weight` ends in `.weight`
        let split = |&(kind, suffix): &(ParamKind, &str)| {
            name.strip_suffix(suffix)?.strip_suffix('.').map(|module| (module, kind))
        };
        let (module, kind) = KINDS.iter().rev().find_map(split).ok_or(UnknownParam)?;
        Ok(module.parse::<ModuleId>()?.param(kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_is_its_name() {
        for (table, layer) in [(&OF_MODEL[..], None), (&OF_BLOCK[..], Some(12))] {
            for &(module, _) in table {
                for (kind, _) in KINDS {
                    let id = ModuleId { layer, module }.param(kind);
                    assert_eq!(id.to_string().parse(), Ok(id));
                }
            }
        }
        let id = ModuleId::of_block(3, Wqkv).param(ParamKind::Weight);
        assert_eq!(id.to_string(), "transformer.blocks.3.attn.Wqkv.weight");
        assert_eq!(ParamId::weight(LmHead).to_string(), "lm_head.weight");
        assert_eq!((Wqkv.short_name(), LmHead.short_name()), ("Wqkv", "lm_head"));
    }

    #[test]
    fn other_names_are_none() {
        for name in [
            "",
            "weight",
            "transformer.wte",
            "transformer.blocks.1.weight",
            "transformer.blocks.01.norm_1.weight",
            "transformer.blocks.+1.norm_1.weight",
            "transformer.blocks.1.attn.Wqkv.scale",
            "transformer.norm_1.weight",
        ] {
            assert_eq!(name.parse::<ParamId>(), Err(UnknownParam), "{name}");
        }
    }
}
