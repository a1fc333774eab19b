//! Small valid files of every format, which attacks and mutations start from.

use std::io::Write;

use mpt_core::weights::GgufWriter;
use mpt_core::{MptConfig, WeightDtype};
use serde_json::{Map, Value, json};

/// Name, shape and f32 bytes of a tensor.
pub(crate) type Tensor = (String, Vec<usize>, Vec<u8>);

/// Model of one block, width 8 and 4 ids: 864 parameters.
pub(crate) fn config() -> MptConfig {
    MptConfig::mpt(8, 1, 2, 4, 4).expect("possible sizes")
}

/// The tensors of a configuration.
pub(crate) fn tensors(config: &MptConfig) -> Vec<Tensor> {
    let with_values = |(name, shape): (String, Vec<usize>)| {
        let bytes = values(shape.iter().product());
        (name, shape, bytes)
    };
    config.parameter_shapes().into_iter().map(with_values).collect()
}

fn values(n: usize) -> Vec<u8> {
    (0..n).flat_map(|i| ((i * 37 % 64) as f32 / 64.0 - 0.5).to_le_bytes()).collect()
}

/// The header of a safetensors file.
pub(crate) fn header(tensors: &[Tensor]) -> Value {
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut offset = 0;
    for (name, shape, bytes) in tensors {
        let end = offset + bytes.len();
        let entry = json!({ "dtype": "F32", "shape": shape, "data_offsets": [offset, end] });
        entries.insert(name.clone(), entry);
        offset = end;
    }
    Value::Object(entries)
}

/// Data section.
pub(crate) fn data(tensors: &[Tensor]) -> Vec<u8> {
    tensors.iter().flat_map(|(_, _, bytes)| bytes).copied().collect()
}

/// A safetensors file of a header's text and data.
pub(crate) fn framed(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// A safetensors file.
pub(crate) fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    framed(&header(tensors).to_string(), &data(tensors))
}

/// Index with all tensors in `file`.
pub(crate) fn index(tensors: &[Tensor], file: &str) -> Value {
    let entries = tensors.iter().map(|(name, ..)| (name.clone(), json!(file)));
    json!({ "metadata": { "total_size": 3456 }, "weight_map": Map::from_iter(entries) })
}

/// Builder of a pickle.
#[derive(Clone, Default)]
pub(crate) struct Pickle(pub(crate) Vec<u8>);

/// Tensor view in a pickle.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) storage: &'a str,
    pub(crate) key: &'a str,
    pub(crate) len: i64,
    pub(crate) offset: i64,
    pub(crate) shape: &'a [i64],
    pub(crate) stride: &'a [i64],
}

impl Pickle {
    /// Protocol 2, and a dictionary whose items follow.
    pub(crate) fn dict() -> Self {
        Self(b"\x80\x02}(".to_vec())
    }

    pub(crate) fn raw(mut self, opcodes: &[u8]) -> Self {
        self.0.extend(opcodes);
        self
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.raw(b"X").raw(&(text.len() as u32).to_le_bytes()).raw(text.as_bytes())
    }

    pub(crate) fn int(self, value: i64) -> Self {
        self.raw(b"\x8a\x08").raw(&value.to_le_bytes())
    }

    pub(crate) fn ints(self, values: &[i64]) -> Self {
        values.iter().fold(self.raw(b"("), |pickle, &value| pickle.int(value)).raw(b"t")
    }

    pub(crate) fn tensor(self, view: View<'_>) -> Self {
        let storage = format!("ctorch\n{}\n", view.storage);
        self.raw(b"ctorch._utils\n_rebuild_tensor_v2\n((")
            .text("storage")
            .raw(storage.as_bytes())
            .text(view.key)
            .text("cpu")
            .int(view.len)
            .raw(b"tQ")
            .int(view.offset)
            .ints(view.shape)
            .ints(view.stride)
            .raw(b"\x89ccollections\nOrderedDict\n)RtR")
    }

    /// The end of the dictionary and of the pickle.
    pub(crate) fn end(self) -> Vec<u8> {
        self.raw(b"u.").0
    }
}

/// Archive of a pickle and its storages in the layout of `torch.save`.
pub(crate) fn archive(pickle: &[u8], storages: &[&[u8]]) -> Vec<u8> {
    let mut members = vec![("m/data.pkl".to_owned(), pickle)];
    members.extend(storages.iter().enumerate().map(|(i, bytes)| (format!("m/data/{i}"), *bytes)));
    members.push(("m/version".to_owned(), b"3\n"));
    zip(&members)
}

/// A `.bin` file.
pub(crate) fn bin(tensors: &[Tensor]) -> Vec<u8> {
    archived(with_items(Pickle::dict(), tensors), tensors)
}

/// `.bin` file with the state dict nested under `state_dict`, as trainers save it.
pub(crate) fn nested_bin(tensors: &[Tensor]) -> Vec<u8> {
    let inner = Pickle::dict().text("epoch").int(3).text("state_dict").raw(b"}(");
    archived(with_items(inner, tensors).raw(b"u"), tensors)
}

