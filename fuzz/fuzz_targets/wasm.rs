//! libFuzzer over what `run wasm` is given by foreign code.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gristmill::fuzz::wasm(bytes));
