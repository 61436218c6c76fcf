//! The shipped binary, killed in the middle of orders: an order is there once or not at all, whoever was answered is answered the
//! same again, and no cent is lost.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use provisor::audit::{Verdict, verify};
use provisor::store::Store;
use provisor::vault::Vault;
use provisor_providers::money::Minor;
use provisor_tests::http::Http;
use provisor_tests::resellers::{KernelHostKey, unique};
use serde_json::Value;

const CLIENTS: usize = 8;
const CREDIT: Minor = Minor(1_000_000_000);
const PRICE: Minor = Minor(990);
const ORDER: &[u8] = br#"{"product_id":42,"billing_cycle":"monthly"}"#;
/// A server lives at most so long after it began to listen, in a round.
const LIFE_MS: u64 = 150;
/// How long the last server may take to work off what the killed ones left.
const PATIENCE: Duration = Duration::from_secs(60);

/// The binary that stands beside this test's own.
fn binary() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let binary = own.parent().unwrap().parent().unwrap().join("provisor");
    assert!(binary.exists(), "{} is missing: run `cargo build --release -p provisor` first", binary.display());
    binary
}

/// The binary on a data directory, in an environment of its own.
pub(super) fn provisor(data: &Path) -> Command {
    let mut command = Command::new(binary());
    command
        .env_clear()
        .envs([("PROVISOR_SERVER__LIMITS__PER_IP_PER_MINUTE", "0"), ("PROVISOR_SERVER__FULFILMENT__DELAY_MS", "0")]);
    command.args(["--json", "--data"]).arg(data);
    command
}

