//! What the server tells Prometheus, asked for as Prometheus does.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use provisor_providers::money::Minor;
use provisor_tests::binary::{SERVE, client_on, provisor_on};
use provisor_tests::book::{Book, Engine};
use provisor_tests::daemon::Daemon;
use provisor_tests::http::{Answer, Http};
use secrecy::ExposeSecret as _;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(20);

fn told_at(book: &Book, address: &str) -> Command {
    let mut command = provisor_on(book.directory(), &book.url());
    command.args(SERVE).env("PROVISOR_SERVER__METRICS", address);
    command
}

fn serving(book: &Book) -> Daemon {
    let mut command = told_at(book, "127.0.0.1:0");
    command.stderr(Stdio::null());
    Daemon::start(command)
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> Answer {
    Http::default().send(method, &format!("http://{address}{path}"), &[], Vec::new()).await
}

async fn metrics(daemon: &Daemon) -> String {
    let answer = ask(daemon.metrics().unwrap(), "GET", "/metrics").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; version=0.0.4; charset=utf-8")));
    String::from_utf8(answer.body.to_vec()).unwrap()
}

fn sample(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_what_was_answered() {
    let book = Book::new(Engine::of_module(module_path!()));
    let key = client_on(book.directory(), &book.url(), Minor(1000));
    let daemon = serving(&book);
    let client = key.at(&daemon);
    let order = json!({"product_id": 42, "billing_cycle": "monthly"});
    for (answer, status) in [
        (client.get("/v1/me").await, 200),
        (client.get("/v1/me").await, 200),
        (client.post("/v1/orders", "paid", &order).await, 201),
        (client.post("/v1/orders", "unpaid", &order).await, 402),
        (ask(daemon.address(), "GET", "/cp/kh_reseller_api/v1/me").await, 401),
    ] {
        assert_eq!(answer.status, status);
    }
    let text = metrics(&daemon).await;
    for (name, value) in [
        ("provisor_sealed", 0.0),
        ("provisor_requests_total{provider=\"kernelhost\",status=\"200\"}", 2.0),
        ("provisor_requests_total{provider=\"kernelhost\",status=\"201\"}", 1.0),
        ("provisor_requests_total{provider=\"kernelhost\",status=\"402\"}", 1.0),
        ("provisor_requests_total{provider=\"kernelhost\",status=\"401\"}", 1.0),
        ("provisor_request_seconds_count{provider=\"kernelhost\"}", 5.0),
        ("provisor_request_seconds_bucket{provider=\"kernelhost\",le=\"+Inf\"}", 5.0),
        ("provisor_request_seconds_count{provider=\"gp\"}", 0.0),
        ("provisor_orders_unpaid", 1.0),
        ("provisor_charges", 0.0),
    ] {
        assert_eq!(sample(&text, name), Some(value), "{name}: {text}");
    }
    assert!(!text.contains(&key.id) && !text.contains(key.secret.expose_secret()), "{text}");

    // Resellers are not told, and monitoring may do nothing else.
    assert_eq!(ask(daemon.address(), "GET", "/metrics").await.status, 404);
    for (method, path, status) in
        [("HEAD", "/metrics", 200), ("POST", "/metrics", 405), ("GET", "/cp/kh_reseller_api/v1/me", 404), ("GET", "/", 404)]
    {
        assert_eq!(ask(daemon.metrics().unwrap(), method, path).await.status, status, "{method} {path}");
    }
    assert_eq!(ask(daemon.metrics().unwrap(), "DELETE", "/metrics").await.header("allow"), Some("GET, HEAD"));
    let taken = daemon.metrics().unwrap().to_string();
    let refused = told_at(&book, &taken).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains(&format!("cannot listen on {taken} for /metrics")), "{said}");
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_counted() {
    let book = Book::new(Engine::of_module(module_path!()));
    let key = client_on(book.directory(), &book.url(), Minor(0));
    let daemon = serving(&book);
    let order = json!({"product_id": 42, "billing_cycle": "monthly"});
    assert_eq!(key.at(&daemon).post("/v1/orders", "unpaid", &order).await.status, 402);
    let now = Timestamp::now().as_millisecond();
    let (soon, later, past) = (now + 50_000, now + 3_600_000, now - 90_000);
    // Another host has the schedule, and does nothing.
    book.execute(&format!(
        "INSERT INTO leases (name, holder, until) VALUES ('schedule', 'another', {soon})
         ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until"
    ));
    book.execute(&format!("UPDATE orders SET due_at = {past}"));
    book.execute(&format!(
        "INSERT INTO deliveries (key_id, account_id, event_id, kind, body, created_at, attempts, fence, next_at, dead_at)
         VALUES (1, 1, 'e1', 'order.paid', '', 0, 0, 0, {later}, NULL), (1, 1, 'e2', 'order.paid', '', 0, 0, 0, {later}, NULL),
                (1, 1, 'e3', 'order.paid', '', 0, 0, 0, NULL, {now})"
    ));
    book.execute(&format!(
        "INSERT INTO mails (account_id, kind, subject, body, created_at, attempts, fence, next_at, dead_at)
         VALUES (1, 'test', '', '', 0, 0, 0, {later}, NULL), (1, 'test', '', '', 0, 0, 0, NULL, {now}), (1, 'test', '', '', 0, 0, 0, NULL, {now})"
    ));
    let counted = [
        ("provisor_orders_unpaid", 1.0),
        ("provisor_deliveries{state=\"waiting\"}", 2.0),
        ("provisor_deliveries{state=\"dead\"}", 1.0),
        ("provisor_deliveries_overdue_seconds", 0.0),
        ("provisor_mails{state=\"waiting\"}", 1.0),
        ("provisor_mails{state=\"dead\"}", 2.0),
        ("provisor_mails_overdue_seconds", 0.0),
    ];
    // The mail about the order may be on its way.
    let begun = Instant::now();
    let text = loop {
        let text = metrics(&daemon).await;
        if counted.iter().all(|(name, value)| sample(&text, name) == Some(*value)) {
            break text;
        }
        assert!(begun.elapsed() < PATIENCE, "{text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let overdue = sample(&text, "provisor_orders_overdue_seconds").unwrap();
    assert!((90.0..120.0).contains(&overdue), "{overdue}");
    daemon.stop();
}
