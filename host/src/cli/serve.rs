//! `provisor serve`: runs the host until it is told to stop.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use secrecy::ExposeSecret as _;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::book::{Home, block_on};
use super::unshown::Unshown;
use super::{Context, Exit, Failure};
use crate::audit;
use crate::clock::{Clock, System};
use crate::config::{self, CardGateway, Config, Environment, Listen};
use crate::gateway;
use crate::listen::Listener;
use crate::mail::{self, MailOptions, MailWay, PostOffice, Smtp, SmtpTls};
use crate::operations::{self, Profiles, Working};
use crate::plugin::Host;
use crate::server::{self, Gateway, Mounts, Options};
use crate::store::Store;

/// Serve billing panels, the providers' APIs, or both
#[derive(Args)]
#[command(after_help = "\
Examples:
  provisor serve                           the wings that the configuration names; without any, the server on 127.0.0.1:8080
  provisor serve --server 0.0.0.0:8080 --data /var/lib/provisor
  provisor serve --gateway unix:/run/provisor/gateway.sock
  provisor serve --gateway 127.0.0.1:7070 --plugin provider.wasm

The gateway is for billing panels (docs/gateway.md), the server for resellers. /healthz says that the process lives, /readyz that it
can answer; /metrics tells Prometheus, on the gateway, and of the server on the listener that `metrics` of [server] names. SIGHUP
reads the profiles and the component anew; SIGTERM and SIGINT end it: answers under way are finished first.")]
pub(super) struct Serve {
    /// Run the server on this address and port; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    server: Option<SocketAddr>,
    /// Run the gateway on this address and port, or on unix:PATH
    #[arg(long, value_name = "ADDR", value_parser = Unshown::<Listen>::new())]
    gateway: Option<Listen>,
    /// The component that the gateway asks, in place of the built-in one
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
}

#[derive(Serialize)]
struct Listening {
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
}

impl Listening {
    fn text(&self) -> String {
        let server = self.server.map(|at| format!("the server listens on http://{at}"));
        let at = |at: &String| match at.strip_prefix("unix:") {
            Some(path) => path.to_owned(),
            None => format!("http://{at}"),
        };
        let metrics = self.metrics.as_ref().map(|listens| format!("the server's /metrics are on {}", at(listens)));
        let gateway = self.gateway.as_ref().map(|listens| format!("the gateway listens on {}", at(listens)));
        server.into_iter().chain(metrics).chain(gateway).collect::<Vec<_>>().join("\n")
    }
}

/// Where each wing that runs listens.
pub(super) struct Wings {
    pub(super) server: Option<SocketAddr>,
    pub(super) gateway: Option<Listen>,
}

impl Wings {
    /// Those that the configuration names.
    pub(super) fn configured(config: &Config) -> Self {
        Self::of(None, None, config)
    }

    /// What the command line names stands over the configuration. Where nobody names any, the server runs.
    fn of(server: Option<SocketAddr>, gateway: Option<Listen>, config: &Config) -> Self {
        let server = server.or_else(|| config.server.as_ref().map(|server| server.listen));
        let gateway = gateway.or_else(|| config.gateway.as_ref().map(|gateway| gateway.listen.clone()));
        let is_nothing_named = server.is_none() && gateway.is_none();
        Self { server: server.or_else(|| is_nothing_named.then(|| config::Server::default().listen)), gateway }
    }
}

pub(super) fn run(command: &Serve, context: &Context) -> Result<Exit, Failure> {
    let home = context.home()?;
    let Wings { server, gateway } = Wings::of(command.server, command.gateway.clone(), &home.config);
    let store = home.book()?;
    if store.is_sealed() {
        tracing::error!(
            "the master key of this book is missing from {}: every request is answered with 503 until it is back",
            home.directory.display()
        );
    }
    block_on(async move {
        // Before anything else: until they are handled, these signals end the process.
        let (stop, hang_up) = (stop_signal()?, signal(SignalKind::hangup()).map_err(Failure::failed)?);
        let server = match server {
            Some(address) => Some(start_server(address, &home, context, store.clone()).await?),
            None => None,
        };
        let gateway = match &gateway {
            Some(listen) => Some(Asking::start(listen, command.plugin.as_deref(), &home, context, store.clone()).await?),
            None => None,
        };
        // The server sends what is in the outbox itself.
        let has_mail = gateway.is_some() && home.config.gateway.iter().any(|gateway| gateway.summary.is_some());
        let post = match &server {
            None if has_mail => Some(Post::start(&home, context, store)?),
            _ => None,
        };
        let listening = Listening {
            server: server.as_ref().map(server::Running::address),
            metrics: server.as_ref().and_then(|server| server.metrics()).map(ToString::to_string),
            gateway: gateway.as_ref().map(|asking| asking.gateway.address().to_string()),
        };
        context.output.record(&listening, Listening::text)?;
        until_stopped(gateway.as_ref(), stop, hang_up, context).await;
        tracing::info!("stopping: answers under way are finished first");
        if let Some(gateway) = gateway {
            gateway.stop().await;
        }
        if let Some(server) = server {
            server.stop().await;
        }
        if let Some(post) = post {
            post.stop().await;
        }
        Ok(Exit::Done)
    })
}

