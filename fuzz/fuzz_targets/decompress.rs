//! libFuzzer over [`gristmill_fuzz::decompress`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gristmill_fuzz::decompress::run(bytes));
