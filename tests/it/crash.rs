//! The shipped binary, killed in the middle of orders: an order is there once or not at all, whoever was answered is answered the
//! same again, and no cent is lost.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use provisor::audit::{Verdict, verify};
use provisor_providers::money::Minor;
use provisor_tests::binary::{client_on, is_long, run_on, serve_on};
use provisor_tests::book::{Book, Engine};
use provisor_tests::daemon::Daemon;
use provisor_tests::resellers::{KernelHostKey, unique};
use serde_json::Value;

const CLIENTS: usize = 8;
const CREDIT: Minor = Minor(1_000_000_000);
const PRICE: Minor = Minor(990);
const ORDER: &[u8] = br#"{"product_id":42,"billing_cycle":"monthly"}"#;
/// A server lives at most so long after it began to listen, in a round: a charge takes longer than an order.
const LIFE_MS: u64 = 30;
const CHARGING_LIFE_MS: u64 = 200;
/// So many orders are sent once; the next one twice at the same time, under one idempotency key.
const ALONE: usize = 3;
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
    fn meet(&mut self, server: &Daemon) {
        self.key = self.key.at(server);
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
        let twin = self.intents.len() % (ALONE + 1) == ALONE;
        // All but the last few were answered in an earlier life.
        let open = self.intents.iter_mut().rev().take_while(|intent| intent.answer.is_none());
        for intent in open {
            let answered = if twin {
                let pair = tokio::join!(order(&self.key, &intent.idempotency_key), order(&self.key, &intent.idempotency_key));
                if let (Some(first), Some(second)) = &pair {
                    assert!(first.0 == second.0 && (first.1 || second.1), "two answers to one intent");
                }
                pair.0.or(pair.1)
            } else {
                order(&self.key, &intent.idempotency_key).await
            };
            let Some((answer, replayed)) = answered else { return false };
            intent.answer = Some(answer);
            self.lost_answers += usize::from(replayed && !twin);
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
fn random_moment(life_ms: u64) -> Duration {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    Duration::from_micros(u64::from_le_bytes(bytes) % (life_ms * 1000))
}

/// A book, and how often its server is killed.
fn kills(times: usize) -> (Book, usize) {
    (Book::new(engine()), if is_long() { 5 * times } else { times })
}

/// How long a server lives at most. On PostgreSQL it has connected to nothing yet when it says where it listens.
fn life_ms() -> u64 {
    if engine() == Engine::Sqlite { LIFE_MS } else { 10 * LIFE_MS }
}

fn engine() -> Engine {
    Engine::of_module(module_path!())
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_survive_kill_9_exactly_once() {
    let (book, rounds) = kills(200);
    let (data, url) = (book.directory(), &book.url());
    let key = client_on(data, url, CREDIT);
    let mut clients: Vec<Client> =
        (0..CLIENTS).map(|_| Client { key: key.clone(), intents: Vec::new(), lost_answers: 0 }).collect();
    let mut unanswered = 0;
    for _ in 0..rounds {
        let server = serve_on(data, url);
        let running = clients.into_iter().map(|mut client| {
            client.meet(&server);
            tokio::spawn(client.order_on())
        });
        let running: Vec<_> = running.collect();
        tokio::time::sleep(random_moment(life_ms())).await;
        server.kill();
        clients = Vec::new();
        for client in running {
            clients.push(client.await.unwrap());
        }
        unanswered += clients.iter().flat_map(|client| &client.intents).filter(|intent| intent.answer.is_none()).count();
    }
    let server = serve_on(data, url);
    for client in &mut clients {
        client.meet(&server);
        assert!(client.settle().await, "the last server answers everything");
    }
    let lost: usize = clients.iter().map(|client| client.lost_answers).sum();
    let placed: usize = clients.iter().map(|client| client.intents.len()).sum();
    compare(&book, clients).await;
    server.kill();
    let store = book.open();
    assert!(matches!(store.read(verify).unwrap(), Verdict::Whole { .. }), "the audit chain");
    assert!(unanswered > 0, "no kill met an order under way: this test showed nothing");
    println!("{rounds} kills, {placed} orders, {unanswered} times no answer, {lost} of them after the order was placed");
}

/// Every order is answered as it was; returns their ids.
async fn ask_again(client: Client) -> Vec<i64> {
    let mut ids = Vec::new();
    for intent in &client.intents {
        let answer = intent.answer.as_ref().unwrap();
        let (again, replayed) = order(&client.key, &intent.idempotency_key).await.unwrap();
        assert!(replayed && again == *answer, "another answer for {}", intent.idempotency_key);
        ids.push(serde_json::from_slice::<Value>(answer).unwrap()["id"].as_i64().unwrap());
    }
    ids
}

/// The book against what the clients were told.
async fn compare(book: &Book, clients: Vec<Client>) {
    let key = clients[0].key.clone();
    let mut ids = BTreeSet::new();
    let mut placed = 0;
    for asking in clients.into_iter().map(|client| tokio::spawn(ask_again(client))).collect::<Vec<_>>() {
        let asked = asking.await.unwrap();
        placed += asked.len();
        ids.extend(asked);
    }
    assert!(placed > 0 && ids.len() == placed, "{placed} orders, {} ids", ids.len());
    let placed = i64::try_from(placed).unwrap();
    let balance = key.get("/v1/billing/balance").await.json()["balance"]["amount"].clone();
    assert_eq!(balance, Minor(CREDIT.0 - placed * PRICE.0).to_string(), "after {placed} orders");
    assert_eq!(book.number("SELECT COUNT(*) FROM orders"), placed);
    assert_eq!(book.number("SELECT COUNT(*) FROM invoices"), placed);
    assert_eq!(book.number("SELECT SUM(total) FROM invoices WHERE status = 'paid'"), placed * PRICE.0);
    assert_eq!(book.number("SELECT SUM(amount) FROM ledger"), CREDIT.0 - placed * PRICE.0);
    let begin = Instant::now();
    while book.number("SELECT COUNT(*) FROM orders WHERE status <> 'completed'") > 0 {
        assert!(begin.elapsed() < PATIENCE, "orders are stuck");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(book.number("SELECT COUNT(*) FROM services"), placed);
}

/// Places an order that a card pays; nothing when there is no answer.
async fn order_by_card(key: &KernelHostKey, idempotency_key: &str) -> Option<Bytes> {
    loop {
        let signed = key.headers(Timestamp::now().as_second(), "POST", "/v1/orders", ORDER);
        let mut headers: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        headers.extend([("Content-Type", "application/json"), ("Idempotency-Key", idempotency_key)]);
        let answer = key.http.try_send("POST", &format!("{}/v1/orders", key.base_url), &headers, ORDER).await.ok()?;
        match answer.status {
            201 => return Some(answer.body),
            409 => assert_eq!(answer.json()["reason"], "request_in_progress"),
            status => panic!("{status}: {}", answer.json()),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn charges_survive_kill_9_and_no_card_pays_twice() {
    let (book, rounds) = kills(100);
    let (data, url) = (book.directory(), &book.url());
    let key = client_on(data, url, CREDIT);
    let gone = format!("-{CREDIT}");
    run_on(data, url, &["reseller", "credit", "1", &gone]);
    run_on(data, url, &["reseller", "card", "1", "--token", "sim_success"]);
    let mut clients: Vec<Client> =
        (0..CLIENTS).map(|_| Client { key: key.clone(), intents: Vec::new(), lost_answers: 0 }).collect();
    for _ in 0..rounds {
        let server = serve_on(data, url);
        let running: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                client.meet(&server);
                tokio::spawn(async move {
                    loop {
                        let idempotency_key = format!("card-{}", unique());
                        let answer = order_by_card(&client.key, &idempotency_key).await;
                        let is_gone = answer.is_none();
                        client.intents.push(Intent { idempotency_key, answer });
                        if is_gone {
                            return client;
                        }
                    }
                })
            })
            .collect();
        tokio::time::sleep(random_moment(CHARGING_LIFE_MS)).await;
        server.kill();
        clients = Vec::new();
        for client in running {
            clients.push(client.await.unwrap());
        }
    }
    let left = book.number("SELECT COUNT(*) FROM payments WHERE status = 'charging'");
    let server = serve_on(data, url);
    let mut placed = 0;
    for client in &mut clients {
        client.meet(&server);
        for intent in &client.intents {
            let again = order_by_card(&client.key, &intent.idempotency_key).await.unwrap();
            assert!(intent.answer.as_ref().is_none_or(|first| *first == again), "another answer");
            placed += 1;
        }
    }
    assert_eq!(book.number("SELECT COUNT(*) FROM orders WHERE paid_at IS NOT NULL"), placed);
    assert_eq!(book.number("SELECT COUNT(*) FROM orders"), placed);
    assert_eq!(book.number("SELECT COUNT(*) FROM simulated_charges WHERE outcome = 'captured'"), placed);
    assert_eq!(book.number("SELECT SUM(amount) FROM simulated_charges"), placed * PRICE.0);
    assert_eq!(book.number("SELECT COUNT(*) FROM payments WHERE status = 'done'"), placed);
    assert_eq!(book.number("SELECT COUNT(*) FROM payments"), placed);
    assert_eq!(book.number("SELECT SUM(amount) FROM ledger"), 0);
    server.kill();
    assert!(matches!(book.open().read(verify).unwrap(), Verdict::Whole { .. }), "the audit chain");
    assert!(left > 0, "no kill met a charge under way: this test showed nothing");
    println!("{rounds} kills, {placed} orders paid by card, {left} charges taken up again");
}