/// Pickle with the tensors as items, tensor `i` in storage `i`.
fn with_items(mut pickle: Pickle, tensors: &[Tensor]) -> Pickle {
    for (i, (name, shape, bytes)) in tensors.iter().enumerate() {
        let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        let stride: Vec<i64> = (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect();
        let view = View {
            storage: "FloatStorage",
            key: &i.to_string(),
            len: bytes.len() as i64 / 4,
            offset: 0,
            shape: &shape,
            stride: &stride,
        };
        pickle = pickle.text(name).tensor(view);
    }
    pickle
}

fn archived(pickle: Pickle, tensors: &[Tensor]) -> Vec<u8> {
    let storages: Vec<&[u8]> = tensors.iter().map(|(_, _, bytes)| &bytes[..]).collect();
    archive(&pickle.end(), &storages)
}

/// Zip archive of stored members; checksums are zero, since they are not read.
pub(crate) fn zip(members: &[(String, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in members {
        let size = (data.len() as u32).to_le_bytes();
        // version to flags, method, time and date, checksum, sizes, lengths of name and extra field
        let shared = [
            &[10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &size,
            &size,
            &(name.len() as u16).to_le_bytes(),
            &[0, 0],
        ]
        .concat();
        let at = (file.len() as u32).to_le_bytes();
        directory.extend([b"PK\x01\x02\x0a\x00", &shared[..], &[0; 10], &at, name.as_bytes()].concat());
        file.extend([b"PK\x03\x04", &shared[..], name.as_bytes(), data].concat());
    }
    let start = file.len() as u32;
    let count = (members.len() as u16).to_le_bytes();
    let sizes = [(directory.len() as u32).to_le_bytes(), start.to_le_bytes()].concat();
    file.extend(&directory);
    file.extend([b"PK\x05\x06\0\0\0\0", &count[..], &count, &sizes, &[0, 0]].concat());
    file
}

/// GGUF file of one block of width 32 with matrices in `dtype`.
pub(crate) fn gguf(dtype: WeightDtype) -> Vec<u8> {
    let config = MptConfig::mpt(32, 1, 2, 4, 4).expect("possible sizes");
    let mut out = GgufWriter::default();
    out.text("general.architecture", "mpt");
    for (key, value) in [
        ("mpt.context_length", 4),
        ("mpt.embedding_length", 32),
        ("mpt.block_count", 1),
        ("mpt.feed_forward_length", 128),
        ("mpt.attention.head_count", 2),
    ] {
        out.int(key, value);
    }
    out.float("mpt.attention.layer_norm_epsilon", 1e-5);
    out.float("mpt.attention.max_alibi_bias", 8.0);
    out.texts("tokenizer.ggml.tokens", &["a", "b", "c", "d"]);
    out.ints("tokenizer.ggml.token_type", &[1, 1, 1, 1]);
    let mut data = Vec::new();
    for (name, shape) in config.parameter_shapes() {
        let dtype = if shape.len() == 1 { WeightDtype::F32 } else { dtype };
        out.tensor(&gguf_name(&name), &shape, dtype);
        let blocks = shape.iter().product::<usize>() / dtype.block_len();
        match dtype {
            WeightDtype::F32 => data.extend(values(blocks)),
            _ => data.extend((0..blocks * dtype.block_bytes()).map(|i| (i * 29 % 61) as u8)),
        }
        data.resize(data.len().next_multiple_of(32), 0);
    }
    let mut file = Vec::new();
    out.write_header(&mut file).and_then(|()| file.write_all(&data)).expect("memory takes all bytes");
    file
}

fn gguf_name(name: &str) -> String {
    [
        ("transformer.wte", "token_embd"),
        ("transformer.norm_f", "output_norm"),
        ("transformer.blocks.", "blk."),
        ("norm_1", "attn_norm"),
        ("norm_2", "ffn_norm"),
        ("attn.Wqkv", "attn_qkv"),
        ("attn.out_proj", "attn_output"),
        ("ffn.up_proj", "ffn_up"),
        ("ffn.down_proj", "ffn_down"),
    ]
    .iter()
    .fold(name.to_owned(), |name, (hf, gguf)| name.replace(hf, gguf))
}

/// The configuration of an adapter.
pub(crate) fn adapter_config() -> Value {
    json!({ "peft_type": "LORA", "r": 2, "lora_alpha": 4.0, "target_modules": ["Wqkv"], "bias": "none",
            "use_rslora": false, "alpha_pattern": {}, "modules_to_save": null })
}

/// The tensors of an adapter of `config()`.
pub(crate) fn adapter_tensors() -> Vec<Tensor> {
    let name = |half: &str| format!("base_model.model.transformer.blocks.0.attn.Wqkv.{half}.weight");
    vec![(name("lora_A"), vec![2, 8], values(16)), (name("lora_B"), vec![24, 2], values(48))]
}
