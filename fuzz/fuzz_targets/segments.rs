//! libFuzzer over [`gristmill_fuzz::segments`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gristmill_fuzz::segments::run(bytes));
