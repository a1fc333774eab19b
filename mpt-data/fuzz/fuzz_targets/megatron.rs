//! The index of an indexed dataset of Megatron.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mpt_data_fuzz::read("megatron", data));
