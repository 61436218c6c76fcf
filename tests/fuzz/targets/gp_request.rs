//! Raw bytes of a request to the GP API, form included: none breaks admission.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use provisor_fuzz::{NOW, OneKey, SECRET, request, visit};
use provisor_providers::gp::hash;
use provisor_providers::gp::server::Server;
use provisor_providers::message::{Headers, Request};
use provisor_providers::server::Server as _;

fuzz_target!(|bytes: &[u8]| {
    let Some(request) = request(bytes) else { return };
    let keys = OneKey::default();
    let head = Request { body: Vec::new(), ..request.clone() };
    let _wanted = Server.wants_body(&head);
    assert!(Server.admit(Arc::new(visit(request.clone())), &keys).is_ok());
    // Few inputs have a hash: the same form once more with one that holds.
    let timestamp = NOW.to_string();
    let hash = hash::hash(SECRET, "example.com", &timestamp);
    let form = format!("domain=example.com&timestamp={timestamp}&hash={hash}&");
    let headers = Headers::new().with("content-type", "application/x-www-form-urlencoded");
    let (method, body) = ("POST".to_owned(), [form.as_bytes(), &request.body].concat());
    let request = Request { method, target: request.target, headers, body };
    assert!(Server.admit(Arc::new(visit(request)), &keys).is_ok());
});
