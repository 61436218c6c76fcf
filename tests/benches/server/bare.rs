//! The least an HTTP server can do: axum, one handler, the same bytes.

use std::net::Ipv4Addr;
use std::path::Path;

use axum::Router;
use axum::response::Response;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use provisor_tests::daemon::Daemon;
use provisor_tests::http::Answer;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::on_first_core;

/// This program again, as a server that gives this answer to everything.
pub fn start(home: &Path, name: &str, answer: &Answer) -> Daemon {
    let headers: Vec<(&str, &str)> =
        answer.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    let file = home.join(name);
    let told = json!({"status": answer.status, "headers": headers, "body": BASE64_STANDARD.encode(&answer.body)});
    std::fs::write(&file, told.to_string()).unwrap();
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.arg("bare").arg(file);
    Daemon::start(on_first_core(&command))
}

/// Serves until it is killed.
pub fn serve(file: &Path) {
    let told: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let body = bytes::Bytes::from(BASE64_STANDARD.decode(told["body"].as_str().unwrap()).unwrap());
    let status = u16::try_from(told["status"].as_u64().unwrap()).unwrap();
    let headers: Vec<(String, String)> = serde_json::from_value(told["headers"].clone()).unwrap();
    let handler = move || {
        let (body, headers) = (body.clone(), headers.clone());
        async move {
            let mut response = Response::builder().status(status);
            for (name, value) in headers.iter().filter(|(name, _)| name != "date" && name != "content-length") {
                response = response.header(name, value);
            }
            response.body(axum::body::Body::from(body)).unwrap()
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        println!("{}", json!({"server": listener.local_addr().unwrap()}));
        axum::serve(listener, Router::new().fallback(handler)).await.unwrap();
    });
}
