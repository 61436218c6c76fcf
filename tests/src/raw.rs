//! HTTP as bytes on a connection, for what no well-behaved client sends.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::http::Answer;

/// Far longer than an answer takes, shorter than the server waits for a body: an answer in time did not wait for one.
const PATIENCE: Duration = Duration::from_secs(5);
/// Far longer than a server waits for anybody.
const LONGEST: Duration = Duration::from_secs(60);

/// Writes the bytes as they are, and reads one answer. The connection stays open for more until the answer has come.
pub async fn exchange(address: SocketAddr, request: &[u8]) -> Answer {
    send(TcpStream::connect(address).await.unwrap(), request).await
}

/// The same from an address of one's own.
pub async fn exchange_from(own: IpAddr, address: SocketAddr, request: &[u8]) -> Answer {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((own, 0).into()).unwrap();
    send(socket.connect(address).await.unwrap(), request).await
}

/// Writes the head, after a while the body, and reads one answer. Also when the body was sent.
pub async fn exchange_late(address: SocketAddr, head: &[u8], pause: Duration, body: &[u8]) -> (Instant, Answer) {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(head).await.unwrap();
    tokio::time::sleep(pause).await;
    let sent = Instant::now();
    (sent, send(connection, body).await)
}

/// What a server says to somebody who falls silent.
pub struct Silence {
    /// All it says.
    pub bytes: Vec<u8>,
    /// How long it waits before it closes the connection.
    pub took: Duration,
}

/// Writes the bytes and waits until the server closes the connection.
pub async fn until_closed(address: SocketAddr, request: &[u8]) -> Silence {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(request).await.unwrap();
    let (begun, mut bytes) = (Instant::now(), Vec::new());
    tokio::time::timeout(LONGEST, connection.read_to_end(&mut bytes)).await.expect("it is closed").unwrap();
    Silence { bytes, took: begun.elapsed() }
}

async fn send(mut connection: TcpStream, request: &[u8]) -> Answer {
    connection.write_all(request).await.unwrap();
    tokio::time::timeout(PATIENCE, read(&mut connection)).await.expect("the server answers without waiting for more")
}

async fn read(connection: &mut TcpStream) -> Answer {
    let mut received = Vec::new();
    loop {
        if let Some(answer) = parse(&received) {
            return answer;
        }
        let read = connection.read_buf(&mut received).await.unwrap();
        assert!(read > 0, "closed after: {}", String::from_utf8_lossy(&received));
    }
}

/// The answer, if it is there as a whole.
fn parse(received: &[u8]) -> Option<Answer> {
    let end = received.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&received[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1).unwrap().parse().unwrap();
    let headers: HeaderMap = lines
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.parse::<HeaderName>().unwrap(), value.trim().parse::<HeaderValue>().unwrap())
        })
        .collect();
    let length: usize = headers.get(CONTENT_LENGTH).map_or(0, |value| value.to_str().unwrap().parse().unwrap());
    let body = received.get(end + 4..end + 4 + length)?;
    Some(Answer { status, headers, body: Bytes::copy_from_slice(body) })
}
