//! What a request of the KernelHost API costs, from the socket to its commit, beside two servers that answer with the same bytes: a
//! bare axum handler that does nothing else, and Fastify with better-sqlite3, which checks the same, writes the same rows and is as
//! durable.
//!
//! Each server is a process of its own on one core, the load comes from the other. The rounds of all of them are interleaved, and
//! CPU time is the headline: it hardly depends on what else the machine does. `cargo bench -p provisor-tests --bench server`.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on says so and ends")]
#![expect(clippy::cast_precision_loss, reason = "a measurement is not that precise")]

mod bare;
mod growth;
mod load;
mod peer;
mod postgres;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use provisor::clock::{Clock, System};
use provisor::store::{NewKey, Store};
use provisor::vault::Vault;
use provisor_providers::books::{AccountId, Entry};
use provisor_providers::money::Minor;
use provisor_tests::binary::{SERVE, provisor, serve};
use provisor_tests::daemon::Daemon;
use provisor_tests::http::{Answer, Http};
use provisor_tests::resellers::{ALL_SCOPES, GENEROUS, KernelHostKey, unique};
use secrecy::SecretString;
use serde_json::Value;

use self::load::{Clients, Reading, Requests};

/// Connections at a time.
const CONNECTIONS: usize = 64;
/// Resellers with a key each, who share the connections: below the look-ups that one address may cause in a server that just started.
const CALLERS: usize = 32;
/// The first does not count.
const ROUNDS: usize = 6;
/// Turns of ours and of the bare handler in a round. The peer has one, which takes longer than all of them.
const TURNS: usize = 4;
/// Requests of a connection in a turn.
const READS: usize = 300;
const ORDERS: usize = 200;
const ORDER: &[u8] = br#"{"product_id":42,"billing_cycle":"monthly"}"#;
const MOUNT: &str = "/cp/kh_reseller_api";

/// A reseller of the benchmark.
pub(crate) struct Caller {
    pub(crate) key: KernelHostKey,
    pub(crate) account: AccountId,
    /// The path of its service.
    pub(crate) service: String,
}

/// A server under load.
struct Server {
    name: &'static str,
    daemon: Daemon,
    readings: Vec<Reading>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, file] = arguments.as_slice()
        && mode == "bare"
    {
        return bare::serve(Path::new(file));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let is_asked = |mode: &str| arguments.iter().any(|argument| argument == mode);
    if is_asked("postgres") {
        return runtime.block_on(postgres::measure());
    }
    load::pin_to_second_core();
    if is_asked("growth") {
        runtime.block_on(growth::measure());
    } else {
        runtime.block_on(measure());
    }
}

async fn measure() {
    let home = tempfile::tempdir().unwrap();
    let mut callers = prepare(home.path()).await;
    provide_services(serve(home.path()), &mut callers).await;
    // Making services of paid orders is not what is measured, nor what the peer does.
    let mut command = provisor(home.path());
    command.args(SERVE).env("PROVISOR_SERVER__FULFILMENT__DELAY_MS", "3600000");
    let ours = Daemon::start(on_first_core(&command));
    for caller in &mut callers {
        caller.key.base_url = format!("http://{}{MOUNT}", ours.address());
    }
    let read = callers[0].key.get(&callers[0].service).await;
    let order = callers[0].key.post("/v1/orders", "sample", &serde_json::from_slice(ORDER).unwrap()).await;
    assert_eq!((read.status, order.status), (200, 201));
    let (bare_read, bare_order) = (bare::start(home.path(), "read", &read), bare::start(home.path(), "order", &order));
    let peer = peer::start(home.path(), &callers, &read.body);
    let check = Http::default().send("GET", &format!("http://{}/nowhere", peer.address()), &[], "").await;
    assert_eq!(check.status, 404, "the peer serves what is measured and nothing else");

    let server = |name, daemon| Server { name, daemon, readings: Vec::new() };
    let mut servers =
        [server("provisor", ours), server("bare axum handler", bare_read), server("Fastify + better-sqlite3", peer)];
    compare("signed, audited GET /v1/services/{id}", &mut servers, READS, &|count| reads(&callers, CONNECTIONS, count)).await;
    let [ours, _, peer] = servers;
    let mut servers =
        [ours, server("bare axum handler", bare_order), peer].map(|server| Server { readings: Vec::new(), ..server });
    compare("durable order, POST /v1/orders", &mut servers, ORDERS, &|count| orders(&callers, CONNECTIONS, count)).await;
    batch_of_one(&servers[0], &callers).await;
    half_load(&servers, &callers).await;
}

