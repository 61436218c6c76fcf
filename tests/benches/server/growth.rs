//! Whether a request costs more in a book that has grown, and what a server holds of live nonces.
//!
//! `cargo bench -p provisor-tests --bench server -- growth`

use std::path::Path;

use provisor_tests::binary::{SERVE, provisor, serve};
use provisor_tests::daemon::Daemon;
use tempfile::TempDir;

use super::load::{self, Clients, Reading, Requests};
use super::{
    CALLERS, CONNECTIONS, Caller, MOUNT, ORDERS, READS, ROUNDS, on_first_core, orders, prepare, provide_services, reads,
};

/// Rows of each table that grows.
const FEW: usize = 1_000;
const MANY: usize = 1_000_000;
/// What a key that is used ten times a second leaves in 600 s, 36 times.
const NONCES: usize = 216_000;

/// A server on a book of some size.
struct Grown {
    rows: usize,
    daemon: Daemon,
    callers: Vec<Caller>,
    home: TempDir,
}

impl Grown {
    async fn start(rows: usize) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut callers = prepare(home.path()).await;
        provide_services(serve(home.path()), &mut callers).await;
        fill(home.path(), rows);
        let mut command = provisor(home.path());
        command.args(SERVE).env("PROVISOR_SERVER__FULFILMENT__DELAY_MS", "3600000");
        let daemon = Daemon::start(on_first_core(&command));
        for caller in &mut callers {
            caller.key.base_url = format!("http://{}{MOUNT}", daemon.address());
        }
        Self { rows, daemon, callers, home }
    }

    async fn turn(&self, requests: Requests) -> Reading {
        load::turn(Clients::connect(self.daemon.address(), CONNECTIONS).await, requests, self.daemon.id()).await
    }
}

pub(crate) async fn measure() {
    let (few, many) = (Grown::start(FEW).await, Grown::start(MANY).await);
    compare("signed, audited GET /v1/services/{id}", [&few, &many], &|callers| reads(callers, CONNECTIONS, READS)).await;
    compare("durable order, POST /v1/orders", [&few, &many], &|callers| orders(callers, CONNECTIONS, ORDERS)).await;
    drop((few, many));
    hold_nonces().await;
}

async fn compare(title: &str, books: [&Grown; 2], requests: &dyn Fn(&[Caller]) -> Requests) {
    println!("\n{title}, {CONNECTIONS} connections, medians of {} turns", ROUNDS - 1);
    let mut readings = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        for (book, readings) in books.iter().zip(&mut readings) {
            let reading = book.turn(requests(&book.callers)).await;
            if round > 0 {
                readings.push(reading);
            }
        }
    }
    let [few, many] = readings.map(|readings| Reading::median(&readings));
    for (book, Reading { cpu_us, per_second, p99_ms }) in books.iter().zip([few, many]) {
        println!("  {:>9} rows a table  {cpu_us:7.1} us CPU, {per_second:7.0}/s, p99 {p99_ms:.1} ms", book.rows);
    }
    println!("  ratio, many to few: {:.2} by CPU time", many.cpu_us / few.cpu_us);
}

/// Memory of a server that has just seen so many requests, whose nonces it must all know.
async fn hold_nonces() {
    let server = Grown::start(0).await;
    let before = resident_kib(&server.daemon);
    let mut sent = 0;
    while sent < NONCES {
        server.turn(reads(&server.callers, CONNECTIONS, READS)).await;
        sent += CONNECTIONS * READS;
    }
    let book = rusqlite::Connection::open(server.home.path().join("provisor.db")).unwrap();
    let live: u32 = book.query_row("SELECT COUNT(*) FROM nonces", [], |row| row.get(0)).unwrap();
    assert!(usize::try_from(live).unwrap() >= NONCES, "{live} nonces are live");
    println!("\nmemory with {live} live nonces: {} MiB, {} MiB before", resident_kib(&server.daemon) / 1024, before / 1024);
}

fn resident_kib(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Rows as requests leave them, of all callers in turn; the keys are of nobody who asks.
fn fill(home: &Path, rows: usize) {
    let book = rusqlite::Connection::open(home.join("provisor.db")).unwrap();
    let numbers =
        format!("WITH RECURSIVE n(i) AS (SELECT 0 WHERE {rows} > 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {rows})");
    let caller = format!("(1 + i % {CALLERS})");
    let later = jiff::Timestamp::now().as_millisecond() + 3_600_000;
    book.execute_batch("PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF").unwrap();
    for statement in [
        format!(
            "INSERT INTO invoices (id, account_id, status, total, currency, issued_at, due_at, paid_at, previous, number)
             SELECT 1000000 + i, {caller}, 'paid', 990, 'EUR', i, i, i, 1000000 + i - {CALLERS}, i / {CALLERS} FROM n"
        ),
        format!(
            "INSERT INTO orders (id, account_id, product_id, cycle, quantity, config_options, total, recurring, currency, invoice_id,
                                 created_at, expires_at, status, service_id, paid_at)
             SELECT 1000000 + i, {caller}, 42, 'monthly', 1, '{{}}', 990, 990, 'EUR', 1000000 + i, i, i, 'completed', 1000000 + i, i
             FROM n"
        ),
        format!(
            "INSERT INTO services (id, account_id, order_id, product_id, status, power, hostname, addresses, cycle, recurring,
                                   currency, next_due_at, created_at, username, sealed_password, port)
             SELECT 1000000 + i, {caller}, 1000000 + i, 42, 'active', 'running', 'web.example', '192.0.2.1', 'monthly', 990, 'EUR',
                    4102444800000, i, 'root', zeroblob(60), 22 FROM n"
        ),
        format!("INSERT INTO ledger (account_id, at, amount, kind, reference) SELECT {caller}, i, 0, 'order', 'x' FROM n"),
        format!(
            "INSERT INTO api_keys (account_id, provider, public_id, label, sealed_secret, scopes, allowed, per_minute, burst, per_day,
                                   version, created_at)
             SELECT {caller}, 'kernelhost', 'kh_live_' || printf('%032d', 1000000 + i), '', zeroblob(60), '', '', 60, 20, 5000, 1, 0
             FROM n"
        ),
        format!("INSERT INTO nonces (key_id, nonce, expires_at) SELECT {caller}, hex(randomblob(16)), {later} FROM n"),
        format!(
            "INSERT INTO idempotency (key_id, method, path, idempotency_key, body_sha256, status, headers, body, at, expires_at)
             SELECT {caller}, 'POST', '/v1/orders', 'old-' || i, zeroblob(32), 201, '', zeroblob(200), 0, {later} FROM n"
        ),
        format!(
            "INSERT INTO audit (stream, seq, at, account_id, key_id, peer, method, path, status, request_id, event, chain_hash)
             SELECT {caller}, (SELECT seq FROM chain_heads WHERE stream = {caller}) + 1 + i / {CALLERS}, i, {caller},
                    'kh_live_0', '127.0.0.1', 'GET', '/v1/services/1', 200, '01HX7Z3K8Q', 'request', zeroblob(32) FROM n"
        ),
    ] {
        book.execute_batch(&format!("{numbers} {statement}")).unwrap();
    }
    // The server goes on behind the last row.
    book.execute_batch(
        "UPDATE chain_heads SET seq = last FROM (SELECT stream AS of, MAX(seq) AS last FROM audit GROUP BY stream) WHERE of = stream;
         PRAGMA wal_checkpoint(TRUNCATE)",
    )
    .unwrap();
}
