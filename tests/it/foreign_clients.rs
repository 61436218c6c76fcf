//! Clients that nobody here wrote: the documented samples in shell, PHP and Node.js against a running server, so that a mistake
//! which both of our ends share is found.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use provisor_tests::house::House;
use provisor_tests::resellers::{KernelHostKey, KeyTraits, unique};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

const ORDER: &str = r#"{"product_id":42,"billing_cycle":"monthly"}"#;

/// A sample, the program that runs it and the other programs it calls.
#[derive(Clone, Copy)]
struct Sample {
    program: &'static str,
    script: &'static str,
    calls: &'static [&'static str],
}

const BASH: Sample = Sample { program: "bash", script: "kernelhost.sh", calls: &["openssl", "curl", "awk"] };
const DASH: Sample = Sample { program: "dash", ..BASH };
const PHP: Sample = Sample { program: "php", script: "kernelhost.php", calls: &[] };
const NODE: Sample = Sample { program: "node", script: "kernelhost.mjs", calls: &[] };
const GP: Sample = Sample { program: "php", script: "gp.php", calls: &[] };

/// One answer as a sample printed it.
#[derive(Debug, PartialEq)]
struct Printed {
    status: u16,
    body: String,
}

impl Printed {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl Sample {
    /// Runs it, and reads the answers it printed.
    async fn run(self, environment: Vec<(&'static str, String)>, arguments: &[&str]) -> Vec<Printed> {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let text = tokio::task::spawn_blocking(move || self.output(environment, &arguments)).await.unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let pairs = lines.chunks(2).map(|pair| match pair {
            [status, body] => Printed { status: status.parse().unwrap(), body: (*body).to_owned() },
            _ => panic!("{} printed no pairs of lines: {text}", self.script),
        });
        pairs.collect()
    }

