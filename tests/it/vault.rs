//! The master keys: changed while servers run and while a kill cuts the work off, missing, put back; and secrets that are found nowhere.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use provisor::store::{NewKey, Store};
use provisor_providers::books::AccountId;
use provisor_providers::server::KeyLimits;
use provisor_tests::binary::{SERVE, key, provisor, reseller, run, serve};
use provisor_tests::book::{Book, Engine, files};
use provisor_tests::daemon::Daemon;
use provisor_tests::http::Http;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

const KEYS: usize = 2000;
const PATIENCE: Duration = Duration::from_secs(30);
const ORDER: &str = r#"{"product_id":42,"billing_cycle":"monthly"}"#;

/// A book with its first master key, which the program's commands find.
fn new_book() -> Book {
    Book::new(Engine::of_module(module_path!()))
}

/// How many values there are under each master key.
fn versions(book: &Book) -> BTreeMap<u32, u64> {
    let values = book.open().read(|books| books.sealed_values()).unwrap();
    values.into_iter().fold(BTreeMap::new(), |mut versions, values| {
        *versions.entry(values.version).or_default() += values.values;
        versions
    })
}

fn secret(number: usize) -> String {
    format!("secret{number:034}")
}

async fn add_keys(store: &Store, account: AccountId) {
    let add = store.transact(move |books| {
        for number in 0..KEYS {
            let key = NewKey {
                account,
                provider: "kernelhost".to_owned(),
                public_id: format!("kh_live_{number:032}"),
                label: String::new(),
                secret: secret(number).into(),
                scopes: Vec::new(),
                allowed: Vec::new(),
                addresses: Vec::new(),
                limits: KeyLimits::default(),
                expires_at: None,
            };
            books.create_key(&key, jiff::Timestamp::UNIX_EPOCH)?;
        }
        Ok(())
    });
    add.await.unwrap();
}

fn every_secret_opens(book: &Book) {
    let store = book.open();
    assert!(!store.is_sealed());
    for number in 0..KEYS {
        let key = store.read(|books| books.find_key("kernelhost", &format!("kh_live_{number:032}"))).unwrap().unwrap();
        assert_eq!(key.secret.expose_secret(), secret(number));
    }
}

