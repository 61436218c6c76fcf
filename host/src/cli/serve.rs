//! `provisor serve`: runs the host until it is told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::book::{Home, block_on};
use super::{Context, Exit, Failure};
use crate::clock::System;
use crate::config::{self, CardGateway, Environment};
use crate::server::{Gateway, MailOptions, MailWay, Options, Smtp, SmtpTls, start};

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
    let options = options(&home, &context.environment)?;
    warn_of_targets(&options);
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
fn options(home: &Home, environment: &Environment) -> Result<Options, Failure> {
    let config = &home.config;
    let server = config.server.clone().unwrap_or_default();
    let way = match &config.mail.smtp {
        Some(smtp) => MailWay::Smtp(mail_server(smtp, environment)?),
        None => MailWay::Files(home.directory.join("mail")),
    };
    Ok(Options {
        trusted_proxies: server.trusted_proxies.iter().map(|network| network.0).collect(),
        per_ip_per_minute: server.limits.per_ip_per_minute,
        gateway: match server.cards.gateway {
            CardGateway::None => Gateway::None,
            CardGateway::Simulated => Gateway::Simulated,
        },
        gateway_timeout: Duration::from_millis(u64::from(server.cards.timeout_ms)),
        rules: config.rules(),
        mail: Some(MailOptions { from: config.mail.from.0.clone(), way }),
        ..Options::default()
    })
}

fn mail_server(smtp: &config::Smtp, environment: &Environment) -> Result<Smtp, Failure> {
    let credentials = match (&smtp.username, &smtp.password) {
        (Some(user), Some(password)) => Some((user.clone(), password.read(environment).map_err(Failure::usage)?)),
        _ => None,
    };
    let tls = match smtp.tls {
        config::SmtpTls::Tls => SmtpTls::Tls,
        config::SmtpTls::StartTls => SmtpTls::StartTls,
        config::SmtpTls::None => SmtpTls::None,
    };
    Ok(Smtp { host: smtp.host.clone(), port: smtp.port, tls, credentials })
}

fn warn_of_targets(options: &Options) {
    let targets: Vec<String> = options.rules.webhooks.allowed.iter().map(ToString::to_string).collect();
    if !targets.is_empty() {
        let targets = targets.join(", ");
        tracing::warn!(targets, "webhooks.allow_targets is set, for development only: webhooks may reach these privately");
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
