//! A chat template.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mpt_tokenize_fuzz::template(data));