    fn output(self, environment: Vec<(&'static str, String)>, arguments: &[String]) -> String {
        for program in self.calls.iter().chain([&self.program]) {
            require(program, &["--help"], program);
        }
        if self.program == "php" {
            require("php", &["-r", "exit(extension_loaded('curl') && extension_loaded('openssl') ? 0 : 1);"], "php-curl");
        }
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("foreign").join(self.script);
        let mut command = Command::new(self.program);
        command.arg(script).args(arguments).envs(environment).env("NO_PROXY", "*");
        let output = command.output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && complaint.is_empty(), "{} {}: {complaint}", self.program, self.script);
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Says what to install instead of failing with a riddle.
fn require(program: &str, arguments: &[&str], package: &str) {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Not every program knows --help, but each one that is there can be started.
    let is_there = command.status().is_ok_and(|status| program != "php" || status.success());
    assert!(is_there, "this test needs {package}: install it, or let tests/run do so");
}

fn kernelhost(key: &KernelHostKey) -> Vec<(&'static str, String)> {
    let secret = key.secret.expose_secret().to_owned();
    vec![("KH_KEY", key.id.clone()), ("KH_SECRET", secret), ("KH_BASE", key.base_url.clone())]
}

/// What the quickstart shows: look at the products, order one, order it again with the same idempotency key.
async fn follow_the_quickstart(sample: Sample) {
    let mut house = House::start().await;
    let account = house.reseller("100.00").await;
    let key = house.kernelhost_key(account, KeyTraits::default()).await;
    let run = async |arguments: &[&str]| sample.run(kernelhost(&key), arguments).await;

    let products = run(&["GET", "/v1/products"]).await.remove(0);
    assert_eq!(products.status, 200, "{products:?}");
    let products = products.json();
    let product = products["data"].as_array().unwrap().iter().find(|product| product["id"] == 42).unwrap();
    let price = &product["prices"][0];
    assert_eq!((&price["billing_cycle"], &price["price"]["amount"]), (&json!("monthly"), &json!("9.90")));

    // A query is signed as it is sent.
    assert_eq!(run(&["GET", "/v1/services?page=1&per_page=50"]).await[0].json()["meta"]["per_page"], 50);

    let first = run(&["POST", "/v1/orders", ORDER, "first_Order.1-a"]).await.remove(0);
    assert_eq!(first.status, 201, "{first:?}");
    assert_eq!(run(&["POST", "/v1/orders", ORDER, "first_Order.1-a"]).await, [first], "one key, one answer");
    let balance = json!({"amount": "90.10", "currency": "EUR"});
    assert_eq!(run(&["GET", "/v1/billing/balance"]).await[0].json()["balance"], balance, "one key, one charge");

    let twice = run(&["POST", "/v1/orders", ORDER, "second", "2"]).await;
    assert_eq!((twice[0].status, twice[1].status), (201, 401), "{twice:?}");
    assert_eq!(twice[1].json()["reason"], "replay_detected");
    assert_eq!(run(&["GET", "/v1/billing/balance"]).await[0].json()["balance"]["amount"], "80.20");

    let wrong = vec![("KH_SECRET", "x".repeat(40))];
    let wrong = kernelhost(&key).into_iter().filter(|(name, _)| *name != "KH_SECRET").chain(wrong).collect();
    assert_eq!(sample.run(wrong, &["GET", "/v1/me"]).await[0].json()["reason"], "signature_mismatch");
    house.stop().await;
}

#[tokio::test]
async fn the_quickstart_works_in_bash() {
    follow_the_quickstart(BASH).await;
}

#[tokio::test]
async fn the_quickstart_works_in_dash() {
    follow_the_quickstart(DASH).await;
}

#[tokio::test]
async fn the_quickstart_works_in_php() {
    follow_the_quickstart(PHP).await;
}

#[tokio::test]
async fn the_quickstart_works_in_node() {
    follow_the_quickstart(NODE).await;
}

/// A reseller whose key is bound to this machine.
struct Firewall {
    key: SecretString,
    base_url: String,
    encoding: &'static str,
    domain: String,
}

impl Firewall {
    async fn ask(&self, endpoint: &str, parameters: &[&str]) -> Value {
        let environment = vec![("GP_KEY", self.key.expose_secret().to_owned()), ("GP_BASE", self.base_url.clone())];
        let arguments = [&[self.encoding, endpoint, &self.domain][..], parameters].concat();
        let answer = GP.run(environment, &arguments).await.remove(0);
        assert_eq!(answer.status, 200, "{endpoint}: {answer:?}");
        answer.json()
    }

    async fn expect(&self, endpoint: &str, parameters: &[&str], status: &str) {
        assert_eq!(self.ask(endpoint, parameters).await, json!({"status": status}), "{endpoint} {parameters:?}");
    }
}

/// Every endpoint as documented, in the order of a package's life.
async fn live_a_packages_life(encoding: &'static str) {
    let mut house = House::start().await;
    let account = house.reseller("100.00").await;
    let key = house.gp_key(account, IpAddr::V4(Ipv4Addr::LOCALHOST)).await;
    let domain = format!("shop-{}.example.com", unique());
    let gp = Firewall { key, base_url: house.base_url("gp"), encoding, domain };

    gp.expect("connection", &[], "ok").await;
    gp.expect("getcredit", &[], "OK - 100.00").await;
    gp.expect("list", &[], "Package not Found!").await;
    let registration = ["package=10k", "password=S3cure!pass ü+/=&", "uemail=owner@example.com"];
    let registered = gp.ask("autoregister", &registration).await;
    let token = registered["token"].as_str().unwrap();
    assert_eq!(registered["status"], "ok");
    assert!(token.len() == 40 && token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
    let after_first = gp.ask("getcredit", &[]).await;
    assert_ne!(after_first["status"], "OK - 100.00");
    assert_eq!(gp.ask("autoregister", &registration).await, registered, "a repeat is given the same token");
    assert_eq!(gp.ask("getcredit", &[]).await, after_first, "and no second charge");
    assert_eq!(gp.ask("list", &[]).await, json!({"status": "active", "exist": "exists"}));

    gp.expect("suspended", &[], "ok").await;
    assert_eq!(gp.ask("list", &[]).await["status"], "suspended");
    let upgrade = ["status=active", "package=20k"];
    gp.expect("packageupdate", &upgrade, "Package is suspended. Please unsuspend it to continue.").await;
    gp.expect("active", &[], "ok").await;
    gp.expect("packageupdate", &upgrade, "ok").await;
    gp.expect("packageupdate", &["status=active", "package=10k"], "Downgrade not allowed.").await;
    gp.expect("passwordreset", &["password=An0ther!pass"], "ok").await;
    gp.expect("passwordreset", &["password=weak"], "Invalid Password").await;
    gp.expect("renew", &[], "ok").await;
    gp.expect("delete", &[], "ok").await;
    gp.expect("list", &[], "Package not Found!").await;
    gp.expect("delete", &[], "Package not found!").await;
    house.stop().await;
}

#[tokio::test]
async fn a_package_lives_by_urlencoded_forms_from_php() {
    live_a_packages_life("urlencoded").await;
}

#[tokio::test]
async fn a_package_lives_by_multipart_forms_from_php() {
    live_a_packages_life("multipart").await;
}

/// PHP calls "0" empty: the sample then seals nothing, and one encoding drops the parameter while the other sends it empty.
#[tokio::test]
async fn a_password_that_php_calls_empty_is_a_missing_one() {
    let mut house = House::start().await;
    let account = house.reseller("100.00").await;
    let key = house.gp_key(account, IpAddr::V4(Ipv4Addr::LOCALHOST)).await;
    for encoding in ["urlencoded", "multipart"] {
        let domain = format!("shop-{}.example.com", unique());
        let gp = Firewall { key: key.clone(), base_url: house.base_url("gp"), encoding, domain };
        let registration = ["package=10k", "password=0", "uemail=owner@example.com"];
        gp.expect("autoregister", &registration, "Missing Password").await;
        gp.expect("passwordreset", &["password=0"], "Request Missing data! password").await;
        gp.expect("getcredit", &[], "OK - 100.00").await;
    }
    house.stop().await;
}

/// Keys are pasted with what stands around them: the documented hash trims, so a blank does no harm; another key does.
#[tokio::test]
async fn the_documented_hash_trims_its_key() {
    let mut house = House::start().await;
    let account = house.reseller("1.00").await;
    let key = house.gp_key(account, IpAddr::V4(Ipv4Addr::LOCALHOST)).await;
    let pasted = format!(" {}\r\n", key.expose_secret());
    for (key, status) in [(pasted, "ok"), (format!("{}x", key.expose_secret()), "Connection failed")] {
        let (base_url, domain) = (house.base_url("gp"), "example.com".to_owned());
        let gp = Firewall { key: key.into(), base_url, encoding: "urlencoded", domain };
        gp.expect("connection", &[], status).await;
    }
    house.stop().await;
}