#[tokio::test]
async fn a_rotation_cut_off_at_any_instant_goes_on_where_it_was() {
    let book = new_book();
    let data = book.directory();
    let account = AccountId(reseller(data, "0.00").parse().unwrap());
    add_keys(&book.open(), account).await;
    assert_eq!(versions(&book), BTreeMap::from([(1, KEYS as u64)]));
    assert_eq!(run(data, &["vault", "new-key"])["version"], 2);
    every_secret_opens(&book);

    // What it takes uncut is not known beforehand: the kills come earlier and earlier until some met it at work.
    let (mut life, mut cut) = (Duration::from_millis(80), 0);
    for _ in 0..60 {
        let mut rotation = provisor(data).args(["vault", "rotate"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(life);
        let ended = rotation.try_wait().unwrap().is_some();
        rotation.kill().unwrap();
        rotation.wait().unwrap();
        let left = versions(&book).get(&1).copied().unwrap_or(0);
        if ended || left == 0 {
            // Begun anew, with less time: under the old key again.
            std::fs::rename(data.join("master.key.v2"), data.join("away")).unwrap();
            book.execute("DELETE FROM api_keys; DELETE FROM master_keys WHERE version = 2");
            add_keys(&book.open(), account).await;
            std::fs::rename(data.join("away"), data.join("master.key.v2")).unwrap();
            life = life * 3 / 4;
        } else if left < KEYS as u64 {
            cut += 1;
            every_secret_opens(&book);
        } else {
            life += Duration::from_millis(3);
        }
        if cut == 4 {
            break;
        }
    }
    assert!(cut > 0, "no kill met the rotation at work: this test showed nothing");
    run(data, &["vault", "rotate"]);
    assert_eq!(versions(&book), BTreeMap::from([(2, KEYS as u64)]));
    assert_eq!(run(data, &["vault", "rotate"]), json!({"version": 2, "resealed": 0, "unopened": 0}));
    assert_eq!(run(data, &["vault", "retire", "1"])["retired"], true);
    std::fs::remove_file(data.join("master.key.v1")).unwrap();
    every_secret_opens(&book);
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !is_so().await {
        assert!(begin.elapsed() < PATIENCE, "still not {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_running_server_takes_up_a_new_master_key() {
    let book = new_book();
    let data = book.directory();
    let owner = reseller(data, "100.00");
    let old = key(data, &owner);
    let server = serve(data);
    assert_eq!(old.at(&server).get("/v1/me").await.status, 200);
    run(data, &["vault", "new-key"]);
    let refused = provisor(data).args(["vault", "retire", "1"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "something is sealed under it");
    // Sealed by another process, under a key that the server has not seen.
    let new = key(data, &owner);
    assert_eq!(new.at(&server).get("/v1/me").await.status, 200);
    run(data, &["vault", "rotate"]);
    assert_eq!(old.at(&server).get("/v1/me").await.status, 200);
    // What the server seals itself comes under the new key.
    assert_eq!(new.at(&server).post("/v1/orders", "one", &serde_json::from_str(ORDER).unwrap()).await.status, 201);
    until("a service", async || versions(&book).get(&2) == Some(&3)).await;
    assert_eq!(versions(&book).get(&1), None);
    server.stop();
}

#[tokio::test]
async fn without_its_master_key_a_server_is_sealed_until_it_is_put_back() {
    let book = new_book();
    let data = book.directory();
    let key = key(data, &reseller(data, "100.00"));
    let away = data.join("away");
    std::fs::rename(data.join("master.key.v1"), &away).unwrap();
    let server = serve(data);
    let ready = async || Http::default().send("GET", &format!("http://{}/readyz", server.address()), &[], "").await;
    let sealed = ready().await;
    assert_eq!((sealed.status, sealed.body.starts_with(b"sealed")), (503, true));
    assert_eq!(key.at(&server).get("/v1/me").await.status, 503);
    let status = provisor(data).args(["vault", "status"]).output().unwrap();
    assert_eq!(status.status.code(), Some(1));
    assert!(!data.join("master.key.v1").exists(), "a new key would have made it worse");
    std::fs::rename(&away, data.join("master.key.v1")).unwrap();
    until("ready", async || ready().await.status == 200).await;
    assert_eq!(key.at(&server).get("/v1/me").await.status, 200);
    server.stop();
}

/// A secret that was used for everything there is stands in no file in the clear.
#[tokio::test]
async fn a_secret_is_in_no_file_log_or_backup() {
    let (book, directory) = (new_book(), tempfile::tempdir().unwrap());
    let data = book.directory();
    let key = key(data, &reseller(data, "100.00"));
    let log = std::fs::File::create(directory.path().join("log")).unwrap();
    let mut traced = provisor(data);
    traced.args(["--log", "trace", "--log-format", "json"]).args(SERVE).stderr(log);
    let server = Daemon::start(traced);
    let here = key.at(&server);
    assert_eq!(here.post("/v1/orders", "one", &serde_json::from_str(ORDER).unwrap()).await.status, 201);
    let service = async || here.get("/v1/services").await.json()["data"][0]["id"].as_i64();
    until("a service", async || service().await.is_some()).await;
    let path = format!("/v1/services/{}", service().await.unwrap());
    let read = async || -> Value { here.get(&format!("{path}/credentials")).await.json()["password"].clone() };
    let made = read().await.as_str().unwrap().to_owned();
    let given = "MARKED-password-of-a-service";
    let reset = json!({"action": "reset_password", "password": given});
    assert_eq!(here.post(&format!("{path}/actions"), "two", &reset).await.status, 202);
    assert_eq!(read().await, given);
    let too_short = json!({"action": "reset_password", "password": given, "image": given});
    assert_eq!(here.post(&format!("{path}/actions"), "three", &too_short).await.status, 400);
    let mut misplaced = here.clone();
    misplaced.id = key.secret.expose_secret().to_owned();
    assert_eq!(misplaced.get("/v1/me").await.status, 401);
    run(data, &["vault", "new-key"]);
    run(data, &["vault", "rotate"]);
    let export = directory.path().join("export.jsonl");
    run(data, &["audit", "export", "--out", export.to_str().unwrap()]);
    server.stop();
    let mut names = vec!["log", "export.jsonl", "master.key.v2", "notes"];
    if book.cluster().is_none() {
        run(data, &["backup", directory.path().join("backup.db").to_str().unwrap()]);
        names.extend(["provisor.db", "backup.db"]);
    } else {
        // Of the server's data directory.
        names.extend(["PG_VERSION", "pg_control"]);
    }
    let mut searched = Vec::new();
    for file in [files(directory.path()), book.files()].concat() {
        let bytes = std::fs::read(&file).unwrap();
        for secret in [key.secret.expose_secret(), given, &made] {
            let is_there = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!is_there, "{} holds a secret", file.display());
        }
        if !bytes.is_empty() {
            searched.push(file.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    for name in names {
        let is_it = |found: &String| found == name || found.rsplit('.').next() == Some(name);
        assert!(searched.iter().any(is_it), "{name} was to be searched: {searched:?}");
    }
}
