//! A LoRA adapter: configuration and weights.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mpt_core_fuzz::adapter(data));
