//! Whether the time of a refusal tells why a password envelope did not open: Welch's t between two kinds of bad ones, taken in turn.
//! Beyond 4.5 one would call two kinds of times different.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on says so and ends")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use aes::Aes128;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::{BlockModeEncrypt, KeyIvInit};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use provisor::server::Options;
use provisor_providers::gp::password;
use provisor_tests::book::Engine;
use provisor_tests::gp::{KEY, PASSWORD, START};
use provisor_tests::http::Http;
use provisor_tests::resellers::GpKey;
use provisor_tests::{gp, house};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use secrecy::ExposeSecret;
use sha2::Sha256;
use tokio::task::JoinSet;

/// Calls to the cryptography of each kind.
const CALLS: usize = 100_000;
/// Requests of each kind, in process.
const WORKS: usize = 2_000;
/// Requests of each kind, over HTTP.
const REQUESTS: usize = 1_000;
/// Requests at a time, over HTTP.
const AT_A_TIME: usize = 8;

#[derive(Clone, Copy, PartialEq)]
enum Bad {
    Mac,
    Padding,
    /// Opens to a good password, but its ciphertext came before, under another IV.
    KnownCiphertext,
}

/// Makes bad envelopes, none twice.
struct Maker {
    rng: StdRng,
    api_key: String,
    known: String,
}

impl Maker {
    fn new(api_key: &str) -> Self {
        let known = password::seal(api_key, PASSWORD, [7; 16]).unwrap();
        Self { rng: StdRng::from_seed([42; 32]), api_key: api_key.to_owned(), known }
    }

    fn make(&mut self, bad: Bad) -> String {
        let iv: [u8; 16] = self.rng.random();
        if bad == Bad::KnownCiphertext {
            let mut bytes = STANDARD.decode(&self.known).unwrap();
            // A bit of a letter of the password: it stays one that is accepted.
            bytes[4 + self.rng.random_range(0..3)] ^= 1 << self.rng.random_range(0..2);
            return STANDARD.encode(bytes);
        }
        let mut block: [u8; 16] = self.rng.random();
        block[15] = 0;
        let key: [u8; 16] = self.api_key.as_bytes()[..16].try_into().unwrap();
        let ciphertext =
            cbc::Encryptor::<Aes128>::new(&key.into(), &iv.into()).encrypt_padded::<NoPadding>(&mut block, 16).unwrap();
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(self.api_key.as_bytes()).unwrap().chain_update(ciphertext);
        let mut mac: [u8; 32] = mac.finalize().into_bytes().into();
        if bad == Bad::Mac {
            mac[self.rng.random_range(0..32)] ^= 1;
        }
        STANDARD.encode([&iv[..], &mac, ciphertext].concat())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a measurement is not that precise")]
fn mean_and_variance(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0) / count)
}

/// All times, and those without the slowest tenth, which the machine disturbed.
fn tell(what: &str, times: &[Vec<f64>; 2]) {
    let quantile = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() * 9 / 10]
    };
    let limit = quantile(times.concat());
    let calm = times.each_ref().map(|kind| kind.iter().copied().filter(|time| *time <= limit).collect::<Vec<f64>>());
    for (name, [first, second]) in [("all", times), ("calm", &calm)] {
        let ((a, va), (b, vb)) = (mean_and_variance(first), mean_and_variance(second));
        let t = (a - b) / (va + vb).sqrt();
        println!(
            "{what}, {name} times: {:.3} us and {:.3} us, Welch t = {t:.2} ({} and {})",
            a * 1e6,
            b * 1e6,
            first.len(),
            second.len()
        );
    }
}

fn cryptography() {
    let mut maker = Maker::new(KEY);
    let mut times = [Vec::new(), Vec::new()];
    let mut order = StdRng::from_seed([1; 32]);
    for _ in 0..2 * CALLS {
        let kind = usize::from(order.random::<bool>());
        let envelope = maker.make([Bad::Mac, Bad::Padding][kind]);
        let begun = Instant::now();
        assert!(black_box(password::accept(KEY, black_box(&envelope))).is_err());
        times[kind].push(begun.elapsed().as_secs_f64());
    }
    tell("accept: bad MAC and bad padding", &times);
}

/// Admission and transaction, without the time floor.
fn works() {
    let house = gp::House::on(Engine::Sqlite);
    house.rules.borrow_mut().lock.failures = 0;
    let mut maker = Maker::new(KEY);
    let mut times = [Vec::new(), Vec::new()];
    for number in 0..2 * WORKS {
        let kind = number % 2;
        let envelope = maker.make([Bad::Mac, Bad::Padding][kind]);
        let signed = house.fields(KEY, &format!("d{number}.example.com"));
        let mut fields: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        fields.push(("password", &envelope));
        let begun = Instant::now();
        let said = house.post("passwordreset", &fields, gp::HERE);
        times[kind].push(begun.elapsed().as_secs_f64());
        assert_eq!(said.json, gp::status("Invalid Password"));
    }
    tell("the work without the floor: bad MAC and bad padding", &times);
}

/// What a caller sees.
async fn requests(what: &str, kinds: [Bad; 2]) {
    let mut options = Options { per_ip_per_minute: 0, ..Options::default() };
    options.rules.lock.failures = 0;
    let mut house = house::House::start_with(options).await;
    let account = house.reseller("100.00").await;
    let secret = house.gp_key(account, IpAddr::V4(Ipv4Addr::LOCALHOST)).await;
    house.clock.set(Timestamp::from_second(START).unwrap());
    let key = GpKey { secret, base_url: house.base_url("gp"), http: Http::default() };
    let mut maker = Maker::new(key.secret.expose_secret());
    let known = maker.known.clone();
    key.ask(START, "passwordreset", "known.example.com", &[("password", &known)]).await;
    let mut asking = JoinSet::new();
    let mut times = [Vec::new(), Vec::new()];
    let mut numbers = 0..2 * REQUESTS;
    loop {
        while asking.len() < AT_A_TIME
            && let Some(number) = numbers.next()
        {
            let kind = number % 2;
            let form = key.form(&format!("d{number}.example.com"), &START.to_string(), &[("password", &maker.make(kinds[kind]))]);
            let key = key.clone();
            asking.spawn(async move {
                let begun = Instant::now();
                let answer = key.post("passwordreset", &[], form).await;
                let took: Duration = begun.elapsed();
                assert_eq!(answer.json()["status"], "Invalid Password");
                (kind, took.as_secs_f64())
            });
        }
        let Some(asked) = asking.join_next().await else { break };
        let (kind, took) = asked.unwrap();
        times[kind].push(took);
    }
    house.stop().await;
    tell(what, &times);
}

#[tokio::main]
async fn main() {
    cryptography();
    tokio::task::block_in_place(works);
    requests("the server: bad MAC and bad padding", [Bad::Mac, Bad::Padding]).await;
    requests("the server, a ciphertext under another IV: good and bad padding", [Bad::KnownCiphertext, Bad::Padding]).await;
}