/// A book with resellers who can pay for all of it.
async fn prepare(home: &Path) -> Vec<Caller> {
    Vault::create_key(home, &[7; 32]).unwrap();
    make_callers(&Store::open_sqlite(&home.join("provisor.db"), Vault::open(home).unwrap().into()).unwrap()).await
}

async fn make_callers(store: &Store) -> Vec<Caller> {
    let mut callers = Vec::new();
    for _ in 0..CALLERS {
        let secret = SecretString::from(format!("BENCHsecret{:0>29}", unique()));
        let id = format!("kh_live_{:0>32}", unique());
        let (now, new) = (System.now(), (id.clone(), secret.clone()));
        let made = store.transact(move |books| {
            let account = books.create_account("Bench", "bench@example.com", "EUR", now)?;
            books.credit(account, Minor(1_000_000_000_000), &Entry { at: now, kind: "credit", reference: "bench" })?;
            let (public_id, secret) = new.clone();
            let scopes = ALL_SCOPES.iter().map(|&scope| scope.to_owned()).collect();
            let key = NewKey {
                account,
                provider: "kernelhost".to_owned(),
                public_id,
                label: "bench".to_owned(),
                secret,
                scopes,
                allowed: Vec::new(),
                addresses: Vec::new(),
                limits: GENEROUS,
                expires_at: None,
            };
            books.create_key(&key, now)?;
            Ok(account)
        });
        let key = KernelHostKey { id, secret, base_url: String::new(), http: Http::default() };
        callers.push(Caller { key, account: made.await.unwrap(), service: String::new() });
    }
    callers
}

/// Lets a server make a service for each, and ends it.
async fn provide_services(server: Daemon, callers: &mut [Caller]) {
    for caller in callers {
        caller.key.base_url = format!("http://{}{MOUNT}", server.address());
        caller.service = first_service(&caller.key).await;
    }
    server.kill();
}

