//! A compressed source.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mpt_data_fuzz::read("compressed", data));
