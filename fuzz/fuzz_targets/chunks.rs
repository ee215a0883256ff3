//! libFuzzer over [`gristmill_fuzz::chunks`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gristmill_fuzz::chunks::run(bytes));
