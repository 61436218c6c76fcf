//! What an attacker can try at the GP API: each attack is carried out in earnest, shown to work on what it is aimed at, and fails at
//! the server.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use base16ct::lower as hex;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use provisor::clock::Clock;
use provisor::server::Options;
use provisor_providers::gp::{Server, hash, password, wire};
use provisor_providers::server::{LockRule, Server as _};
use provisor_tests::book::Engine;
use provisor_tests::gp::{HERE, House, KEY, PASSWORD, START, failed, percent, request, status, urlencoded};
use provisor_tests::house;
use provisor_tests::http::Http;
use provisor_tests::raw;
use provisor_tests::resellers::GpKey;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};
use secrecy::ExposeSecret;
use sha1::{Digest, Sha1};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Envelopes that are none, in each of the tests that try many.
const MANY: usize = 20_000;
/// Requests under way at a time, where each takes the time floor.
const AT_A_TIME: usize = 400;

fn decoded(envelope: &str) -> Vec<u8> {
    STANDARD.decode(envelope).unwrap()
}

/// An envelope under another IV.
fn with_iv(envelope: &str, iv: [u8; 16]) -> String {
    let mut bytes = decoded(envelope);
    bytes[..16].copy_from_slice(&iv);
    STANDARD.encode(bytes)
}

fn iv_of(envelope: &str) -> [u8; 16] {
    decoded(envelope)[..16].try_into().unwrap()
}

/// What an envelope is not: random bytes and texts, pieces of good ones, good ones with bits that changed.
struct Broken {
    rng: StdRng,
    good: Vec<String>,
}

impl Broken {
    fn new(api_key: &str) -> Self {
        let mut rng = StdRng::from_seed([42; 32]);
        let passwords = ["S3cure!pass", "Tr0ub4dor&3xyz!", "exactly16bytes!!A", "a Long 1 of more than two whole blocks"];
        let good = passwords.map(|text| password::seal(api_key, text, rng.random()).unwrap()).to_vec();
        Self { rng, good }
    }

