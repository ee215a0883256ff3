//! libFuzzer over [`gristmill_fuzz::flags`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gristmill_fuzz::flags::run(bytes));
