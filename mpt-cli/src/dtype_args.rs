//! Value parsers of `--dtype`, `--kv-dtype` and `--type`.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use mpt_core::{KvDtype, WeightDtype};

/// Any dtype of weights.
pub(crate) fn weight_dtype() -> impl TypedValueParser<Value = WeightDtype> {
    PossibleValuesParser::new(WeightDtype::ALL.map(WeightDtype::name)).map(|name| parse_known(&name))
}

/// Dtype of a Hugging Face folder, where random and merged weights are written.
pub(crate) fn folder_dtype() -> impl TypedValueParser<Value = WeightDtype> {
    use WeightDtype as W;
    PossibleValuesParser::new([W::F32, W::F16, W::BF16, W::Nf4].map(WeightDtype::name))
        .map(|name| parse_known(&name))
}

/// Float dtype, without block scales.
pub(crate) fn float_dtype() -> impl TypedValueParser<Value = WeightDtype> {
    use WeightDtype as W;
    PossibleValuesParser::new([W::F32, W::F16, W::BF16].map(WeightDtype::name)).map(|name| parse_known(&name))
}

/// Quantized dtype, with its bits per weight, scales included.
pub(crate) fn quantized_dtype() -> impl TypedValueParser<Value = WeightDtype> {
    let value = |dtype: WeightDtype, about: &'static str| PossibleValue::new(dtype.name()).help(about);
    PossibleValuesParser::new([
        value(WeightDtype::Q8_0, "8.5 bits, next to no loss"),
        value(WeightDtype::Q6K, "6.6 bits"),
        value(WeightDtype::Q5K, "5.5 bits"),
        value(WeightDtype::Q4K, "4.5 bits, the best of the small ones"),
        value(WeightDtype::Q4_0, "4.5 bits, simple and fast"),
        value(WeightDtype::Nf4, "4.1 bits, for QLoRA and transformers"),
    ])
    .map(|name| parse_known(&name))
}

/// Dtype of the key/value cache.
pub(crate) fn kv_dtype() -> impl TypedValueParser<Value = KvDtype> {
    PossibleValuesParser::new(KvDtype::ALL.map(KvDtype::name)).map(|name| {
        let known = KvDtype::ALL.into_iter().find(|dtype| dtype.name() == name);
        known.expect("a name that clap let through")
    })
}

fn parse_known(name: &str) -> WeightDtype {
    name.parse().expect("a name that clap let through")
}