async fn first_service(key: &KernelHostKey) -> String {
    let order = key.post("/v1/orders", "first", &serde_json::from_slice(ORDER).unwrap()).await;
    assert_eq!(order.status, 201);
    let path = format!("/v1/orders/{}", order.json()["id"]);
    loop {
        let Answer { body, .. } = key.get(&path).await;
        let order: Value = serde_json::from_slice(&body).unwrap();
        if order["status"] == "completed" {
            return format!("/v1/services/{}", order["service_id"]);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The same command on the first core only, its threads scheduled as the systemd unit has them.
fn on_first_core(command: &Command) -> Command {
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", "0", "chrt", "--batch", "0"]).arg(command.get_program()).args(command.get_args());
    pinned.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    pinned
}

/// The callers in turn.
fn spread(callers: &[Caller], connections: usize) -> impl Iterator<Item = &Caller> {
    callers.iter().cycle().take(connections)
}

fn reads(callers: &[Caller], connections: usize, count: usize) -> Requests {
    let request = |caller: &Caller| load::signed(&caller.key, "GET", &caller.service, "", b"");
    spread(callers, connections).map(|caller| (0..count).map(|_| request(caller)).collect()).collect()
}

fn orders(callers: &[Caller], connections: usize, count: usize) -> Requests {
    let request = |caller: &Caller| {
        let head = format!("content-type: application/json\r\nidempotency-key: bench-{}\r\n", unique());
        load::signed(&caller.key, "POST", "/v1/orders", &head, ORDER)
    };
    spread(callers, connections).map(|caller| (0..count).map(|_| request(caller)).collect()).collect()
}

/// Ours, the bare handler, and the peer.
async fn compare(title: &str, servers: &mut [Server; 3], count: usize, requests: &dyn Fn(usize) -> Requests) {
    println!("\n{title}, {CONNECTIONS} connections, medians");
    for round in 0..ROUNDS {
        for server in [0, 1].repeat(TURNS).into_iter().chain([2]) {
            let server = &mut servers[server];
            // Signed ahead: the callers' work is not what is measured.
            let requests = requests(count);
            let clients = Clients::connect(server.daemon.address(), CONNECTIONS).await;
            let reading = load::turn(clients, requests, server.daemon.id()).await;
            if round > 0 {
                server.readings.push(reading);
            }
        }
    }
    let [ours, _, peer] = servers.each_ref().map(summary);
    // The machine's speed swings: what is compared was measured one right after the other.
    let pairs = servers[0].readings.iter().zip(&servers[1].readings);
    let shares = pairs.map(|(ours, bare)| Reading {
        cpu_us: bare.cpu_us / ours.cpu_us,
        per_second: ours.per_second / bare.per_second,
        p99_ms: ours.p99_ms / bare.p99_ms,
    });
    let share = Reading::median(&shares.collect::<Vec<_>>());
    println!("  share of the bare handler: {:.2} by CPU time, {:.2} by rate", share.cpu_us, share.per_second);
    println!("  times the peer: {:.1} by CPU time, {:.1} by rate", peer.cpu_us / ours.cpu_us, ours.per_second / peer.per_second);
}

fn summary(server: &Server) -> Reading {
    let reading = Reading::median(&server.readings);
    println!(
        "  {:24} {:7.1} us CPU, {:7.0}/s, p99 {:.1} ms, {} turns",
        server.name,
        reading.cpu_us,
        reading.per_second,
        reading.p99_ms,
        server.readings.len()
    );
    reading
}

/// One caller alone: each of its orders has a commit of its own.
async fn batch_of_one(server: &Server, callers: &[Caller]) {
    let mut readings = Vec::new();
    for _ in 0..ROUNDS {
        let clients = Clients::connect(server.daemon.address(), 1).await;
        readings.push(load::turn(clients, orders(callers, 1, ORDERS * 4), server.daemon.id()).await);
    }
    let (alone, together) = (Reading::median(&readings), Reading::median(&server.readings));
    println!("\ndurable orders from one connection, a commit each: {:.1} us CPU, {:.0}/s", alone.cpu_us, alone.per_second);
    println!("  {CONNECTIONS} connections to one: {:.1} by rate", together.per_second / alone.per_second);
}

/// Orders at half the rate that was reached, evenly spaced: what a caller waits when the server is not full. The bare handler at the
/// same pace tells how much of that is the machine's.
async fn half_load(servers: &[Server], callers: &[Caller]) {
    let rate = Reading::median(&servers[0].readings).per_second / 2.0;
    let pause = Duration::from_secs_f64(CONNECTIONS as f64 / rate);
    let mut readings = [Vec::new(), Vec::new()];
    for turn in 0..ROUNDS * TURNS {
        for (server, readings) in servers.iter().zip(&mut readings) {
            let clients = Clients::connect(server.daemon.address(), CONNECTIONS).await;
            let reading = load::paced(clients, orders(callers, CONNECTIONS, ORDERS), server.daemon.id(), pause).await;
            if turn > 0 {
                readings.push(reading);
            }
        }
    }
    let [ours, bare] = readings.map(|readings| Reading::median(&readings).p99_ms);
    println!("\ndurable orders at half load, {rate:.0}/s: p99 {ours:.1} ms, of the bare handler {bare:.1} ms");
}
