//! Raw bytes of a request to the KernelHost API: none breaks admission, and only what is signed is admitted.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use provisor_fuzz::{NOW, OneKey, SECRET, request, visit};
use provisor_providers::kernelhost::guard::{self, Verdict};
use provisor_providers::kernelhost::server::Server;
use provisor_providers::kernelhost::sign;
use provisor_providers::kernelhost::wire::header;
use provisor_providers::message::Request;
use provisor_providers::server::Server as _;

const NONCE: &str = "00112233445566778899aabbccddeeff";

fuzz_target!(|bytes: &[u8]| {
    let Some(request) = request(bytes) else { return };
    let keys = OneKey::default();
    let head = Request { body: Vec::new(), ..request.clone() };
    let _wanted = Server.wants_body(&head);
    assert!(Server.admit(Arc::new(visit(request.clone())), &keys).is_ok());
    judge(request.clone(), &keys);
    // Few inputs have a signature: the same request with one is admitted unless its target is none.
    judge(signed(request), &keys);
});

fn judge(request: Request, keys: &OneKey) {
    let once = |name| request.headers.once(name).unwrap_or_default().to_owned();
    let text =
        sign::signing_string(&request.method, &request.target, &once(header::TIMESTAMP), &once(header::NONCE), &request.body);
    let holds = sign::verify(SECRET.as_bytes(), &text, &once(header::SIGNATURE));
    let is_target = request.target.starts_with('/') && !request.target.contains('#') && request.target.is_ascii();
    let Ok(verdict) = guard::judge(&visit(request), keys) else { return };
    match verdict {
        Verdict::Admitted(_) => assert!(holds && is_target),
        Verdict::Refused(refused) => assert!(!holds || refused.reason != guard::Reason::SignatureMismatch),
    }
}

fn signed(mut request: Request) -> Request {
    let timestamp = NOW.to_string();
    let text = sign::signing_string(&request.method, &request.target, &timestamp, NONCE, &request.body);
    let signature = sign::sign(SECRET.as_bytes(), &text);
    let others = request.headers.iter().filter(|(name, _)| !name.to_ascii_lowercase().starts_with("kh-"));
    let others =
        others.fold(Default::default(), |headers: provisor_providers::message::Headers, (name, value)| headers.with(name, value));
    request.headers = others
        .with(header::KEY, provisor_fuzz::KEY_ID)
        .with(header::TIMESTAMP, timestamp)
        .with(header::NONCE, NONCE)
        .with(header::SIGNATURE, signature);
    request
}
