//! Two processes of the shipped binary on one PostgreSQL database: what is counted, spent or done once is so across both.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use provisor::audit::{Verdict, verify};
use provisor::vault::Vault;
use provisor_providers::books::AccountId;
use provisor_providers::money::Minor;
use provisor_tests::binary::{client_on, limited_client_on, made, provisor_on, run_on, serve_on};
use provisor_tests::book::{Book, Engine};
use provisor_tests::daemon::Daemon;
use provisor_tests::http::Answer;
use provisor_tests::resellers::KernelHostKey;
use serde_json::{Value, json};
use tempfile::TempDir;

const CREDIT: Minor = Minor(1_000_000_000);
/// How long a host may take to notice that the other is gone, and then to do its work.
const PATIENCE: Duration = Duration::from_secs(30);

/// A database, and two data directories with the same master key.
struct Site {
    book: Book,
    second: TempDir,
}

impl Site {
    fn new() -> Self {
        let second = tempfile::tempdir().unwrap();
        Vault::create_key(second.path(), &[7; 32]).unwrap();
        Self { book: Book::new(Engine::Postgres), second }
    }

    fn key(&self) -> KernelHostKey {
        client_on(self.book.directory(), &self.book.url(), CREDIT)
    }

    fn first(&self) -> Daemon {
        serve_on(self.book.directory(), &self.book.url())
    }

    fn second(&self) -> Daemon {
        serve_on(self.second.path(), &self.book.url())
    }

    fn verify(&self) {
        assert!(matches!(self.book.open().read(verify).unwrap(), Verdict::Whole { .. }), "the audit chains");
    }

    /// Another key of the first reseller: requests under two keys meet in nothing but the reseller.
    fn another_key(&self) -> KernelHostKey {
        let create = ["key", "create", "--reseller", "1", "--provider", "kernelhost", "--scopes", "all"];
        let limits = ["--per-minute", "1000000", "--burst", "1000000", "--per-day", "100000000"];
        made(&run_on(self.book.directory(), &self.book.url(), &[&create[..], &limits].concat()))
    }

    async fn card(&self, token: &'static str) {
        let store = self.book.open();
        let set = store.transact(move |books| books.set_card(AccountId(1), Some((&token.into(), "card"))));
        assert!(set.await.unwrap());
    }

