//! A server on a book of its own, on loopback and a free port, ended by the test that started it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use provisor::clock::{Clock, System};
use provisor::mail::{MailOptions, MailWay};
use provisor::server::{Options, Running, start};
use provisor::store::Store;
use tokio::net::TcpListener;

use crate::book::{Book, Engine};

/// A running server with its book.
pub struct House {
    /// For what happens beside the API.
    pub store: Store,
    /// The server's clock.
    pub clock: Arc<TestClock>,
    book: Book,
    running: Option<Running>,
    options: Options,
}

impl House {
    /// Starts with the default rules, but paid orders are fulfilled at once.
    pub async fn start() -> Self {
        Self::start_in(Engine::Sqlite).await
    }

    /// The same on an engine.
    pub async fn start_in(engine: Engine) -> Self {
        let mut options = Options { per_ip_per_minute: 0, ..Options::default() };
        options.rules.fulfilment_delay = std::time::Duration::ZERO;
        Self::start_on(engine, options).await
    }

    /// Starts under other rules.
    pub async fn start_with(options: Options) -> Self {
        Self::start_on(Engine::Sqlite, options).await
    }

    /// Starts on an engine under other rules.
    pub async fn start_on(engine: Engine, mut options: Options) -> Self {
        let book = Book::new(engine);
        options.mail.get_or_insert_with(|| MailOptions {
            from: "Provisor <provisor@example.org>".parse().unwrap(),
            way: MailWay::Files(book.directory().join("mail")),
        });
        let clock = Arc::new(TestClock::default());
        let store = book.open();
        let running = Some(serve(&store, &clock, &options).await);
        Self { store, clock, book, running, options }
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

    /// The book, past the program.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// The book's directory.
    pub fn directory(&self) -> &Path {
        self.book.directory()
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
