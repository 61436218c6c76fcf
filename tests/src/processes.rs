//! The shipped binary as processes of their own, and what its commands make.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use provisor_providers::money::Minor;
use serde_json::Value;

use crate::http::Http;
use crate::resellers::KernelHostKey;

/// The binary that stands beside this test's own.
pub fn binary() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let binary = own.parent().unwrap().parent().unwrap().join("provisor");
    assert!(binary.exists(), "{} is missing: run `cargo build --release -p provisor` first", binary.display());
    binary
}

/// The binary on a data directory and a `store.url`, in an environment of its own.
pub fn provisor(data: &Path, url: &str) -> Command {
    let mut command = Command::new(binary());
    command.env_clear().envs([
        ("PROVISOR_SERVER__LIMITS__PER_IP_PER_MINUTE", "0"),
        ("PROVISOR_SERVER__FULFILMENT__DELAY_MS", "0"),
        ("PROVISOR_STORE__URL", url),
    ]);
    command.args(["--json", "--data"]).arg(data);
    command
}

/// What a command that ends by itself prints: its last line.
pub fn run(data: &Path, url: &str, arguments: &[&str]) -> Value {
    let output = provisor(data, url).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().last().map_or(Value::Null, |line| serde_json::from_str(line).unwrap())
}

/// A running server, killed when it is dropped.
pub struct Host {
    process: Child,
    address: SocketAddr,
}

impl Host {
    /// Starts one, and waits until it listens.
    pub fn start(data: &Path, url: &str) -> Self {
        Self::start_with(data, url, &[])
    }

    /// Starts one with more in its environment.
    pub fn start_with(data: &Path, url: &str, variables: &[(&str, &str)]) -> Self {
        let mut command = provisor(data, url);
        command.envs(variables.iter().copied());
        command.args(["serve", "--server", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let listening: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: `{line}`"));
        let address = listening["server"].as_str().unwrap().parse().unwrap();
        Self { process, address }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A key's requests sent here, on connections of their own.
    pub fn meet(&self, key: &KernelHostKey) -> KernelHostKey {
        let mount = provisor_providers::find("kernelhost").unwrap().server.mount();
        KernelHostKey { base_url: format!("http://{}{mount}", self.address), http: Http::default(), ..key.clone() }
    }

    /// SIGKILL: nothing of it runs any more when this returns.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It may be gone already.
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// A reseller with credit, and a key that may be used as often as a test likes.
pub fn a_clients_key(data: &Path, url: &str, credit: Minor) -> KernelHostKey {
    a_limited_key(data, url, credit, ["1000000", "1000000"])
}

/// The same with so many requests per minute and at once.
pub fn a_limited_key(data: &Path, url: &str, credit: Minor, [per_minute, burst]: [&str; 2]) -> KernelHostKey {
    let reseller = ["reseller", "create", "--name", "Test", "--email", "owner@example.com", "--credit", &credit.to_string()];
    let reseller = run(data, url, &reseller)["id"].to_string();
    let create = ["key", "create", "--reseller", &reseller, "--provider", "kernelhost", "--scopes", "all"];
    let limits = ["--per-minute", per_minute, "--burst", burst, "--per-day", "100000000"];
    let made = run(data, url, &[&create[..], &limits].concat());
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    KernelHostKey { id: text("key"), secret: text("secret").into(), base_url: String::new(), http: Http::default() }
}
