//! Where the database is, and connecting to it.

use std::time::Duration;

use provisor_providers::books::Fault;
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::{Config, NoTls};

use super::link::{Connection, Link, Trouble, wait};
use super::tls::Tls;
use crate::config::{PostgresHost, PostgresUrl};

/// For one host to be connected to.
const CONNECT: Duration = Duration::from_secs(5);
/// After which silence a peer on the network is taken for gone.
const SILENCE: Duration = Duration::from_secs(10);
/// What each session is told first. A statement that waits for another transaction for longer than this is tried again or given
/// up; no session keeps locks without working. A server that was told not to wait for its disk is told to.
const SESSION: &str = "\
SET statement_timeout = '10s'; SET lock_timeout = '5s'; SET idle_in_transaction_session_timeout = '30s';
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

/// The hosts that may have the database, and the reactor of all connections to them.
pub(super) struct Server {
    hosts: Vec<(Config, Option<Tls>)>,
    reactor: Option<Runtime>,
}

impl Server {
    pub(super) fn new(url: &PostgresUrl, password: Option<&SecretString>) -> Result<Self, Fault> {
        let wants_tls = url.hosts.iter().any(|host| matches!(host, PostgresHost::Network { tls: true, .. }));
        let tls = if wants_tls { Some(Tls::new(url.root_certificates.as_deref())?) } else { None };
        let hosts = url.hosts.iter().map(|host| configure(url, host, password, tls.as_ref())).collect();
        let reactor = Builder::new_multi_thread().worker_threads(1).thread_name("store-reactor").enable_all().build();
        let reactor = reactor.map_err(|error| Fault(format!("cannot start the reactor: {error}")))?;
        Ok(Self { hosts, reactor: Some(reactor) })
    }

    /// Connects to the first host that takes writes.
    pub(super) fn connect(&self) -> Result<Link, Fault> {
        let mut failures = Vec::new();
        for (config, tls) in &self.hosts {
            match self.connect_to(config, tls.clone()) {
                Ok(link) => return Ok(link),
                Err(Fault(why)) => failures.push(why),
            }
        }
        Err(Fault(failures.join("; ")))
    }

    fn connect_to(&self, config: &Config, tls: Option<Tls>) -> Result<Link, Fault> {
        let _reactor = self.reactor.as_ref().map(Runtime::enter);
        let connecting = async {
            match tls {
                Some(tls) => config.connect(tls).await.map(|(client, connection)| (client, Box::pin(connection) as Connection)),
                None => config.connect(NoTls).await.map(|(client, connection)| (client, Box::pin(connection) as Connection)),
            }
        };
        let connected = wait(connecting, CONNECT, |_| ()).ok_or_else(|| Fault("PostgreSQL: no connection in time".to_owned()))?;
        let (client, connection) = connected.map_err(|error| Trouble::of(&error).into_fault())?;
        let mut link = Link::new(client, connection);
        link.batch(SESSION).map_err(Trouble::into_fault)?;
        Ok(link)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(reactor) = self.reactor.take() {
            // Not waited for: it has no work of its own, and this may be a thread that must not wait.
            reactor.shutdown_background();
        }
    }
}

fn configure(
    url: &PostgresUrl,
    host: &PostgresHost,
    password: Option<&SecretString>,
    tls: Option<&Tls>,
) -> (Config, Option<Tls>) {
    let mut config = Config::new();
    config.dbname(&url.database).application_name("provisor").connect_timeout(CONNECT);
    // A standby is of no use: what is decided here must be written.
    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    config.keepalives_idle(SILENCE).tcp_user_timeout(SILENCE);
    if let Some(user) = &url.user {
        config.user(user);
    }
    if let Some(password) = password {
        config.password(password.expose_secret());
    }
    match host {
        PostgresHost::Socket(directory, port) => {
            config.host_path(directory).port(*port).ssl_mode(SslMode::Disable);
            (config, None)
        }
        PostgresHost::Network { host, port, tls: wants_tls } => {
            config.host(host).port(*port).ssl_mode(if *wants_tls { SslMode::Require } else { SslMode::Disable });
            (config, tls.filter(|_| *wants_tls).cloned())
        }
    }
}
