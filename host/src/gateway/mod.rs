//! The panels' side: JSON over HTTP, a bearer token per panel. docs/gateway.md is its description for people, `openapi.json` for
//! programs.
//!
//! This room turns a request into a question to the journal and its answer into a status; what is done, and how often, is decided there.

mod answer;
mod blesta;
mod body;
mod callbacks;
mod changes;
mod envelope;
mod questions;
mod routes;
mod upmind;
pub(crate) mod view;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ipnet::IpNet;
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use self::callbacks::Callbacks;
pub use self::callbacks::{Callback, CallbackKind};
use crate::addresses::Addresses;
use crate::clock::Clock;
use crate::egress::PolicyError;
use crate::listen::{Address, Listener};
use crate::operations::Operations;
use crate::store::Store;

/// The API's description, as it is served.
pub const OPENAPI: &str = include_str!("openapi.json");

/// Requests without a good token, per minute and address.
const STRANGERS_PER_MINUTE: u32 = 120;
/// Providers' webhooks, true or not, per minute and address: a provider sends those of all its profiles from a few.
const WEBHOOKS_PER_MINUTE: u32 = 600;
/// Requests of panels at a time; most of them wait for a provider.
const AT_ONCE: usize = 2_000;

/// What the gateway works with.
pub struct Options {
    /// The journal.
    pub operations: Operations,
    /// The book that has the panels.
    pub store: Store,
    /// Time and request ids.
    pub clock: Arc<dyn Clock>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How panels are told of what has ended, by their names.
    pub callbacks: BTreeMap<String, Callback>,
    /// The call-back, of the kind `signed`, that is told of the days' summaries.
    pub summary: Option<String>,
}

pub(crate) struct State {
    operations: Operations,
    store: Store,
    clock: Arc<dyn Clock>,
    trusted_proxies: Vec<IpNet>,
    strangers: Addresses,
    webhooks: Addresses,
    places: Semaphore,
    catalogs: Mutex<HashMap<String, Catalog>>,
    /// Whoever waits is answered when this says so.
    stopped: watch::Receiver<bool>,
}

/// A catalogue as it was read.
#[derive(Clone)]
struct Catalog {
    read: Instant,
    answer: Arc<Value>,
}

/// A gateway that runs until it is stopped.
pub struct Running {
    address: Address,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Takes no more connections, tells those who wait to come again, and returns.
    pub async fn stop(self) {
        // Nobody listens any more if the task has ended already.
        let _heard = self.stop.send(true);
        for task in self.tasks {
            let _ended = task.await;
        }
    }
}

/// Serves the gateway on a listener. Fails for a call-back whose address is none.
pub fn start(listener: Listener, options: Options) -> Result<Running, PolicyError> {
    let address = listener.address().clone();
    let (stop, stopped) = watch::channel(false);
    let Options { operations, store, clock, trusted_proxies, callbacks, summary } = options;
    let callbacks = Arc::new(Callbacks::new(callbacks)?);
    let state = Arc::new(State {
        operations,
        store,
        clock,
        trusted_proxies,
        strangers: Addresses::new(STRANGERS_PER_MINUTE),
        webhooks: Addresses::new(WEBHOOKS_PER_MINUTE),
        places: Semaphore::new(AT_ONCE),
        catalogs: Mutex::default(),
        stopped: stopped.clone(),
    });
    let mut tasks = vec![tokio::spawn(callbacks::run(Arc::clone(&state), Arc::clone(&callbacks), stopped.clone()))];
    if let Some(name) = summary {
        tasks.push(tokio::spawn(callbacks::tell_summaries(Arc::clone(&state), callbacks, name, stopped.clone())));
    }
    let service = move |request, peer| {
        let state = Arc::clone(&state);
        async move { routes::answer(&state, request, peer).await }
    };
    tasks.push(tokio::spawn(listener.serve(service, stopped)));
    Ok(Running { address, stop, tasks })
}
