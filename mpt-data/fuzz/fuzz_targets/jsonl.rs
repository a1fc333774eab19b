//! A source of JSON Lines.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mpt_data_fuzz::read("jsonl", data));
