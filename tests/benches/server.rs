//! The server's whole way of one signed request (parsed, limited, verified, its nonce and audit row committed), and a bare handler
//! that answers with the same bytes: both in this process, asked over the same number of loopback connections.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on says so and ends")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::response::Response;
use axum::routing::get;
use provisor_tests::house::House;
use provisor_tests::resellers::{KernelHostKey, KeyTraits};
use provisor_tests::rounds::{in_turn, per_second};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CONNECTIONS: usize = 64;
/// Of each connection, in a round.
const REQUESTS: usize = 40;
const PATH: &str = "/v1/me";

#[tokio::main]
async fn main() {
    let mut house = House::start().await;
    let account = house.reseller("0.00").await;
    let key = house.kernelhost_key(account, KeyTraits::default()).await;
    let bare = bare(&key).await;
    let (ours, theirs) = (Arc::new(Clients::connect(house.address()).await), Arc::new(Clients::connect(bare).await));
    // Signed ahead: the callers' work is not what is measured.
    let rounds = (0..=provisor_tests::rounds::ROUNDS).map(|_| signed(&key, house.address())).collect::<Vec<_>>();
    let (mut first, mut second) = (rounds.clone().into_iter(), rounds.into_iter());
    let pair = in_turn(async || ours.send(first.next().unwrap()).await, async || theirs.send(second.next().unwrap()).await).await;
    let count = CONNECTIONS * REQUESTS;
    println!("signed GET {PATH}, {CONNECTIONS} connections: {:.0}/s", per_second(count, pair.first));
    println!("bare axum handler, the same bytes: {:.0}/s", per_second(count, pair.second));
    println!("ratio, server to bare handler: {:.3}", 1.0 / pair.ratio);
    house.stop().await;
}

/// A handler that answers as the server does, without any of its work.
async fn bare(key: &KernelHostKey) -> SocketAddr {
    let answer = key.get(PATH).await;
    assert_eq!(answer.status, 200);
    let (headers, body) = (answer.headers, answer.body);
    let handler = move || async move {
        let mut response = Response::new(axum::body::Body::from(body.clone()));
        for (name, value) in &headers {
            if name != "date" && name != "content-length" {
                response.headers_mut().append(name, value.clone());
            }
        }
        response
    };
    let app = Router::new().route(&format!("/cp/kh_reseller_api{PATH}"), get(handler));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// One round's requests, connection by connection.
type Round = Vec<Vec<Vec<u8>>>;

fn signed(key: &KernelHostKey, server: SocketAddr) -> Round {
    let now = jiff::Timestamp::now().as_second();
    let request = || {
        let [a, b, c, d] = key.headers(now, "GET", PATH, b"").map(|(name, value)| format!("{name}: {value}\r\n"));
        format!("GET /cp/kh_reseller_api{PATH} HTTP/1.1\r\nhost: {server}\r\n{a}{b}{c}{d}\r\n").into_bytes()
    };
    (0..CONNECTIONS).map(|_| (0..REQUESTS).map(|_| request()).collect()).collect()
}

/// Connections that stay open from round to round.
struct Clients(Mutex<Vec<TcpStream>>);

impl Clients {
    async fn connect(server: SocketAddr) -> Self {
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(server).await.unwrap();
            stream.set_nodelay(true).unwrap();
            streams.push(stream);
        }
        Self(Mutex::new(streams))
    }

    async fn send(&self, round: Round) {
        let streams = std::mem::take(&mut *self.0.lock().unwrap());
        let tasks: Vec<_> =
            streams.into_iter().zip(round).map(|(stream, requests)| tokio::spawn(converse(stream, requests))).collect();
        let mut streams = Vec::new();
        for task in tasks {
            streams.push(task.await.unwrap());
        }
        *self.0.lock().unwrap() = streams;
    }
}

async fn converse(mut stream: TcpStream, requests: Vec<Vec<u8>>) -> TcpStream {
    let mut buffer = Vec::new();
    for request in requests {
        stream.write_all(&request).await.unwrap();
        buffer.clear();
        loop {
            assert_ne!(stream.read_buf(&mut buffer).await.unwrap(), 0, "the server hung up");
            if is_whole(&buffer) {
                break;
            }
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer));
    }
    stream
}

fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).map(|text| text.trim().parse::<usize>());
    answer.len() == end + 4 + length.unwrap().unwrap()
}