    /// The next one. `flips_iv` lets it flip bits that no MAC covers.
    fn next(&mut self, flips_iv: bool) -> String {
        let good = self.good.choose(&mut self.rng).unwrap().clone();
        let mut bytes = decoded(&good);
        match self.rng.random_range(0..6) {
            0 => {
                let mut random = vec![0; self.rng.random_range(1..600)];
                self.rng.fill_bytes(&mut random);
                STANDARD.encode(random)
            }
            // The right shape, so that it gets as far as the MAC.
            1 => {
                let mut random = vec![0; 16 * self.rng.random_range(4..=32)];
                self.rng.fill_bytes(&mut random);
                STANDARD.encode(random)
            }
            2 => (0..self.rng.random_range(1..200)).map(|_| self.rng.random_range(' '..='~')).collect(),
            3 => good[..self.rng.random_range(1..good.len())].to_owned(),
            4 => STANDARD.encode(&bytes[..self.rng.random_range(1..bytes.len())]),
            _ => {
                let first = if flips_iv { 0 } else { 128 };
                let bit = self.rng.random_range(first..bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
                STANDARD.encode(bytes)
            }
        }
    }
}

#[test]
fn twenty_thousand_broken_envelopes_do_not_open() {
    let mut broken = Broken::new(KEY);
    for _ in 0..MANY {
        let envelope = broken.next(false);
        assert!(password::open(KEY, &envelope).is_err() && password::accept(KEY, &envelope).is_err(), "{envelope}");
    }
    for envelope in &broken.good {
        assert!(password::open(KEY, envelope).is_ok());
    }
}

/// A server with one reseller at loopback, who has a package for `shop.example.com`.
async fn shop(options: Options) -> (house::House, GpKey) {
    let house = house::House::start_with(Options { per_ip_per_minute: 0, ..options }).await;
    let account = house.reseller("100.00").await;
    let secret = house.gp_key(account, IpAddr::V4(Ipv4Addr::LOCALHOST)).await;
    let key = GpKey { secret, base_url: house.base_url("gp"), http: Http::default() };
    house.clock.set(Timestamp::from_second(START).unwrap());
    let sealed = password::seal(key.secret.expose_secret(), PASSWORD, [1; 16]).unwrap();
    let more = [("package", "10k"), ("password", sealed.as_str()), ("uemail", "a@example.com")];
    assert_eq!(key.ask(START, "autoregister", "shop.example.com", &more).await, "ok");
    (house, key)
}

/// Every answer to these envelopes: status, body and head, but for what is each request's own.
async fn answers(key: &GpKey, envelopes: Vec<String>) -> Vec<String> {
    let slots = Arc::new(Semaphore::new(AT_A_TIME));
    let mut asking = JoinSet::new();
    for (number, envelope) in envelopes.into_iter().enumerate() {
        let (slots, key) = (Arc::clone(&slots), key.clone());
        asking.spawn(async move {
            let _slot = slots.acquire().await.unwrap();
            // A domain of its own, since one second has few shuffles. The envelope is judged before the domain.
            let form = key.form(&format!("d{number}.example.com"), &START.to_string(), &[("password", &envelope)]);
            let answer = key.post("passwordreset", &[], form).await;
            let own = ["x-request-id", "date"];
            let head = answer.headers.iter().filter(|(name, _)| !own.contains(&name.as_str()));
            let head: BTreeSet<String> = head.map(|(name, value)| format!("{name}: {value:?}")).collect();
            format!("{} {head:?} {}", answer.status, String::from_utf8_lossy(&answer.body))
        });
    }
    asking.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_broken_envelopes_get_one_answer() {
    let mut options = Options::default();
    options.rules.lock.failures = 0;
    let (mut house, key) = shop(options).await;
    let mut broken = Broken::new(key.secret.expose_secret());
    // Delivered once as they are: from then on no bit of their IVs may change either.
    for (second, envelope) in (START + 1..).zip(&broken.good) {
        assert_eq!(key.ask(second, "passwordreset", "shop.example.com", &[("password", envelope)]).await, "ok");
    }
    let told: BTreeSet<String> = answers(&key, (0..MANY).map(|_| broken.next(true)).collect()).await.into_iter().collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told.first().unwrap().ends_with(r#"{"status":"Invalid Password"}"#), "{told:?}");
    assert!(told.first().unwrap().starts_with("200 "), "{told:?}");
    house.stop().await;
    assert_eq!(house.book().number("SELECT COUNT(*) FROM audit WHERE reason = 'Invalid Password'"), i64::try_from(MANY).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn under_the_lock_five_broken_envelopes_are_all() {
    let (mut house, key) = shop(Options::default()).await;
    let mut broken = Broken::new(key.secret.expose_secret());
    let told = answers(&key, (0..200).map(|_| broken.next(false)).collect()).await;
    let refused = told.iter().filter(|answer| answer.ends_with(r#"{"status":"Invalid Password"}"#)).count();
    let locked = told.iter().filter(|answer| answer.ends_with(r#"{"status":"Connection failed"}"#)).count();
    assert_eq!((refused, locked), (5, 195));
    assert_eq!(key.ask(START + 100, "list", "shop.example.com", &[]).await, "Connection failed");
    house.clock.advance(SignedDuration::from_mins(15));
    assert_eq!(key.ask(house.clock.now().as_second(), "list", "shop.example.com", &[]).await, "active");
    house.stop().await;
}

/// A caller who sends the head early and the body late would else have used up the floor before the work begins. It is a lower
/// bound that the server keeps by waiting: no slow machine breaks it.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_comes_late_does_not_use_up_the_time_floor() {
    let (mut house, key) = shop(Options::default()).await;
    let form = key.form("late.example.com", &START.to_string(), &[("password", "AAAA")]);
    let head = format!(
        "POST /api/v1/passwordreset/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n",
        form.len()
    );
    let (sent, answer) = raw::exchange_late(house.address(), head.as_bytes(), Duration::from_millis(200), form.as_bytes()).await;
    let took = sent.elapsed();
    assert_eq!(answer.json()["status"], "Invalid Password");
    assert!(took >= Duration::from_millis(150), "{took:?}");
    house.stop().await;
}

/// Reads the one block of an envelope by whether its padding is good. The bytes whose turn has not come keep the sender's IV, so
/// that what opens stays text.
fn read_by_padding(iv: [u8; 16], mut opens: impl FnMut([u8; 16]) -> bool) -> Option<Vec<u8>> {
    let mut decrypted = [0; 16];
    for at in (0..16_u8).rev() {
        let (place, padding) = (usize::from(at), 16 - at);
        let mut forged = iv;
        for later in place + 1..16 {
            forged[later] = decrypted[later] ^ padding;
        }
        let found = (0..=255).find(|guess| {
            forged[place] = *guess;
            opens(forged)
        });
        decrypted[place] = found? ^ padding;
    }
    Some(decrypted.iter().zip(iv).map(|(byte, iv)| byte ^ iv).collect())
}

#[test]
fn a_padding_oracle_reads_no_password_from_the_server() {
    const SECRET: &str = "Tr0ub4dor&3xyz!";
    let captured = password::seal(KEY, SECRET, [9; 16]).unwrap();
    // The cryptography alone is an oracle.
    let mut calls = 0;
    let read = read_by_padding(iv_of(&captured), |iv| {
        calls += 1;
        password::open(KEY, &with_iv(&captured, iv)).is_ok()
    });
    assert_eq!(read.unwrap(), [SECRET.as_bytes(), &[1]].concat(), "the attack is a real one");
    println!("the envelope alone gives the password away in {calls} calls");

    let house = House::on(Engine::Sqlite);
    house.rules.borrow_mut().lock.failures = 0;
    house.register("example.com", "10k");
    let reset = |envelope: &str| {
        house.pass(10);
        house.ask("passwordreset", "example.com", &[("password", envelope)])
    };
    for is_delivered in [true, false] {
        let iv = [if is_delivered { 9 } else { 8 }; 16];
        let captured = password::seal(KEY, SECRET, iv).unwrap();
        assert!(!is_delivered || reset(&captured) == status("ok"));
        let mut opened = Vec::new();
        let read = read_by_padding(iv, |iv| {
            let answer = reset(&with_iv(&captured, iv));
            if answer == status("ok") {
                opened.push(iv);
                return true;
            }
            assert_eq!(answer, status("Invalid Password"));
            false
        });
        assert_eq!(read, None);
        // The very envelope that was sent is no news. Of one that the attacker kept from arriving, not even that opens any more.
        assert_eq!(opened, if is_delivered { vec![iv] } else { Vec::new() });
    }

    // Under the lock not even the questions are heard.
    house.rules.borrow_mut().lock = LockRule::default();
    for guess in 0..40 {
        let answer = reset(&with_iv(&captured, [guess; 16]));
        assert_eq!(answer, if guess < 5 { status("Invalid Password") } else { failed() }, "{guess}");
    }
}

#[test]
fn the_first_block_of_an_envelope_is_not_rewritten() {
    const SENT: &str = "First-1-password of two blocks";
    const WANTED: &[u8; 16] = b"Attackers-9-pass";
    let house = House::on(Engine::Sqlite);
    house.register("example.com", "10k");
    let captured = password::seal(KEY, SENT, [5; 16]).unwrap();
    assert_eq!(house.ask("passwordreset", "example.com", &[("password", &captured)]), status("ok"));
    let stored = house.license("example.com").unwrap().password_hash;
    let mut iv = iv_of(&captured);
    for ((byte, sent), wanted) in iv.iter_mut().zip(SENT.bytes()).zip(WANTED) {
        *byte ^= sent ^ wanted;
    }
    let rewritten = with_iv(&captured, iv);
    let opened = password::accept(KEY, &rewritten).unwrap();
    assert_eq!(opened.expose_secret(), "Attackers-9-pass of two blocks", "the attack is a real one");
    for _ in 0..2 {
        house.pass(10);
        assert_eq!(house.ask("passwordreset", "example.com", &[("password", &rewritten)]), status("Invalid Password"));
    }
    assert_eq!(house.license("example.com").unwrap().password_hash, stored);
    // Nor does another package of the reseller get it.
    let more = [("package", "10k"), ("password", rewritten.as_str()), ("uemail", "a@example.com")];
    assert_eq!(house.ask("autoregister", "other.example", &more), status("Invalid Password"));
    assert!(house.license("other.example").is_none());
}

#[test]
fn a_captured_list_is_no_other_request() {
    let house = House::on(Engine::Sqlite);
    house.register("example.com", "10k");
    let signed = house.fields(KEY, "example.com");
    let captured: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let listed = house.post("list", &captured, HERE).json;
    assert_eq!(listed, r#"{"status":"active","exist":"exists"}"#);
    let before = house.balance();
    let sealed = house.sealed(PASSWORD);
    let more = [("package", "20k"), ("status", "active"), ("password", sealed.as_str()), ("uemail", "a@example.com")];
    for endpoint in wire::Endpoint::ALL.map(wire::Endpoint::name).into_iter().filter(|name| *name != "list") {
        assert_eq!(house.post(endpoint, &captured, HERE).json, failed(), "{endpoint}");
        assert_eq!(house.post(endpoint, &[&captured[..], &more[..]].concat(), HERE).json, failed(), "{endpoint}");
        assert_eq!(house.last_audited().0, "gp.hash_reuse");
    }
    let license = house.license("example.com").unwrap();
    assert_eq!((license.package.as_str(), house.balance()), ("10k", before));
    assert_eq!(house.post("list", &captured, HERE).json, listed, "a transport's retry is no replay");
}

/// SHA-1 goes on from any state that it has reached: from one hash follows another, of the same text with its padding and more after
/// it, without the key.
fn lengthened(known_hash: &str, known_bytes: usize, more: &[u8]) -> (Vec<u8>, String) {
    let padded = |length: usize| {
        let mut padding = vec![0x80];
        padding.resize(padding.len() + (119 - length % 64) % 64, 0);
        padding.extend_from_slice(&(length as u64 * 8).to_be_bytes());
        padding
    };
    let glue = padded(known_bytes);
    let mut state = [0_u32; 5];
    for (word, bytes) in state.iter_mut().zip(base16ct::mixed::decode_vec(known_hash).unwrap().chunks(4)) {
        *word = u32::from_be_bytes(bytes.try_into().unwrap());
    }
    let tail = [more, &padded(known_bytes + glue.len() + more.len())].concat();
    for block in tail.chunks(64) {
        sha1::block_api::compress(&mut state, &[block.try_into().unwrap()]);
    }
    (glue, state.map(|word| format!("{word:08x}")).concat())
}

#[test]
fn a_lengthened_hash_is_refused() {
    let house = House::on(Engine::Sqlite);
    let (domain, timestamp) = ("example.com", START.to_string());
    let known = hash::hash(KEY, domain, &timestamp);
    // 40 hex digits of the hashed key stand before what is known.
    let digits = "0179000000";
    let more = format!(".evil.example{digits}");
    let (glue, forged) = lengthened(&known, 40 + domain.len() + timestamp.len(), more.as_bytes());
    let evil = [domain.as_bytes(), timestamp.as_bytes(), &glue, b".evil.example"].concat();
    let real =
        Sha1::new().chain_update(hex::encode_string(&Sha1::digest(KEY))).chain_update(&evil).chain_update(digits).finalize();
    assert_eq!(forged, hex::encode_string(&real), "the attack is a real one");
    let body = format!("domain={}&hash={forged}&timestamp={digits}", percent(&evil));
    let said = house.serve(request("POST", "/list/", &body), HERE).json;
    assert_eq!(said, status("Request Missing data!"), "0x80 is not even text");
    // As text of any kind it is no host name.
    for spelled in ["\u{80}", "\u{fffd}", "?"] {
        let text = String::from_utf8_lossy(&evil).replace('\u{fffd}', spelled);
        let fields = [("domain", text.as_str()), ("hash", &forged), ("timestamp", digits)];
        assert_eq!(house.post("list", &fields, HERE).json, status("Request Missing data! domain"));
    }
    // What it was made of is as good as before.
    let fields = [("domain", domain), ("hash", &known), ("timestamp", &timestamp)];
    assert_eq!(house.post("connection", &fields, HERE).json, status("ok"));
}

#[test]
fn the_boundary_of_domain_and_timestamp_does_not_shift() {
    let house = House::on(Engine::Sqlite);
    let digits = START.to_string();
    for domain in ["a.com", "a.xn--p1ai"] {
        let hash = hash::hash(KEY, domain, &digits);
        let whole = format!("{domain}{digits}");
        for at in 1..whole.len() {
            let (name, time) = whole.split_at(at);
            let fields = [("domain", name), ("hash", hash.as_str()), ("timestamp", time)];
            assert!(hash::verify(KEY, name, time, &hash), "the hash alone does not tell");
            let said = house.post("connection", &fields, HERE).json;
            assert_eq!(said == status("ok"), name == domain, "{name} {time}");
        }
    }
}

#[test]
fn a_timestamp_is_a_text_that_may_begin_with_zero() {
    let house = House::on(Engine::Sqlite);
    let (text, number) = ("0000000179", "179");
    assert!(hash::is_fresh(text, house.now.get()));
    let (right, wrong) = (hash::hash(KEY, "example.com", text), hash::hash(KEY, "example.com", number));
    for (hash, timestamp, said) in [
        (&wrong, text, "Connection failed"),
        (&wrong, number, "Request Missing data! timestamp"),
        (&right, number, "Request Missing data! timestamp"),
        (&right, text, "ok"),
    ] {
        let fields = [("domain", "example.com"), ("hash", hash.as_str()), ("timestamp", timestamp)];
        assert_eq!(house.post("connection", &fields, HERE).json, status(said), "{timestamp}");
    }
}

#[test]
fn no_key_is_issued_that_pasting_could_change() {
    let mut seen = BTreeSet::new();
    for seed in 0..2_000_u32 {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&seed.to_be_bytes());
        let secret = Server.new_secret(&mut StdRng::from_seed(bytes)).expose_secret().to_owned();
        assert!(secret.len() == 40 && secret.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{secret:?}");
        // More than hex: the envelope's AES key is the first 16 characters.
        assert!(secret.bytes().any(|byte| !byte.is_ascii_hexdigit()));
        assert!(seen.insert(secret));
    }
}

/// Two resellers behind a proxy of the operator's: each is found by the address that the proxy vouches for.
#[tokio::test(flavor = "multi_thread")]
async fn resellers_behind_a_trusted_proxy_do_not_see_each_other() {
    const ADDRESSES: [&str; 2] = ["203.0.113.7", "2001:db8::8"];
    for is_trusted in [true, false] {
        let trusted_proxies = if is_trusted { vec!["127.0.0.0/8".parse().unwrap()] } else { Vec::new() };
        let mut house = house::House::start_with(Options { trusted_proxies, per_ip_per_minute: 0, ..Options::default() }).await;
        let mut keys = Vec::new();
        for address in ADDRESSES {
            let account = house.reseller("100.00").await;
            let secret = house.gp_key(account, address.parse().unwrap()).await;
            keys.push(GpKey { secret, base_url: house.base_url("gp"), http: Http::default() });
        }
        house.clock.set(Timestamp::from_second(START).unwrap());
        let ask = async |key: &GpKey, from: &str, second: u8, endpoint: &str| {
            let sealed = password::seal(key.secret.expose_secret(), PASSWORD, [second; 16]).unwrap();
            let more = [("package", "10k"), ("password", sealed.as_str()), ("uemail", "a@example.com"), ("status", "active")];
            let form = key.form("shop.example.com", &(START + i64::from(second)).to_string(), &more);
            key.post(endpoint, &[("X-Forwarded-For", from)], form).await.json()["status"].as_str().unwrap().to_owned()
        };
        let [one, other] = ADDRESSES;
        if is_trusted {
            assert_eq!(ask(&keys[0], one, 0, "autoregister").await, "ok");
            // What stands further left is the caller's own invention.
            assert_eq!(ask(&keys[0], &format!("{other}, {one}"), 1, "list").await, "active");
            assert_eq!(ask(&keys[0], &format!("{one}, {other}"), 2, "list").await, "Connection failed");
            assert_eq!(ask(&keys[0], other, 3, "list").await, "Connection failed");
            for (second, endpoint, said) in [
                (4, "list", "Package not Found!"),
                (5, "suspended", "Package not Found!"),
                (6, "active", "Package not found!"),
                (7, "delete", "Package not found!"),
                (8, "renew", "Package not found!"),
                (9, "packageupdate", "Package not found!"),
                (10, "passwordreset", "Error changing password. No active package found!"),
                (11, "autoregister", "Domain already registered"),
                (12, "getcredit", "OK - 100.00"),
            ] {
                assert_eq!(ask(&keys[1], other, second, endpoint).await, said, "{endpoint}");
            }
            assert_eq!(ask(&keys[0], one, 13, "list").await, "active");
        } else {
            assert_eq!(ask(&keys[0], one, 0, "connection").await, "Connection failed", "anybody can write a header");
        }
        house.stop().await;
    }
}

/// Twice the same parameter, or one that is no text: no two readers may see different requests.
#[test]
fn a_form_that_can_be_read_in_two_ways_is_not_read() {
    let house = House::on(Engine::Sqlite);
    let signed = house.fields(KEY, "example.com");
    let form: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
    for (name, _) in &form {
        let twice = form.iter().copied().chain([(*name, "x")]).collect::<Vec<_>>();
        assert_eq!(house.post("connection", &twice, HERE).json, status(&format!("Request Missing data! {name}")));
    }
    let body = format!("{}&x=%FF", urlencoded(&form));
    let said = house.serve(request("POST", "/connection/", &body), HERE).json;
    assert_eq!(said, status("Request Missing data!"));
    assert_eq!(house.post("connection", &form, HERE).json, status("ok"));
}

/// What never reaches the books is refused in this API's form too.
#[tokio::test(flavor = "multi_thread")]
async fn floods_and_oversized_bodies_are_refused_in_the_apis_own_form() {
    let mut house = house::House::start_with(Options { per_ip_per_minute: 4, ..Options::default() }).await;
    let url = |endpoint: &str| format!("{}/{endpoint}", house.base_url("gp"));
    let http = Http::default();
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    for (method, endpoint, body, code, text) in [
        ("GET", "list/", 0, 405, "Method not allowed. Use POST."),
        ("POST", "list", 0, 308, "Use the address with the ending slash."),
        ("POST", "list/", 64 * 1024 + 1, 413, "Request too large"),
        ("POST", "list/", 64 * 1024, 200, "Request Missing data!"),
        ("POST", "list/", 0, 429, "Too many requests"),
    ] {
        let answer = http.send(method, &url(endpoint), &form, "x".repeat(body)).await;
        assert_eq!((answer.status, answer.json()), (code, serde_json::json!({"status": text})), "{method} {endpoint}");
        assert_eq!(answer.header("location"), (code == 308).then_some("list/"));
        let wait: Option<u64> = answer.header("retry-after").map(|seconds| seconds.parse().unwrap());
        assert_eq!(wait.is_some_and(|seconds| seconds >= 1), code == 429);
    }
    house.stop().await;
}
