//! A shard of an MDS dataset.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mpt_data_fuzz::read("mds_shard", data));
