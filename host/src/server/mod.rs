//! The answering wing: the providers' APIs, served to resellers.
//!
//! This room moves bytes: what a request means is decided by its provider's `admit` and `serve`, what stays by the store.

mod between;
mod cards;
mod checkpoints;
mod errands;
mod keys;
mod metrics;
mod mounts;
mod probes;
mod schedule;
mod visit;
mod webhooks;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use provisor_providers::server::Rules;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use self::cards::{CardGateway, NoGateway, Simulated};
use self::checkpoints::Checkpoints;
use self::keys::KeyCache;
use self::metrics::Metrics;
pub use self::mounts::Mounts;
use self::webhooks::Postman;
use crate::addresses::Addresses;
use crate::clock::Clock;
use crate::listen::{Address, CONNECTIONS, Listener};
use crate::mail::{self, MailOptions, PostOffice};
use crate::resolve::{Resolve, SystemResolver};
use crate::store::Store;

/// Slow admissions at a time: each derives a key, which takes a core and 19 MiB.
const ADMISSIONS: usize = 8;

/// Errands at a time, over all providers.
const ERRANDS: usize = 16;

/// What the operator may choose.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the APIs are served.
    pub mounts: Mounts,
    /// Reverse proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Requests per minute from one address; 0 for no limit.
    pub per_ip_per_minute: u32,
    /// What charges cards.
    pub gateway: Gateway,
    /// How long it may take for a charge; shorter than [`Rules::charge_lease`].
    pub gateway_timeout: Duration,
    /// What the providers' servers go by.
    pub rules: Rules,
    /// The file to which signed checkpoints of the audit log are appended; none without one.
    pub checkpoints: Option<PathBuf>,
    /// Who resolves the names of webhooks' hosts.
    pub resolver: Arc<dyn Resolve>,
    /// How long a webhook may take to answer, the way there included; shorter than a courier holds a delivery.
    pub webhook_timeout: Duration,
    /// Certificate authorities of webhooks' hosts and of the mail server besides the public ones.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// How mail is sent; without it, mail waits in the book.
    pub mail: Option<MailOptions>,
}

/// What charges cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gateway {
    /// Nothing does.
    None,
    /// A bank in the book, for tests and for trying out.
    Simulated,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mounts: Mounts::default(),
            trusted_proxies: Vec::new(),
            per_ip_per_minute: 600,
            gateway: Gateway::Simulated,
            gateway_timeout: Duration::from_secs(20),
            rules: Rules::default(),
            resolver: Arc::new(SystemResolver),
            webhook_timeout: Duration::from_secs(15),
            extra_roots: Vec::new(),
            mail: None,
            checkpoints: None,
        }
    }
}

/// A server that runs until it is stopped.
pub struct Running {
    address: SocketAddr,
    metrics: Option<Address>,
    state: Arc<State>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    /// Where it listens: with port 0 asked for, the port it was given.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where monitoring asks, if it may.
    pub fn metrics(&self) -> Option<&Address> {
        self.metrics.as_ref()
    }

    /// Tells monitoring at `GET /metrics` of another listener, until it is stopped. No token is asked for.
    pub fn serve_metrics(&mut self, listener: Listener) {
        self.metrics = Some(listener.address().clone());
        let serving = metrics::serve(listener, Arc::clone(&self.state), self.stop.subscribe());
        self.tasks.push(tokio::spawn(serving));
    }

    /// Takes no more connections, lets answers under way finish for up to 20 s, and returns.
    pub async fn stop(self) {
        // Nobody listens any more if every task has ended already.
        let _heard = self.stop.send(true);
        for task in self.tasks {
            let _ended = task.await;
        }
        checkpoints::write(&self.state).await;
    }
}

pub(crate) struct State {
    store: Store,
    clock: Arc<dyn Clock>,
    options: Options,
    addresses: Addresses,
    keys: KeyCache,
    admissions: Semaphore,
    /// Changes under way, also those whose callers have hung up and may come again: no more than there may be connections.
    changes: Arc<Semaphore>,
    checkpoints: Checkpoints,
    checked: probes::Checked,
    metrics: Metrics,
    gateway: Box<dyn CardGateway>,
    errands: Arc<Semaphore>,
}

/// Serves the providers' APIs on a listener.
pub fn start(listener: TcpListener, store: Store, clock: Arc<dyn Clock>, options: Options) -> io::Result<Running> {
    let address = listener.local_addr()?;
    let gateway: Box<dyn CardGateway> = match options.gateway {
        Gateway::None => Box::new(NoGateway),
        Gateway::Simulated => Box::new(Simulated { store: store.clone(), clock: Arc::clone(&clock) }),
    };
    let postman = Postman::new(&options).map_err(io::Error::other)?;
    let office = |mail| PostOffice::new(mail, &options.extra_roots, store.clone(), Arc::clone(&clock));
    let post_office = options.mail.as_ref().map(office);
    let post_office = post_office.transpose().map_err(io::Error::other)?;
    let state = Arc::new(State {
        gateway,
        errands: Arc::new(Semaphore::new(ERRANDS)),
        store,
        clock,
        addresses: Addresses::new(options.per_ip_per_minute),
        checkpoints: Checkpoints::new(options.checkpoints.clone()),
        checked: probes::Checked::default(),
        metrics: Metrics::new(),
        options,
        keys: KeyCache::new(),
        admissions: Semaphore::new(ADMISSIONS),
        changes: Arc::new(Semaphore::new(CONNECTIONS)),
    });
    let (stop, stopped) = watch::channel(false);
    let mut tasks = vec![
        tokio::spawn(serve(Listener::of(listener)?, Arc::clone(&state), stopped.clone())),
        tokio::spawn(schedule::run(Arc::clone(&state), stopped.clone())),
        tokio::spawn(checkpoints::run(Arc::clone(&state), stopped.clone())),
        tokio::spawn(webhooks::run(Arc::clone(&state), postman, stopped.clone())),
    ];
    if let Some(post_office) = post_office {
        tasks.push(tokio::spawn(mail::run(post_office, stopped)));
    }
    let checking = Arc::clone(&state);
    // A thread of its own, for which nobody waits: a server that is stopped does not care any more.
    std::thread::Builder::new().name("quick-check".to_owned()).spawn(move || probes::check(&checking))?;
    Ok(Running { address, metrics: None, state, stop, tasks })
}

async fn serve(listener: Listener, state: Arc<State>, stopped: watch::Receiver<bool>) {
    let service = move |request, peer| {
        let state = Arc::clone(&state);
        async move { visit::answer(&state, request, peer).await }
    };
    listener.serve(service, stopped).await;
}
