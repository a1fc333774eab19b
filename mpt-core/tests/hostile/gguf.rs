//! GGUF: invalid values in every field of the header.

use mpt_core::WeightDtype;

use crate::sound;
use crate::trial::{Folder, assert_names};

const FILE: &str = "model.gguf";

const U32: u32 = 4;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

/// Unchecked builder of a file.
#[derive(Clone)]
struct Raw {
    magic: [u8; 4],
    version: u32,
    /// Numbers of tensors and pairs in the header.
    counts: (u64, u64),
    body: Vec<u8>,
    data: usize,
}

impl Raw {
    fn new(tensors: u64, pairs: u64) -> Self {
        Self { magic: *b"GGUF", version: 3, counts: (tensors, pairs), body: Vec::new(), data: 0 }
    }

    fn u32(mut self, value: u32) -> Self {
        self.body.extend(value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.body.extend(value.to_le_bytes());
        self
    }

    fn text(self, text: &str) -> Self {
        let mut this = self.u64(text.len() as u64);
        this.body.extend(text.as_bytes());
        this
    }

    fn pair(self, key: &str, kind: u32) -> Self {
        self.text(key).u32(kind)
    }

    /// Tensor info; `dims` innermost first.
    fn tensor(self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Self {
        let this = self.text(name).u32(dims.len() as u32);
        dims.iter().fold(this, |this, &dim| this.u64(dim)).u32(kind).u64(offset)
    }

    /// Size of the data after the padded header.
    fn data(mut self, len: usize) -> Self {
        self.data = len;
        self
    }

    fn file(&self) -> Vec<u8> {
        let counts = [self.counts.0.to_le_bytes(), self.counts.1.to_le_bytes()].concat();
        let mut file = [&self.magic[..], &self.version.to_le_bytes(), &counts, &self.body].concat();
        file.resize(file.len().next_multiple_of(32) + self.data, 0);
        file
    }

    fn refused(&self, parts: &[&str]) {
        refused(&self.file(), parts);
    }
}

fn refused(bytes: &[u8], parts: &[&str]) {
    let result = Folder::new().with(FILE, bytes).open_file(FILE);
    assert_names(result, &[&[FILE], parts].concat());
}

#[test]
fn sound_files_are_read() {
    for format in [WeightDtype::F32, WeightDtype::Q8_0, WeightDtype::Q4_0] {
        Folder::new().with(FILE, sound::gguf(format)).open_file(FILE).expect("a sound file");
    }
    Raw::new(0, 0).refused(&["architecture `none`"]);
}

#[test]
fn headers_are_checked() {
    Raw { magic: *b"GGUX", ..Raw::new(0, 0) }.refused(&["byte 0"]);
    for version in [0, 1, 4, u32::MAX, 3u32.swap_bytes()] {
        Raw { version, ..Raw::new(0, 0) }.refused(&["byte 4", "version"]);
    }
    for count in [65_537, 1 << 32, u64::MAX, i64::MAX as u64] {
        Raw::new(count, 0).refused(&["byte 8", &count.to_string()]);
        Raw::new(0, count).refused(&["byte 8", &count.to_string()]);
    }
    Raw::new(5, 0).refused(&["byte "]);
    Raw::new(0, 5).refused(&["byte "]);
    for len in 0..24 {
        refused(&Raw::new(0, 0).file()[..len], &["byte "]);
    }
}

#[test]
fn keys_and_values_are_checked() {
    let pair = || Raw::new(0, 1);
    for len in [65_537, 1 << 40, u64::MAX] {
        pair().u64(len).refused(&["byte 24", "a name of"]);
    }
    pair().u64(60_000).refused(&["beyond the end"]);
    for kind in [13, 255, u32::MAX] {
        pair().pair("k", kind).refused(&["byte 33", "a value of type"]);
    }
    pair().pair("k", 7).u32(2).refused(&["truth value 2"]);
    pair().pair("k", TEXT).u64(u64::MAX).refused(&["beyond the end"]);
    pair().pair("k", TEXT).u64(1 << 40).refused(&["beyond the end"]);
    let mut bytes = pair().u64(1).data(32).file();
    bytes[32] = 0xff;
    refused(&bytes, &["byte 24", "no UTF-8"]);
    let twice = Raw::new(0, 2).pair("k", U32).u32(1).pair("k", U32).u32(1);
    twice.refused(&["key `k` comes twice"]);
}

#[test]
fn arrays_are_checked() {
    let array = |kind: u32, len: u64| Raw::new(0, 1).pair("k", ARRAY).u32(kind).u64(len);
    for kind in [ARRAY, 13, u32::MAX] {
        array(kind, 1).refused(&["an array of type"]);
    }
    for len in [u64::MAX, 1 << 62, 1 << 40] {
        for kind in [0, U32, TEXT, 12] {
            array(kind, len).refused(&["an array longer than the file"]);
        }
    }
    array(12, 60).refused(&["beyond the end"]);
    array(TEXT, 60).refused(&["beyond the end"]);
    array(TEXT, 1).u64(u64::MAX).refused(&["beyond the end"]);
}

#[test]
fn alignments_are_powers_of_two() {
    for value in [0, 3, 33, u32::MAX, 1 << 31] {
        Raw::new(0, 1).pair("general.alignment", U32).u32(value).refused(&["general.alignment"]);
    }
    let text = Raw::new(0, 1).pair("general.alignment", TEXT).text(&"x".repeat(1 << 20));
    text.refused(&["general.alignment, which is no integer"]);
}

#[test]
fn tensor_headers_are_checked() {
    let one = || Raw::new(1, 0).data(64);
    one().u64(u64::MAX).refused(&["byte 24", "a name of"]);
    one().tensor(&"n".repeat(300), &[4], 0, 0).refused(&["of 300 bytes"]);
    one().tensor("a\u{1b}[2J", &[4], 0, 0).refused(&[r"a\u{1b}[2J"]);
    for dims in [0u32, 5, u32::MAX] {
        one().text("t").u32(dims).refused(&["tensor `t`", "dimensions"]);
    }
    for kind in [4, 5, 31, 39, u32::MAX] {
        one().tensor("t", &[4], kind, 0).refused(&["`t`", "ggml type"]);
    }
    for dims in
        [&[1 << 32, 1 << 32][..], &[1 << 62, 4], &[i64::MAX as u64, 2], &[0, 1 << 40, 1 << 40], &[1 << 61]]
    {
        one().tensor("t", dims, 0, 0).refused(&["tensor `t`", "impossible shape"]);
    }
    one().tensor("t", &[u64::MAX], 0, 0).refused(&["a dimension of"]);
    for (kind, len) in [(2, 16), (8, 33), (12, 255), (14, 1)] {
        one().tensor("t", &[len, 1], kind, 0).refused(&["tensor `t`", "impossible shape"]);
    }
}

#[test]
fn data_lie_inside_the_file_apart_and_aligned() {
    let one = || Raw::new(1, 0).data(64);
    for offset in [1, 31, 33] {
        one().tensor("t", &[4], 0, offset).refused(&["tensor `t`", "not aligned"]);
    }
    for offset in [64, 1 << 40, u64::MAX - 31, i64::MAX as u64 - 31] {
        one().tensor("t", &[4], 0, offset).refused(&["tensor `t`", "beyond the end"]);
    }
    one().tensor("t", &[17], 0, 0).refused(&["tensor `t`", "beyond the end"]);
    one().tensor("t", &[1 << 40], 0, 0).refused(&["tensor `t`", "beyond the end"]);
    let two = |second: &str, offset: u64| {
        Raw::new(2, 0).tensor("t", &[16], 0, 0).tensor(second, &[8], 0, offset).data(96)
    };
    two("t", 64).refused(&["tensor `t` comes twice"]);
    two("u", 32).refused(&["overlap"]);
    two("u", 64).refused(&["`t`", "belongs to no part"]);
    // the header ends inside its own padding
    let file = one().tensor("t", &[0], 0, 0).file();
    refused(&file[..file.len() - 64 - 4], &["tensor `t`", "beyond the end"]);
}

#[test]
fn sound_files_cut_short_are_refused() {
    let sound = sound::gguf(WeightDtype::Q8_0);
    for len in (0..sound.len() - 32).step_by(131) {
        refused(&sound[..len], &["by"]);
    }
}

#[test]
fn metadata_must_describe_a_model() {
    let long = "a".repeat(1 << 20);
    Raw::new(0, 1).pair("general.architecture", TEXT).text(&long).refused(&["the architecture `aaa"]);
    let sound = sound::gguf(WeightDtype::F32);
    let patched = |key: &str, value: [u8; 4]| {
        let key_at = sound.windows(key.len()).position(|window| window == key.as_bytes()).expect("the key");
        let mut bytes = sound.clone();
        bytes[key_at + key.len() + 4..][..4].copy_from_slice(&value);
        bytes
    };
    for (key, value) in [
        ("mpt.block_count", 0),
        ("mpt.block_count", 1 << 20),
        ("mpt.block_count", u32::MAX),
        ("mpt.embedding_length", u32::MAX),
        ("mpt.embedding_length", 64),
        ("mpt.feed_forward_length", 1 << 30),
        ("mpt.attention.head_count", 1 << 29),
        ("mpt.attention.head_count", 3),
        ("mpt.context_length", 0),
    ] {
        refused(&patched(key, u32::to_le_bytes(value)), &[]);
    }
    refused(&patched("mpt.block_count", 2u32.to_le_bytes()), &["blocks.1.", "missing"]);
    for key in ["mpt.attention.max_alibi_bias", "mpt.attention.layer_norm_epsilon"] {
        for value in [f32::NAN, f32::INFINITY] {
            refused(&patched(key, value.to_le_bytes()), &[key, "finite"]);
        }
    }
}

#[test]
fn many_entries_cost_little() {
    let pairs = (0..65_536u32).fold(Raw::new(0, 65_536), |raw, i| raw.pair(&i.to_string(), 0).pad());
    pairs.refused(&["architecture `none`"]);
    let tensors = (0..65_536u32)
        .fold(Raw::new(65_536, 0), |raw, i| raw.tensor(&format!("blk.{i}.attn_norm.weight"), &[0], 0, 0));
    tensors.refused(&["architecture `none`"]);
    let texts =
        (0..1 << 20).fold(Raw::new(0, 1).pair("k", ARRAY).u32(TEXT).u64(1 << 20), |raw, _| raw.u64(0));
    texts.refused(&["architecture `none`"]);
}

impl Raw {
    /// One-byte integer value.
    fn pad(mut self) -> Self {
        self.body.push(1);
        self
    }
}
