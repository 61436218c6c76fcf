//! The shipped binary, killed in the middle of orders: an order is there once or not at all, whoever was answered is answered the
//! same again, and no cent is lost.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use provisor::audit::{Verdict, verify};
use provisor_providers::money::Minor;
use provisor_tests::book::{Book, Engine};
use provisor_tests::http::Http;
use provisor_tests::processes::{a_clients_key, serve};
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

#[tokio::test(flavor = "multi_thread")]
async fn orders_survive_kill_9_exactly_once() {
    let rounds = if std::env::var("PROVISOR_LONG").is_ok_and(|long| long == "1") { 200 } else { 10 };
    let book = Book::new(Engine::of_module(module_path!()));
    let key = a_clients_key(book.directory(), &book.url(), CREDIT);
    let mut clients: Vec<Client> =
        (0..CLIENTS).map(|_| Client { key: key.clone(), intents: Vec::new(), lost_answers: 0 }).collect();
    let mut unanswered = 0;
    for _ in 0..rounds {
        let server = serve(book.directory(), &book.url());
        let running = clients.into_iter().map(|mut client| {
            client.meet(server.address());
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
    let server = serve(book.directory(), &book.url());
    for client in &mut clients {
        client.meet(server.address());
        assert!(client.settle().await, "the last server answers everything");
    }
    compare(&book, &clients).await;
    server.kill();
    let store = book.open();
    assert!(matches!(store.read(verify).unwrap(), Verdict::Whole { .. }), "the audit chain");
    let lost: usize = clients.iter().map(|client| client.lost_answers).sum();
    let placed: usize = clients.iter().map(|client| client.intents.len()).sum();
    assert!(unanswered > 0, "no kill met an order under way: this test showed nothing");
    println!("{rounds} kills, {placed} orders, {unanswered} times no answer, {lost} of them after the order was placed");
}

/// The book against what the clients were told.
async fn compare(book: &Book, clients: &[Client]) {
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
    assert_eq!(book.number("SELECT COUNT(*) FROM orders"), placed);
    assert_eq!(book.number("SELECT COUNT(*) FROM invoices"), placed);
    assert_eq!(book.number("SELECT SUM(amount) FROM ledger"), CREDIT.0 - placed * PRICE.0);
    let begin = Instant::now();
    while book.number("SELECT COUNT(*) FROM orders WHERE status <> 'completed'") > 0 {
        assert!(begin.elapsed() < PATIENCE, "orders are stuck");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(book.number("SELECT COUNT(*) FROM services"), placed);
}
