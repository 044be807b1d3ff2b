#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| manifold::fuzz::rtsp_request(data));
