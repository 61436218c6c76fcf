//! Password envelopes: whatever comes is opened or refused, and whatever is sealed is opened again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use provisor_fuzz::SECRET;
use provisor_providers::gp::password::{self, Envelope};
use secrecy::ExposeSecret;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(envelope) = Envelope::read(text) {
        let _digest = (envelope.iv(), envelope.ciphertext_sha256());
    }
    assert!(password::open(SECRET, text).is_err(), "nobody knows the key");
    assert!(password::accept(SECRET, text).is_err());
    if let Ok(sealed) = password::seal(SECRET, text, [7; 16]) {
        assert!(password::open(SECRET, &sealed).is_ok_and(|opened| opened.expose_secret() == text));
        let is_accepted = password::accept(SECRET, &sealed).is_ok();
        assert!(!is_accepted || (8..=128).contains(&text.chars().count()));
    }
});
