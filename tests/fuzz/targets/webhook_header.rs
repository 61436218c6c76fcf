//! A webhook's signature header and body: only what the secret signed is taken.
#![no_main]

use libfuzzer_sys::fuzz_target;
use provisor_fuzz::{NOW, SECRET, now};
use provisor_providers::kernelhost::webhook;

fuzz_target!(|bytes: &[u8]| {
    let cut = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (head, body) = bytes.split_at(cut);
    if let Ok(header) = std::str::from_utf8(head) {
        assert!(webhook::verify(header, body, &[SECRET.as_bytes()], now()).is_err(), "nobody knows the secret");
        let genuine = webhook::header(&[b"another", SECRET.as_bytes()], NOW, body);
        assert_eq!(webhook::verify(&genuine, body, &[SECRET.as_bytes()], now()), Ok(()));
        // Whatever else stands in the header, a genuine one is taken or the whole is malformed; it is never somebody else's.
        let mixed = webhook::verify(&format!("{header},{genuine}"), body, &[SECRET.as_bytes()], now());
        assert!(mixed.is_ok() || mixed == Err(webhook::Rejected::Malformed) || header.contains("t="));
    }
});
