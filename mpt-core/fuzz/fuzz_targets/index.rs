//! An index of weights files.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mpt_core_fuzz::index(data));
