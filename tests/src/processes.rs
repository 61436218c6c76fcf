//! The shipped binary as processes of their own, and what its commands make.

use std::path::Path;
use std::process::{Command, Stdio};

use provisor_providers::money::Minor;
use serde_json::Value;

use crate::daemon::{Daemon, binary};
use crate::http::Http;
use crate::resellers::KernelHostKey;

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

/// A host of the book, whose orders are fulfilled at once.
pub fn serve(data: &Path, url: &str) -> Daemon {
    let mut command = Daemon::serve(data);
    command.envs([("PROVISOR_SERVER__FULFILMENT__DELAY_MS", "0"), ("PROVISOR_STORE__URL", url)]);
    command.stderr(Stdio::null());
    Daemon::start(command)
}

impl Daemon {
    /// A key's requests sent here, on connections of their own.
    pub fn meet(&self, key: &KernelHostKey) -> KernelHostKey {
        let mount = provisor_providers::find("kernelhost").unwrap().server.mount();
        KernelHostKey { base_url: format!("http://{}{mount}", self.address()), http: Http::default(), ..key.clone() }
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
