//! A server on a book of its own, on loopback and a free port, ended by the test that started it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use provisor::clock::{Clock, System};
use provisor::server::{MailOptions, MailWay, Options, Running, start};
use provisor::store::Store;
use provisor::vault::Vault;
use tempfile::TempDir;
use tokio::net::TcpListener;

/// A running server with its book.
pub struct House {
    /// For what happens beside the API.
    pub store: Store,
    /// The server's clock.
    pub clock: Arc<TestClock>,
    directory: TempDir,
    running: Option<Running>,
    options: Options,
}

impl House {
    /// Starts with the default rules, but paid orders are fulfilled at once.
    pub async fn start() -> Self {
        let mut options = Options { per_ip_per_minute: 0, ..Options::default() };
        options.rules.fulfilment_delay = std::time::Duration::ZERO;
        Self::start_with(options).await
    }

    /// Starts under other rules.
    pub async fn start_with(mut options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        options.mail.get_or_insert_with(|| MailOptions {
            from: "Provisor <provisor@example.org>".parse().unwrap(),
            way: MailWay::Files(directory.path().join("mail")),
        });
        Vault::create_key(directory.path(), &[7; 32]).unwrap();
        let clock = Arc::new(TestClock::default());
        let store = open(directory.path());
        let running = Some(serve(&store, &clock, &options).await);
        Self { store, clock, directory, running, options }
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.running.as_ref().unwrap().address()
    }

    /// Where an API is mounted, as a base URL.
    pub fn base_url(&self, provider: &str) -> String {
        let api = provisor_providers::find(provider).unwrap().server;
        format!("http://{}{}", self.address(), api.mount())
    }

    /// The book's directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Stops the server and starts another one on the same book.
    pub async fn restart(&mut self) {
        self.running.take().unwrap().stop().await;
        self.running = Some(serve(&self.store, &self.clock, &self.options).await);
    }

    /// Ends the server; the book's files stay until the house is dropped.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }
}

fn open(directory: &Path) -> Store {
    Store::open_sqlite(&directory.join("provisor.db"), Arc::new(Vault::open(directory).unwrap())).unwrap()
}

async fn serve(store: &Store, clock: &Arc<TestClock>, options: &Options) -> Running {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    start(listener, store.clone(), Arc::<TestClock>::clone(clock), options.clone()).unwrap()
}

/// The machine's clock until it is set; then it stands still and moves when told.
#[derive(Default)]
pub struct TestClock(Mutex<Option<Timestamp>>);

impl TestClock {
    /// Stops the clock at a moment.
    pub fn set(&self, now: Timestamp) {
        *self.0.lock().unwrap() = Some(now);
    }

    /// Moves it, from where it stands or runs.
    pub fn advance(&self, by: SignedDuration) {
        let now = self.now() + by;
        self.set(now);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        self.0.lock().unwrap().unwrap_or_else(Timestamp::now)
    }

    fn seed(&self) -> [u8; 32] {
        System.seed()
    }
}