    async fn until(&self, query: &str, number: i64) {
        let begun = Instant::now();
        while self.book.number(query) != number {
            assert!(begun.elapsed() < PATIENCE, "{query} is not {number}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What came in is what was paid and what is left.
    fn reckon(&self) {
        let sums = "SELECT (SELECT SUM(amount) FROM ledger) - (SELECT SUM(balance) FROM accounts)";
        assert_eq!(self.book.number(sums), 0, "the ledger and the balance");
        let came = "SELECT COALESCE(SUM(amount), 0) FROM ledger WHERE kind IN ('credit', 'card')";
        let paid = "SELECT COALESCE(SUM(total), 0) FROM invoices WHERE status = 'paid'";
        let balance = self.book.number("SELECT SUM(balance) FROM accounts");
        assert_eq!(self.book.number(came), self.book.number(paid) + balance, "what came in");
        self.verify();
    }
}

/// One signed request, sent as often as wanted.
async fn send(key: &KernelHostKey, signed: &[(&'static str, String); 4], path: &str) -> Answer {
    let headers: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
    key.http.send("GET", &format!("{}{path}", key.base_url), &headers, Vec::new()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_clients_of_two_hosts_place_one_order() {
    const ROUNDS: usize = 5;
    let site = Site::new();
    let key = site.key();
    let (first, second) = (site.first(), site.second());
    for round in 0..ROUNDS {
        let clients = (0..64).map(|client| {
            let key = if client % 2 == 0 { key.at(&first) } else { key.at(&second) };
            let body = json!({"product_id": 42, "billing_cycle": "monthly"});
            tokio::spawn(async move { key.post("/v1/orders", &format!("round-{round}"), &body).await })
        });
        let mut bodies = BTreeSet::new();
        let mut replayed = 0;
        for client in clients.collect::<Vec<_>>() {
            let answer = client.await.unwrap();
            assert_eq!(answer.status, 201, "{}", answer.json());
            replayed += usize::from(answer.header("idempotent-replayed").is_some());
            bodies.insert(answer.body);
        }
        assert_eq!((bodies.len(), replayed), (1, 63));
    }
    let orders = i64::try_from(ROUNDS).unwrap();
    assert_eq!(site.book.number("SELECT COUNT(*) FROM orders"), orders);
    assert_eq!(site.book.number("SELECT balance FROM accounts"), CREDIT.0 - orders * 990);
    assert_eq!(site.book.number("SELECT COUNT(*) FROM audit WHERE event = 'request'"), orders * 64);
    drop((first, second));
    site.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn nonces_meters_and_locks_are_shared() {
    let site = Site::new();
    let key = site.key();
    let limited = limited_client_on(site.book.directory(), &site.book.url(), CREDIT, ["1", "20"]);
    let (first, second) = (site.first(), site.second());
    let (one, other) = (key.at(&first), key.at(&second));
    for round in 0..60 {
        let signed = one.headers(Timestamp::now().as_second(), "GET", "/v1/me", b"");
        let (one, other) = tokio::join!(send(&one, &signed, "/v1/me"), send(&other, &signed, "/v1/me"));
        let mut statuses = [one.status, other.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 401], "round {round}");
        let refused = if one.status == 401 { one } else { other };
        assert_eq!(refused.json()["reason"], "replay_detected");
    }
    let asked = (0..40).map(|client| {
        let key = if client % 2 == 0 { limited.at(&first) } else { limited.at(&second) };
        tokio::spawn(async move { key.get("/v1/me").await.status })
    });
    let mut allowed = 0;
    for answer in asked.collect::<Vec<_>>() {
        let status = answer.await.unwrap();
        assert!(matches!(status, 200 | 429), "{status}");
        allowed += i32::from(status == 200);
    }
    // One more comes back each minute.
    assert!((20..=21).contains(&allowed), "{allowed} of a burst of 20");
    for attempt in 0..5 {
        let host = if attempt % 2 == 0 { &one } else { &other };
        let signed = host.headers(Timestamp::now().as_second(), "GET", "/v1/orders/1", b"");
        assert_eq!(send(host, &signed, "/v1/me").await.json()["reason"], "signature_mismatch");
    }
    for host in [&one, &other] {
        assert_eq!(host.get("/v1/me").await.json()["reason"], "unknown_or_locked_key");
    }
    drop((first, second));
    site.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_host_that_schedules_is_killed_the_other_takes_over() {
    let site = Site::new();
    let key = site.key();
    let (mut one, mut other) = (site.first(), site.second());
    // Twice, each time another one, so that the one that schedules is among them.
    for round in 0..2 {
        let answer = key
            .at(&one)
            .post("/v1/orders", &format!("before-{round}"), &json!({"product_id": 42, "billing_cycle": "monthly"}))
            .await;
        assert_eq!(answer.status, 201);
        one.kill();
        let order = key.at(&other);
        let answer =
            order.post("/v1/orders", &format!("after-{round}"), &json!({"product_id": 42, "billing_cycle": "monthly"})).await;
        assert_eq!(answer.status, 201);
        let begun = Instant::now();
        while site.book.number("SELECT COUNT(*) FROM orders WHERE status <> 'completed'") > 0 {
            assert!(begun.elapsed() < PATIENCE, "nobody schedules");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let back = if round == 0 { site.first() } else { site.second() };
        (one, other) = (other, back);
    }
    assert_eq!(site.book.number("SELECT COUNT(*) FROM services"), 4);
    assert_eq!(site.book.number("SELECT COUNT(*) FROM leases"), 1);
    drop((one, other));
    site.verify();
}

/// The same request at all hosts at once, whatever is answered; the statuses. Who waits too long for a charge is told 409, and 503 where
/// the many who ask for it hold up each other.
async fn asked_at_once(hosts: &[KernelHostKey], path: &str, key: impl Fn(usize) -> String, body: &Value) -> BTreeSet<u16> {
    let asked = (0..16).map(|client| {
        let (host, path, key, body) = (hosts[client % hosts.len()].clone(), path.to_owned(), key(client), body.clone());
        tokio::spawn(async move { host.post(&path, &key, &body).await.status })
    });
    let mut statuses = BTreeSet::new();
    for answer in asked.collect::<Vec<_>>() {
        statuses.insert(answer.await.unwrap());
    }
    statuses
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_charge_a_card_once() {
    let site = Site::new();
    let key = limited_client_on(site.book.directory(), &site.book.url(), Minor(300), ["1000000", "1000000"]);
    let (first, second) = (site.first(), site.second());
    let hosts = [key.at(&first), key.at(&second)];
    let order = json!({"product_id": 42, "billing_cycle": "monthly"});
    // A bank that does not answer in time leaves a payment that either host may take up; asked again, it knows.
    for token in ["sim_success", "sim_slow"] {
        site.card(token).await;
        let statuses = asked_at_once(&hosts, "/v1/orders", |_| token.to_owned(), &order).await;
        assert!(statuses.is_subset(&BTreeSet::from([201, 409, 503])), "{statuses:?}");
        site.until("SELECT COUNT(*) FROM payments WHERE status = 'charging'", 0).await;
        assert_eq!(asked_at_once(&hosts, "/v1/orders", |_| token.to_owned(), &order).await, BTreeSet::from([201]));
    }
    site.until("SELECT COUNT(*) FROM orders WHERE status <> 'completed'", 0).await;
    assert_eq!(site.book.number("SELECT COUNT(*) FROM orders"), 2);
    assert_eq!(site.book.number("SELECT COUNT(*) FROM simulated_charges"), 2);
    assert_eq!(site.book.number("SELECT SUM(amount) FROM simulated_charges"), 2 * 990 - 300);
    drop((first, second));
    site.reckon();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_and_the_operator_settle_a_pending_order_once() {
    const ROUNDS: i64 = 3;
    let site = Site::new();
    let key = limited_client_on(site.book.directory(), &site.book.url(), Minor(0), ["1000000", "1000000"]);
    let (first, second) = (site.first(), site.second());
    let hosts = [key.at(&first), key.at(&second)];
    let order = json!({"product_id": 42, "billing_cycle": "monthly"});
    for round in 1..=ROUNDS {
        let name = |_| format!("pending-{round}");
        assert_eq!(hosts[0].post("/v1/orders", &name(0), &order).await.status, 402);
        // Neither alone is enough.
        let credits = ["5.00", "4.90"].map(|amount| {
            let mut credit = provisor_on(site.book.directory(), &site.book.url());
            credit.args(["reseller", "credit", "1", amount]).stdout(Stdio::null()).spawn().unwrap()
        });
        let mut statuses = asked_at_once(&hosts, "/v1/orders", name, &order).await;
        for mut credit in credits {
            assert!(tokio::task::spawn_blocking(move || credit.wait()).await.unwrap().unwrap().success());
        }
        statuses.extend(asked_at_once(&hosts, "/v1/orders", name, &order).await);
        assert!(statuses.is_subset(&BTreeSet::from([201, 402, 503])) && statuses.contains(&201), "{statuses:?}");
        assert_eq!(site.book.number("SELECT balance FROM accounts"), 0);
        assert_eq!(site.book.number("SELECT COUNT(*) FROM ledger WHERE kind = 'order'"), round);
    }
    site.until("SELECT COUNT(*) FROM orders WHERE status <> 'completed'", 0).await;
    drop((first, second));
    site.reckon();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_under_two_keys_and_the_schedule_renew_a_service_once() {
    const ROUNDS: i64 = 4;
    let site = Site::new();
    let key = limited_client_on(site.book.directory(), &site.book.url(), Minor(990), ["1000000", "1000000"]);
    let other = site.another_key();
    let (first, second) = (site.first(), site.second());
    let hosts = [key.at(&first), other.at(&second), other.at(&first), key.at(&second)];
    let order = json!({"product_id": 42, "billing_cycle": "monthly"});
    assert_eq!(hosts[0].post("/v1/orders", "order", &order).await.status, 201);
    site.until("SELECT COUNT(*) FROM services", 1).await;
    // No credit: nothing but the card pays, and that by whoever begins.
    site.card("sim_success").await;
    let begun = Timestamp::now().as_second();
    for round in 1..=ROUNDS {
        let due = Timestamp::from_second(begun - 100 * round).unwrap();
        let ms = due.as_millisecond();
        site.book.execute(&format!("UPDATE services SET next_due_at = {ms}, bill_at = {ms}, created_at = {ms}"));
        let renew = json!({"action": "renew", "due_at": due.to_string()});
        let name = |client| format!("renew-{round}-{client}");
        let path = format!("/v1/services/{}/actions", site.book.number("SELECT id FROM services"));
        let statuses = asked_at_once(&hosts, &path, name, &renew).await;
        assert!(statuses.is_subset(&BTreeSet::from([202, 409, 503])), "{statuses:?}");
        site.until("SELECT COUNT(*) FROM payments WHERE status = 'charging'", 0).await;
        assert_eq!(site.book.number("SELECT COUNT(*) FROM simulated_charges"), round);
        assert_eq!(site.book.number("SELECT COUNT(*) FROM invoices WHERE renews_service IS NOT NULL"), round);
        let later = site.book.number("SELECT next_due_at FROM services") - ms;
        assert!((28 * 86_400_000..=31 * 86_400_000).contains(&later), "one month, not {later} ms");
    }
    drop((first, second));
    site.reckon();
}

/// Longer than any statement of a request may take, and than any lock is waited for.
#[test]
fn tables_that_take_long_to_change_are_waited_for_by_all_hosts() {
    let book = Book::new(Engine::Postgres);
    book.execute(
        "CREATE SEQUENCE slept;
         CREATE FUNCTION sleep() RETURNS event_trigger LANGUAGE plpgsql AS $$
           BEGIN IF nextval('slept') = 1 THEN PERFORM pg_sleep(16); END IF; END $$;
         CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION sleep()",
    );
    std::thread::scope(|scope| {
        let hosts = [scope.spawn(|| book.try_open().map(drop)), scope.spawn(|| book.try_open().map(drop))];
        for host in hosts {
            host.join().unwrap().unwrap();
        }
    });
    assert!(book.number("SELECT last_value FROM slept") > 1);
}

/// The first host of a new database makes the master key; another one must not make a second, and stays sealed until it is given
/// the same.
#[tokio::test]
async fn one_host_makes_the_master_key_and_the_others_wait_for_it() {
    let book = Book::new(Engine::Postgres);
    let folders: Vec<TempDir> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let starts: Vec<_> =
        folders.iter().map(|folder| provisor_on(folder.path(), &book.url()).arg("doctor").spawn().unwrap()).collect();
    for mut start in starts {
        start.wait().unwrap();
    }
    let keys = folders.iter().filter(|folder| folder.path().join("master.key.v1").exists());
    let [holder] = keys.collect::<Vec<_>>()[..] else { panic!("more or less than one host made a key") };
    assert_eq!(book.number("SELECT COUNT(*) FROM master_keys"), 1);
    let without = folders.iter().find(|folder| folder.path() != holder.path()).unwrap();
    let ready = async |host: &Daemon| {
        let url = format!("http://{}/readyz", host.address());
        provisor_tests::http::Http::default().send("GET", &url, &[], Vec::new()).await.status
    };
    let sealed = serve_on(without.path(), &book.url());
    assert_eq!(ready(&sealed).await, 503);
    sealed.kill();
    std::fs::copy(holder.path().join("master.key.v1"), without.path().join("master.key.v1")).unwrap();
    let open = serve_on(without.path(), &book.url());
    assert_eq!(ready(&open).await, 200);
    open.kill();
    let doctor = provisor_on(without.path(), &book.url()).arg("doctor").output().unwrap();
    let findings: Vec<Value> =
        String::from_utf8(doctor.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(findings.iter().all(|finding| finding["ok"] == true), "{findings:?}");
}
