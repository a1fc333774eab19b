//! The index of an MDS dataset.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mpt_data_fuzz::read("mds_index", data));
