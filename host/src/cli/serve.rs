//! `provisor serve`: runs the host until it is told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::book::block_on;
use super::{Context, Exit, Failure};
use crate::clock::System;
use crate::config::{CardGateway, Config};
use crate::server::{Gateway, Options, start};

/// Serve the providers' APIs to resellers
#[derive(Args)]
#[command(after_help = "\
Examples:
  provisor serve                           on 127.0.0.1:8080, unless the configuration says otherwise
  provisor serve --server 0.0.0.0:8080 --data /var/lib/provisor

/healthz says that the process lives, /readyz that it can answer. SIGTERM and SIGINT end it: answers under way are finished first.")]
pub(super) struct Serve {
    /// Run the server on this address and port; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    server: Option<SocketAddr>,
    /// Run the gateway; this version has none
    #[arg(long, value_name = "ADDR")]
    gateway: Option<String>,
}

#[derive(Serialize)]
struct Listening {
    server: SocketAddr,
}

pub(super) fn run(command: &Serve, context: &Context) -> Result<Exit, Failure> {
    let home = context.home()?;
    if command.gateway.is_some() || home.config.gateway.is_some() {
        return Err(Failure::usage(anyhow!("this version has no gateway: leave out --gateway and the section [gateway]")));
    }
    let options = options(&home.config);
    let address = command.server.unwrap_or_else(|| home.config.server.clone().unwrap_or_default().listen);
    let store = home.book()?;
    if store.is_sealed() {
        tracing::error!(
            "the master key of this book is missing from {}: every request is answered with 503 until it is back",
            home.directory.display()
        );
    }
    block_on(async move {
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"));
        let listener = listener.map_err(Failure::unreachable)?;
        let running = start(listener, store, Arc::new(System), options).map_err(Failure::failed)?;
        context.output.record(&Listening { server: running.address() }, |at| format!("listening on http://{}", at.server))?;
        stop_signal().await?;
        tracing::info!("stopping: answers under way are finished first");
        running.stop().await;
        Ok(Exit::Done)
    })
}

/// What the configuration says of the server.
fn options(config: &Config) -> Options {
    let server = config.server.clone().unwrap_or_default();
    Options {
        trusted_proxies: server.trusted_proxies.iter().map(|network| network.0).collect(),
        per_ip_per_minute: server.limits.per_ip_per_minute,
        gateway: match server.cards.gateway {
            CardGateway::None => Gateway::None,
            CardGateway::Simulated => Gateway::Simulated,
        },
        gateway_timeout: Duration::from_millis(u64::from(server.cards.timeout_ms)),
        rules: config.rules(),
    }
}

/// Waits for SIGTERM or SIGINT.
pub(super) async fn stop_signal() -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::failed)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
