//! A `.bin` file: archive and pickle.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mpt_core_fuzz::weights("pytorch_model.bin", data));
