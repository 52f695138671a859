#![no_main]

// The engine catches panics of the domain, so the hook of libFuzzer, which ends the process at any, is replaced. One that is not caught ends it
// all the same.
libfuzzer_sys::fuzz_target!(init: std::panic::set_hook(Box::new(|_| ())), |bytes: &[u8]| es_fuzz::rows(bytes));