async fn start_server(address: SocketAddr, home: &Home, context: &Context, store: Store) -> Result<server::Running, Failure> {
    let mut options = options(home, &context.environment)?;
    warn_of_targets(&options);
    let now = System.now();
    options.rules.fence = store.transact(move |books| books.fence(now)).await.map_err(Failure::failed)?;
    if let Some(lost_until) = options.rules.fence {
        tracing::info!(%lost_until, "the book was restored: requests that may have been accepted until then are refused");
    }
    if store.read(|books| books.is_sandbox()).map_err(Failure::failed)? {
        tracing::info!("the book is a sandbox");
    }
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"));
    let mut running =
        server::start(listener.map_err(Failure::unreachable)?, store, Arc::new(System), options).map_err(Failure::failed)?;
    if let Some(metrics) = home.config.server.as_ref().and_then(|server| server.metrics.as_ref()) {
        let listener = Listener::bind(metrics).await.with_context(|| format!("cannot listen on {metrics} for /metrics"));
        running.serve_metrics(listener.map_err(Failure::unreachable)?);
    }
    Ok(running)
}

/// The outbox's courier, where no server runs that has its own.
struct Post {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Post {
    fn start(home: &Home, context: &Context, store: Store) -> Result<Self, Failure> {
        let options = mail_options(home, &context.environment)?;
        let office = PostOffice::new(&options, &[], store, Arc::new(System)).map_err(Failure::failed)?;
        let (stop, stopped) = watch::channel(false);
        Ok(Self { stop, task: tokio::spawn(mail::run(office, stopped)) })
    }

    async fn stop(self) {
        // Nobody listens any more if the task has ended already.
        let _heard = self.stop.send(true);
        let _ended = self.task.await;
    }
}

/// The asking wing while it runs.
struct Asking {
    gateway: gateway::Running,
    journal: Working,
    engine: Host,
    plugin: Option<PathBuf>,
}

impl Asking {
    async fn start(
        listen: &Listen,
        plugin: Option<&Path>,
        home: &Home,
        context: &Context,
        store: Store,
    ) -> Result<Self, Failure> {
        let engine = Context::engine(home)?;
        let profiles = Profiles::default();
        profiles.replace(context.callers(home, &Context::component(&engine, plugin).await?)?);
        let listener = Listener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"));
        let listener = listener.map_err(Failure::unreachable)?;
        let clock = Arc::new(System);
        let journal = operations::start(store.clone(), clock.clone(), profiles, journal_options(&home.config));
        let callbacks = callbacks(&home.config, &context.environment)?;
        let summary = home.config.gateway.as_ref().and_then(|gateway| gateway.summary.as_ref()?.callback.clone());
        let proxies = home.config.gateway.iter().flat_map(|gateway| &gateway.trusted_proxies);
        let options = gateway::Options {
            operations: journal.operations().clone(),
            store,
            clock,
            trusted_proxies: proxies.map(|network| network.0).collect(),
            callbacks,
            summary,
        };
        let gateway = gateway::start(listener, options).map_err(Failure::usage)?;
        Ok(Self { gateway, journal, engine, plugin: plugin.map(Path::to_owned) })
    }

    /// Reads profiles and component anew. What cannot be used leaves everything as it was.
    async fn reload(&self, context: &Context) -> Result<usize, Failure> {
        let home = context.home()?;
        let callers = context.callers(&home, &Context::component(&self.engine, self.plugin.as_deref()).await?)?;
        let profiles = callers.len();
        self.journal.operations().profiles().replace(callers);
        Ok(profiles)
    }

