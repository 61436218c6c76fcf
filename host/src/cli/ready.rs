//! `provisor ready`: whether a running host can answer, for probes of images that have no curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::anyhow;
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::book::block_on;
use super::serve::Wings;
use super::{Context, Exit, Failure};
use crate::config::Listen;

/// For one address, connecting included.
const DEADLINE: Duration = Duration::from_secs(4);
const ANSWER_BYTES_MAX: usize = 4096;

/// Ask a running host whether it can answer
#[derive(Args)]
#[command(after_help = "\
Exit codes: 0 when all are ready, 1 when one is not, 3 when one does not answer. Neither the book nor a key is touched, so it may be
asked every few seconds.")]
pub(super) struct Ready {
    /// Where to ask: an address and port, or unix:PATH [default: where the configuration has the gateway and the server listen]
    #[arg(value_name = "ADDR")]
    at: Vec<Listen>,
}

#[derive(Serialize)]
struct Heard {
    at: String,
    ready: bool,
    detail: String,
}

pub(super) fn run(command: &Ready, context: &Context) -> Result<Exit, Failure> {
    let at = if command.at.is_empty() {
        let Wings { server, gateway } = Wings::configured(&context.paths.configuration(&context.environment)?);
        gateway.into_iter().chain(server.map(Listen::Tcp)).collect()
    } else {
        command.at.clone()
    };
    if let Some(listen) = at.iter().find(|listen| matches!(listen, Listen::Tcp(address) if address.port() == 0)) {
        return Err(Failure::usage(anyhow!("{listen} takes a free port: name the one that it was given")));
    }
    let mut exit = Exit::Done;
    let mut heard = Vec::new();
    for listen in &at {
        let (told, detail) = match block_on(async { Ok(tokio::time::timeout(DEADLINE, ask(listen)).await) })? {
            Ok(Ok((StatusCode::OK, said))) => (Exit::Done, said),
            Ok(Ok((_, said))) => (Exit::Failed, said),
            Ok(Err(error)) => (Exit::Unreachable, format!("{error:#}")),
            Err(_) => (Exit::Unreachable, format!("no answer within {} s", DEADLINE.as_secs())),
        };
        if told as u8 > exit as u8 {
            exit = told;
        }
        heard.push(Heard { at: listen.to_string(), ready: told == Exit::Done, detail });
    }
    context.output.records(["at", "", "detail"], &heard, |heard| {
        let word = if heard.ready { "ready" } else { "NOT READY" };
        [heard.at.clone(), word.to_owned(), if heard.ready { String::new() } else { heard.detail.clone() }]
    })?;
    Ok(exit)
}

async fn ask(at: &Listen) -> anyhow::Result<(StatusCode, String)> {
    match at {
        Listen::Tcp(address) => get_ready(TcpStream::connect(reachable(*address)).await?).await,
        Listen::Unix(path) => get_ready(UnixStream::connect(path).await?).await,
    }
}

/// Who listens on all addresses is asked on loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let loopback = if address.is_ipv4() { IpAddr::from(Ipv4Addr::LOCALHOST) } else { Ipv6Addr::LOCALHOST.into() };
        address.set_ip(loopback);
    }
    address
}

async fn get_ready(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> anyhow::Result<(StatusCode, String)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its end is seen by whoever waits for the answer.
    tokio::spawn(connection);
    let request = Request::get("/readyz").header(HOST, "localhost").body(Empty::<Bytes>::new())?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let said = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| anyhow!("{error}"))?.to_bytes();
    Ok((head.status, String::from_utf8_lossy(&said).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_are_asked_on_loopback() {
        for (listens, asked) in
            [("0.0.0.0:7070", "127.0.0.1:7070"), ("[::]:7070", "[::1]:7070"), ("192.0.2.1:80", "192.0.2.1:80")]
        {
            assert_eq!(reachable(listens.parse().unwrap()).to_string(), asked);
        }
    }
}