/// What a command that ends by itself prints.
fn run(data: &Path, arguments: &[&str]) -> Value {
    let output = provisor(data).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A running server, killed when it is dropped.
pub(super) struct Server {
    process: Child,
    pub(super) address: SocketAddr,
}

impl Server {
    pub(super) fn start(data: &Path) -> Self {
        let mut command = provisor(data);
        command.args(["serve", "--server", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let listening: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: `{line}`"));
        let address = listening["server"].as_str().unwrap().parse().unwrap();
        Self { process, address }
    }

    /// SIGKILL: nothing of it runs any more when this returns.
    pub(super) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// One intended order, and the answer once there was one.
struct Intent {
    idempotency_key: String,
    answer: Option<Bytes>,
}

/// A client that never gives an order up.
struct Client {
    key: KernelHostKey,
    intents: Vec<Intent>,
    /// Orders that had been executed although their answer was lost.
    lost_answers: usize,
}

impl Client {
    fn meet(&mut self, server: SocketAddr) {
        let mount = provisor_providers::find("kernelhost").unwrap().server.mount();
        self.key.base_url = format!("http://{server}{mount}");
        self.key.http = Http::default();
    }

    /// Repeats what was not answered, then orders more, until the server is gone.
    async fn order_on(mut self) -> Self {
        while self.settle().await {
            self.intents.push(Intent { idempotency_key: format!("crash-{}", unique()), answer: None });
        }
        self
    }

    /// Repeats what was not answered. False when the server is gone.
    async fn settle(&mut self) -> bool {
        for intent in self.intents.iter_mut().filter(|intent| intent.answer.is_none()) {
            let Some((answer, replayed)) = order(&self.key, &intent.idempotency_key).await else { return false };
            intent.answer = Some(answer);
            self.lost_answers += usize::from(replayed);
        }
        true
    }
}

/// Places an order, or finds it placed; nothing when there is no answer.
async fn order(key: &KernelHostKey, idempotency_key: &str) -> Option<(Bytes, bool)> {
    let signed = key.headers(Timestamp::now().as_second(), "POST", "/v1/orders", ORDER);
    let mut headers: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
    headers.extend([("Content-Type", "application/json"), ("Idempotency-Key", idempotency_key)]);
    let answer = key.http.try_send("POST", &format!("{}/v1/orders", key.base_url), &headers, ORDER).await.ok()?;
    assert_eq!(answer.status, 201, "{}", answer.json());
    Some((answer.body.clone(), answer.header("idempotent-replayed").is_some()))
}

/// A moment within the life of a server; early ones come as often as late ones.
fn random_moment() -> Duration {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    Duration::from_micros(u64::from_le_bytes(bytes) % (LIFE_MS * 1000))
}

fn open(data: &Path) -> Store {
    Store::open_sqlite(&data.join("provisor.db"), Arc::new(Vault::open(data).unwrap())).unwrap()
}

fn count(data: &Path, query: &str) -> i64 {
    let book = rusqlite::Connection::open(data.join("provisor.db")).unwrap();
    book.query_row(query, [], |row| row.get(0)).unwrap()
}

pub(super) fn a_clients_key(data: &Path) -> KernelHostKey {
    let reseller = ["reseller", "create", "--name", "Crash", "--email", "owner@example.com", "--credit", &CREDIT.to_string()];
    let reseller = run(data, &reseller)["id"].to_string();
    let create = ["key", "create", "--reseller", &reseller, "--provider", "kernelhost", "--scopes", "all"];
    let limits = ["--per-minute", "1000000", "--burst", "1000000", "--per-day", "100000000"];
    let made = run(data, &[&create[..], &limits].concat());
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    KernelHostKey { id: text("key"), secret: text("secret").into(), base_url: String::new(), http: Http::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_survive_kill_9_exactly_once() {
    let rounds = if std::env::var("PROVISOR_LONG").is_ok_and(|long| long == "1") { 200 } else { 10 };
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let key = a_clients_key(data);
    let mut clients: Vec<Client> =
        (0..CLIENTS).map(|_| Client { key: key.clone(), intents: Vec::new(), lost_answers: 0 }).collect();
    let mut unanswered = 0;
    for _ in 0..rounds {
        let server = Server::start(data);
        let running = clients.into_iter().map(|mut client| {
            client.meet(server.address);
            tokio::spawn(client.order_on())
        });
        let running: Vec<_> = running.collect();
        tokio::time::sleep(random_moment()).await;
        server.kill();
        clients = Vec::new();
        for client in running {
            clients.push(client.await.unwrap());
        }
        unanswered += clients.iter().flat_map(|client| &client.intents).filter(|intent| intent.answer.is_none()).count();
    }
    let server = Server::start(data);
    for client in &mut clients {
        client.meet(server.address);
        assert!(client.settle().await, "the last server answers everything");
    }
    compare(data, &clients).await;
    server.kill();
    let store = open(data);
    assert!(matches!(store.read(verify).unwrap(), Verdict::Whole { .. }), "the audit chain");
    let lost: usize = clients.iter().map(|client| client.lost_answers).sum();
    let placed: usize = clients.iter().map(|client| client.intents.len()).sum();
    assert!(unanswered > 0, "no kill met an order under way: this test showed nothing");
    println!("{rounds} kills, {placed} orders, {unanswered} times no answer, {lost} of them after the order was placed");
}

/// The book against what the clients were told.
async fn compare(data: &Path, clients: &[Client]) {
    let mut ids = BTreeSet::new();
    let mut placed = 0;
    for client in clients {
        for intent in &client.intents {
            let answer = intent.answer.as_ref().unwrap();
            let (again, replayed) = order(&client.key, &intent.idempotency_key).await.unwrap();
            assert!(replayed && again == *answer, "another answer for {}", intent.idempotency_key);
            ids.insert(serde_json::from_slice::<Value>(answer).unwrap()["id"].as_i64().unwrap());
            placed += 1;
        }
    }
    assert!(placed > 0 && ids.len() == placed, "{placed} orders, {} ids", ids.len());
    let placed = i64::try_from(placed).unwrap();
    let balance = clients[0].key.get("/v1/billing/balance").await.json()["balance"]["amount"].clone();
    assert_eq!(balance, Minor(CREDIT.0 - placed * PRICE.0).to_string(), "after {placed} orders");
    assert_eq!(count(data, "SELECT COUNT(*) FROM orders"), placed);
    assert_eq!(count(data, "SELECT COUNT(*) FROM invoices"), placed);
    assert_eq!(count(data, "SELECT SUM(amount) FROM ledger"), CREDIT.0 - placed * PRICE.0);
    let begin = Instant::now();
    while count(data, "SELECT COUNT(*) FROM orders WHERE status <> 'completed'") > 0 {
        assert!(begin.elapsed() < PATIENCE, "orders are stuck");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(count(data, "SELECT COUNT(*) FROM services"), placed);
}
