//! The official stripe packages for Node.js and Python as receivers: what they take for genuine was signed in their scheme.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::SignedDuration;
use provisor::clock::Clock;
use provisor::server::Options;
use provisor_tests::hooks::until;
use provisor_tests::house::House;
use provisor_tests::http::Http;
use provisor_tests::resellers::{KernelHostKey, KeyTraits, unique};
use serde_json::{Value, json};

/// How a receiver is started.
#[derive(Clone, Copy)]
struct Package {
    program: &'static str,
    script: &'static str,
    /// What the script finds its package by.
    variable: &'static str,
    /// Below `target/foreign`, where `tests/run` installs it.
    folder: &'static str,
    /// What must be there.
    installed: &'static str,
}

const NODE: Package =
    Package { program: "node", script: "stripe.mjs", variable: "STRIPE", folder: "node", installed: "node_modules/stripe" };
const PYTHON: Package =
    Package { program: "python3", script: "stripe_receiver.py", variable: "PYTHONPATH", folder: "python", installed: "stripe" };

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// A running receiver, ended when it is dropped.
struct Receiver {
    process: Child,
    _stdin: ChildStdin,
    port: u16,
    said: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    fn start(package: Package, secret: &str) -> Self {
        let folder = root().join("target/foreign").join(package.folder);
        let installed = folder.join(package.installed);
        assert!(installed.exists(), "{} is missing: let tests/run install it", installed.display());
        let mut command = Command::new(package.program);
        command.arg(root().join("tests/foreign").join(package.script));
        command.env("SECRET", secret).env(package.variable, &folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let stdin = process.stdin.take().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        let mut port = String::new();
        lines.read_line(&mut port).unwrap();
        let port = port.trim().parse().unwrap_or_else(|_| panic!("{} did not start: {port}", package.script));
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        std::thread::spawn(move || listen(lines, &heard));
        Self { process, _stdin: stdin, port, said }
    }

    fn said(&self) -> Vec<Value> {
        self.said.lock().unwrap().clone()
    }

    async fn wait_for(&self, count: usize) -> Value {
        until(|| self.said().len() >= count, || format!("{count} deliveries, there are {:?}", self.said())).await;
        self.said()[count - 1].clone()
    }

    /// Posts by hand, and says what the package made of it.
    async fn judge(&self, header: &str, body: &[u8]) -> Value {
        let before = self.said().len();
        let url = format!("http://127.0.0.1:{}/", self.port);
        let answer = Http::default().send("POST", &url, &[("KH-Webhook-Signature", header)], body.to_vec()).await;
        let said = self.wait_for(before + 1).await;
        assert_eq!(answer.status, if said["ok"] == true { 200 } else { 400 });
        said
    }
}

fn listen(lines: BufReader<ChildStdout>, heard: &Mutex<Vec<Value>>) {
    for line in lines.lines().map_while(Result::ok) {
        heard.lock().unwrap().push(serde_json::from_str(&line).unwrap());
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

struct Desk {
    house: House,
    key: KernelHostKey,
}

impl Desk {
    /// A house that may reach one port of this machine.
    async fn open(port: u16) -> Self {
        let mut options = Options { per_ip_per_minute: 0, ..Options::default() };
        options.rules.webhooks.allowed = vec![format!("127.0.0.1:{port}").parse().unwrap()];
        let house = House::start_with(options).await;
        let account = house.reseller("1000.00").await;
        let key = house.kernelhost_key(account, KeyTraits::default()).await;
        Self { house, key }
    }

    /// One event an order: what arrives next is of the last one.
    async fn set(&self, port: u16, rotate: bool) -> String {
        let url = format!("http://127.0.0.1:{port}/hook");
        let body = json!({"url": url, "events": ["order.created"], "rotate_secret": rotate});
        let now = self.house.clock.now().as_second();
        let answer = self.key.send(now, "PUT", "/v1/webhooks", &[], body.to_string().as_bytes()).await;
        answer.json()["secret"].as_str().map(str::to_owned).unwrap_or_default()
    }

    async fn order(&self) {
        let (now, once) = (self.house.clock.now().as_second(), format!("stripe-{}", unique()));
        let body = json!({"product_id": 42, "billing_cycle": "monthly", "note": "Grüße, 名前 \u{1f600} \"x\" \\ /"}).to_string();
        let answer = self.key.send(now, "POST", "/v1/orders", &[("Idempotency-Key", &once)], body.as_bytes()).await;
        assert_eq!(answer.status, 201);
    }
}

async fn receive(package: Package) {
    // A secret is known only once a webhook is set: what the courier sends is caught by a receiver that does not know it.
    let probe = Receiver::start(package, "whsec_unknown");
    let mut desk = Desk::open(probe.port).await;
    let first = desk.set(probe.port, false).await;
    desk.order().await;
    let refused = probe.wait_for(1).await;
    assert_eq!(
        (&refused["ok"], refused["error"].as_str().unwrap().contains("SignatureVerificationError")),
        (&json!(false), true)
    );

    // Genuine: what the courier sent, judged with the right secret.
    let receiver = Receiver::start(package, &first);
    let body = STANDARD.decode(refused["body"].as_str().unwrap()).unwrap();
    let header = refused["header"].as_str().unwrap().to_owned();
    let event: Value = serde_json::from_slice(&body).unwrap();
    let genuine = receiver.judge(&header, &body).await;
    assert_eq!((&genuine["ok"], &genuine["id"], &genuine["type"]), (&json!(true), &event["id"], &event["type"]), "{genuine}");

    // Tampered, in the body and in the header.
    let changed = String::from_utf8(body.clone()).unwrap().replacen("\"event\"", "\"evenT\"", 1);
    let (timestamp, v1) = header.split_once(',').unwrap();
    let second: i64 = timestamp.strip_prefix("t=").unwrap().parse().unwrap();
    for (header, body) in [
        (header.clone(), changed.as_bytes()),
        (header.clone(), &body[..body.len() - 1]),
        (format!("t={},{v1}", second + 1), &body[..]),
        (header.replace("v1=", "v0="), &body[..]),
    ] {
        assert_eq!(receiver.judge(&header, body).await["ok"], false, "{header}");
    }

    // Rotated: both secrets find their signature.
    let second_secret = desk.set(probe.port, true).await;
    assert!(second_secret.starts_with("whsec_") && second_secret != first);
    let before = probe.said().len();
    desk.order().await;
    let sent = probe.wait_for(before + 1).await;
    let (header, body) = (sent["header"].as_str().unwrap(), STANDARD.decode(sent["body"].as_str().unwrap()).unwrap());
    assert_eq!(header.matches("v1=").count(), 2, "{header}");
    let rotated = Receiver::start(package, &second_secret);
    assert_eq!(rotated.judge(header, &body).await["ok"], true);
    assert_eq!(receiver.judge(header, &body).await["ok"], true);

    // Late: signed by a clock that is 301 s behind; and just in time.
    for (behind_s, taken) in [(301, false), (290, true)] {
        desk.house.clock.set(jiff::Timestamp::now() - SignedDuration::from_secs(behind_s));
        let before = probe.said().len();
        desk.order().await;
        let sent = probe.wait_for(before + 1).await;
        let header = sent["header"].as_str().unwrap();
        let said = rotated.judge(header, &STANDARD.decode(sent["body"].as_str().unwrap()).unwrap()).await;
        assert_eq!(said["ok"], taken, "{behind_s}: {said}");
        if !taken {
            assert!(said["message"].as_str().unwrap().contains("tolerance"), "{said}");
        }
    }
    desk.house.stop().await;
}

#[tokio::test]
async fn stripe_for_node_takes_ours_for_genuine_and_nothing_else() {
    receive(NODE).await;
}

#[tokio::test]
async fn stripe_for_python_takes_ours_for_genuine_and_nothing_else() {
    receive(PYTHON).await;
}