    async fn stop(self) {
        self.gateway.stop().await;
        self.journal.stop().await;
    }
}

/// How panels are told, their secrets read.
fn callbacks(config: &Config, environment: &Environment) -> Result<BTreeMap<String, gateway::Callback>, Failure> {
    let read = |(name, callback): (&String, &config::Callback)| {
        let identifier = callback.identifier.as_ref().map(|value| value.read(environment)).transpose();
        let told = gateway::Callback {
            kind: match callback.kind {
                config::CallbackKind::Signed => gateway::CallbackKind::Signed,
                config::CallbackKind::Whmcs => gateway::CallbackKind::Whmcs,
                config::CallbackKind::FossBilling => gateway::CallbackKind::FossBilling,
            },
            url: callback.url.as_str().to_owned(),
            identifier: identifier.map_err(Failure::usage)?.map(|value| value.expose_secret().to_owned()).unwrap_or_default(),
            secret: callback.secret.read(environment).map_err(Failure::usage)?,
        };
        Ok((name.clone(), told))
    };
    config.callbacks.iter().map(read).collect()
}

fn journal_options(config: &Config) -> operations::Options {
    let config::Gateway { journal, summary, .. } = config.gateway.clone().unwrap_or_default();
    let seconds = |seconds: u32| jiff::SignedDuration::from_secs(seconds.into());
    operations::Options {
        rules: operations::Rules {
            retry_for: seconds(journal.retry_for_s),
            settle_for: seconds(journal.settle_for_s),
            first_pause: Duration::from_millis(journal.first_pause_ms.into()),
            quiet: Duration::from_millis(journal.quiet_ms.into()),
        },
        at_once: journal.at_once.into(),
        at_once_per_profile: journal.at_once_per_profile.into(),
        deadline_ms: journal.deadline_ms,
        check_every: Duration::from_secs(journal.check_every_s.into()),
        keep_for: (journal.keep_days > 0).then(|| jiff::SignedDuration::from_hours(24 * i64::from(journal.keep_days))),
        summary: summary.map(|summary| operations::SummaryOptions {
            at: summary.at.0,
            mail: summary.mail.map(String::from),
            is_told: summary.callback.is_some(),
        }),
    }
}

/// Waits until it is to stop; SIGHUP reads anew what can change while it runs.
async fn until_stopped(asking: Option<&Asking>, stop: impl Future<Output = ()>, mut hang_up: Signal, context: &Context) {
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = hang_up.recv() => match asking {
                None => tracing::info!("nothing to read anew: the gateway does not run"),
                Some(asking) => match asking.reload(context).await {
                    Ok(profiles) => tracing::info!(profiles, "the profiles and the component were read anew"),
                    Err(failure) => tracing::error!(error = format!("{:#}", failure.error), "everything stays as it was"),
                },
            },
        }
    }
}

/// What the configuration says of the server.
fn options(home: &Home, environment: &Environment) -> Result<Options, Failure> {
    let config = &home.config;
    let server = config.server.clone().unwrap_or_default();
    Ok(Options {
        mounts: Mounts::new(server.places()),
        trusted_proxies: server.trusted_proxies.iter().map(|network| network.0).collect(),
        per_ip_per_minute: server.limits.per_ip_per_minute,
        gateway: match server.cards.gateway {
            CardGateway::None => Gateway::None,
            CardGateway::Simulated => Gateway::Simulated,
        },
        gateway_timeout: Duration::from_millis(u64::from(server.cards.timeout_ms)),
        rules: config.rules(),
        mail: Some(mail_options(home, environment)?),
        checkpoints: Some(home.directory.join(audit::FOLDER).join(format!("{}.notes", host_name()))),
        ..Options::default()
    })
}

fn mail_options(home: &Home, environment: &Environment) -> Result<MailOptions, Failure> {
    let config = &home.config.mail;
    let way = match &config.smtp {
        Some(smtp) => MailWay::Smtp(mail_server(smtp, environment)?),
        None => MailWay::Files(home.directory.join("mail")),
    };
    Ok(MailOptions { from: config.from.0.clone(), way })
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

/// Hosts that share a folder write a file each.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String =
        name.trim().chars().filter(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_')).collect();
    if name.is_empty() { "host".to_owned() } else { name }
}

/// SIGTERM or SIGINT, from this call on: before it, either ends the process where it stands.
pub(super) fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::failed)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
