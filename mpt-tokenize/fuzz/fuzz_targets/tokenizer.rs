//! A `tokenizer.json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mpt_tokenize_fuzz::tokenizer(data));
