//! safetensors: invalid lengths, headers that contradict the data, and oversized headers.

use serde_json::{Value, json};

use crate::sound::{self, Tensor};
use crate::trial::Folder;

const FILE: &str = "model.safetensors";

fn tensors() -> Vec<Tensor> {
    sound::tensors(&sound::config())
}

fn with(bytes: &[u8]) -> Folder {
    Folder::model().with(FILE, bytes)
}

/// Valid file with its header changed.
fn with_header(change: impl FnOnce(&mut Value)) -> Folder {
    let mut header = sound::header(&tensors());
    change(&mut header);
    with(&sound::framed(&header.to_string(), &sound::data(&tensors())))
}

/// File of this header and `len` zeros.
fn of(header: &str, len: usize) -> Folder {
    with(&sound::framed(header, &vec![0; len]))
}

#[test]
fn the_sound_file_is_read() {
    with(&sound::safetensors(&tensors())).open().expect("a sound file");
}

#[test]
fn lengths_that_lie_are_refused() {
    let sound = sound::safetensors(&tensors());
    for length in [0u64, 1, 100, sound.len() as u64, 1 << 24, 1 << 25, 100_000_001, 1 << 63, u64::MAX] {
        let mut bytes = sound.clone();
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        with(&bytes).refused(&[FILE, "header"]);
    }
    for length in 0..8 {
        with(&sound[..length]).refused(&[FILE, &format!("a file of {length} bytes")]);
    }
    with(&sound[..sound.len() - 1]).refused(&[FILE, "tensor `transformer.wte.weight`", "data to byte"]);
    with(&[&sound[..], b"x"].concat()).refused(&[FILE, "bytes of tensors before"]);
}

#[test]
fn headers_that_are_no_object_of_tensors_are_refused() {
    let deep = "[".repeat(100_000);
    for header in ["", "{", "[]", "null", "{}x", "\u{feff}{}", r#"{"a":{}}"#, r#"{"a":1}"#, &deep] {
        of(header, 0).refused(&[FILE, "the header from byte 8 on", "line 1 column"]);
    }
    with(b"\x02\0\0\0\0\0\0\0\"\xff").refused(&[FILE, "the header"]);
    of(&format!(r#"{{"__metadata__":{}"#, "[".repeat(1 << 20)), 0).refused(&[FILE, "the header"]);
}

#[test]
fn names_that_come_twice_are_refused() {
    let entry = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
    of(&format!(r#"{{"a":{entry},"a":{entry}}}"#), 0).refused(&[FILE, "`a`", "twice"]);
}

#[test]
fn names_cannot_fill_or_move_the_terminal() {
    let entry = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
    of(&format!(r#"{{"{}":{entry}}}"#, "n".repeat(1 << 20)), 0).refused(&[FILE, "of 1048576 bytes"]);
    of(&format!(r#"{{"a\u001b[2J":{entry}}}"#), 0).refused(&[FILE, r"`a\u{1b}[2J`"]);
    of(&format!(r#"{{"a":{{"dtype":"{}"}}}}"#, "D".repeat(1 << 20)), 0).refused(&[FILE, "column"]);
}

#[test]
fn data_must_follow_without_gaps_or_overlaps() {
    let offsets = |from: Value, to: Value| {
        with_header(|header| header["transformer.norm_f.weight"]["data_offsets"] = json!([from, to]))
    };
    for (from, to) in [(0, 32), (1, 33), (0, u64::MAX), (u64::MAX, u64::MAX), (u64::MAX - 31, 0), (32, 0)] {
        offsets(from.into(), to.into()).refused(&[FILE, "tensor `transformer."]);
    }
    offsets((-1).into(), 31.into()).refused(&[FILE, "the header"]);
    offsets(0.5.into(), 31.into()).refused(&[FILE, "the header"]);
    of(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, 8).refused(&[
        FILE,
        "`a`",
        "where 0 is due",
    ]);
}

#[test]
fn shapes_must_have_the_bytes_of_their_data() {
    let shape = |shape: &str, bytes: usize| {
        of(&format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{bytes}]}}}}"#), bytes)
    };
    for huge in ["[4294967296,4294967296]", "[0,1099511627776,1099511627776]", "[18446744073709551615]"] {
        shape(huge, 0).refused(&[FILE, "`a`", "impossible shape"]);
    }
    shape("[18446744073709551616]", 0).refused(&[FILE, "the header"]);
    shape("[-1]", 0).refused(&[FILE, "the header"]);
    shape("[3]", 8).refused(&[FILE, "`a`", "for [3] of F32"]);
    shape(&format!("[{}1]", "1,".repeat(100)), 4).refused(&[FILE, "at most 8 sizes"]);
    of(r#"{"a":{"dtype":"F4","shape":[1],"data_offsets":[0,0]}}"#, 0).refused(&[FILE, "`a`"]);
    of(r#"{"a":{"dtype":"Q4","shape":[],"data_offsets":[0,0]}}"#, 0).refused(&[FILE, "Q4"]);
}

#[test]
fn a_tensor_of_another_shape_or_dtype_is_named() {
    with_header(|header| header["transformer.wte.weight"]["shape"] = json!([8, 4])).refused(&[
        FILE,
        "transformer.wte.weight",
        "[8, 4]",
        "[4, 8]",
    ]);
    with_header(|header| header["transformer.wte.weight"]["dtype"] = json!("I32")).refused(&[
        FILE,
        "transformer.wte.weight",
        "I32",
    ]);
    with_header(|header| header["transformer.wte.weight"]["shape"] = json!([4, 8, 0])).refused(&[FILE]);
}

#[test]
fn data_that_lie_at_odd_addresses_are_read() {
    for spaces in 0..8 {
        let header = sound::header(&tensors()).to_string() + &" ".repeat(spaces);
        with(&sound::framed(&header, &sound::data(&tensors()))).open().expect("a sound file");
    }
}

#[test]
fn large_headers_cost_little() {
    let entry = r#"{"dtype":"F32","shape":[],"data_offsets":[0,0]}"#;
    let many: Vec<String> = (0..100_000).map(|i| format!(r#""{i}":{entry}"#)).collect();
    of(&format!("{{{}}}", many.join(",")), 0).refused(&[FILE, "more than 65536 tensors"]);
    let zeros = "0,".repeat(4 << 20);
    of(&format!(r#"{{"a":{{"dtype":"F32","shape":[{zeros}0]"#), 0).refused(&[FILE, "at most 8 sizes"]);
    of(&format!(r#"{{"__metadata__":[{zeros}0]}}"#), 0).refused(&["transformer.wte.weight", "missing"]);
    let mut sparse = (100_000_000u64).to_le_bytes().to_vec();
    sparse.extend(b"{}");
    with(&sparse).refused(&[FILE, "a header of 100000000 bytes"]);
}
