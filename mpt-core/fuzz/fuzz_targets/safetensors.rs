//! A safetensors file.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mpt_core_fuzz::weights("model.safetensors", data));
