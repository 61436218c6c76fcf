//! The shipped binary on a data directory: its commands, what they make, and the tools from outside that try it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use provisor_providers::money::Minor;
use serde_json::Value;

use crate::daemon::{Daemon, binary};
use crate::http::Http;
use crate::resellers::KernelHostKey;

/// Serves on a free port.
pub const SERVE: [&str; 3] = ["serve", "--server", "127.0.0.1:0"];

/// The binary on a data directory and a book elsewhere, by its `store.url`.
pub fn provisor_on(data: &Path, url: &str) -> Command {
    let mut command = provisor(data);
    command.env("PROVISOR_STORE__URL", url);
    command
}

/// The binary on a data directory, in an environment of its own.
pub fn provisor(data: &Path) -> Command {
    let mut command = Command::new(binary());
    command
        .env_clear()
        .envs([("PROVISOR_SERVER__LIMITS__PER_IP_PER_MINUTE", "0"), ("PROVISOR_SERVER__FULFILMENT__DELAY_MS", "0")])
        // A charge that a crash left is taken up again soon after.
        .env("PROVISOR_SERVER__CARDS__TIMEOUT_MS", "500");
    command.args(["--json", "--data"]).arg(data);
    command
}

/// What a command that ends by itself prints: its last line.
pub fn run(data: &Path, arguments: &[&str]) -> Value {
    printed(provisor(data), arguments)
}

/// The same on a book elsewhere.
pub fn run_on(data: &Path, url: &str, arguments: &[&str]) -> Value {
    printed(provisor_on(data, url), arguments)
}

fn printed(mut command: Command, arguments: &[&str]) -> Value {
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().last().map_or(Value::Null, |line| serde_json::from_str(line).unwrap())
}

/// A host of a book elsewhere, silent.
pub fn serve_on(data: &Path, url: &str) -> Daemon {
    let mut command = provisor_on(data, url);
    command.args(SERVE).stderr(Stdio::null());
    Daemon::start(command)
}

/// A reseller with credit on a book elsewhere, and its key without limits worth the name.
pub fn client_on(data: &Path, url: &str, credit: Minor) -> KernelHostKey {
    limited_client_on(data, url, credit, ["1000000", "1000000"])
}

/// The same with so many requests per minute and at once.
pub fn limited_client_on(data: &Path, url: &str, credit: Minor, [per_minute, burst]: [&str; 2]) -> KernelHostKey {
    let reseller = ["reseller", "create", "--name", "Test", "--email", "owner@example.com", "--credit", &credit.to_string()];
    let reseller = run_on(data, url, &reseller)["id"].to_string();
    let create = ["key", "create", "--reseller", &reseller, "--provider", "kernelhost", "--scopes", "all"];
    let limits = ["--per-minute", per_minute, "--burst", burst, "--per-day", "100000000"];
    made(&run_on(data, url, &[&create[..], &limits].concat()))
}

/// A key that `key create` showed. It knows no server yet.
pub fn made(shown: &Value) -> KernelHostKey {
    let text = |name: &str| shown[name].as_str().unwrap().to_owned();
    KernelHostKey { id: text("key"), secret: text("secret").into(), base_url: String::new(), http: Http::default() }
}

/// A server on a free port, silent.
pub fn serve(data: &Path) -> Daemon {
    serve_logging(data, "error", Stdio::null())
}

/// The same with a log of this level.
pub fn serve_logging(data: &Path, level: &str, log: Stdio) -> Daemon {
    let mut command = provisor(data);
    command.args(["--log", level]).args(SERVE).stderr(log);
    Daemon::start(command)
}

/// A reseller with so much credit, in decimal text, made by the command line.
pub fn reseller(data: &Path, credit: &str) -> String {
    run(data, &["reseller", "create", "--name", "Test", "--email", "owner@example.com", "--credit", credit])["id"].to_string()
}

/// A reseller's key that may do everything, made by the command line.
pub fn key(data: &Path, reseller: &str) -> KernelHostKey {
    key_for(data, reseller, "all")
}

/// A reseller's key with these scopes, made by the command line. It knows no server yet.
pub fn key_for(data: &Path, reseller: &str, scopes: &str) -> KernelHostKey {
    let create = ["key", "create", "--reseller", reseller, "--provider", "kernelhost", "--scopes", scopes];
    let limits = ["--per-minute", "1000000", "--burst", "1000000", "--per-day", "100000000"];
    made(&run(data, &[&create[..], &limits].concat()))
}

/// A program of the Python environment that `tests/run` makes.
pub fn python(program: &str) -> PathBuf {
    let path = binary().ancestors().nth(2).unwrap().join("python/bin").join(program);
    assert!(path.exists(), "{} is missing: `tests/run` installs it from tests/python.txt", path.display());
    path
}

/// Whether the long tests are asked for.
pub fn is_long() -> bool {
    std::env::var("PROVISOR_LONG").is_ok_and(|long| long == "1")
}

impl KernelHostKey {
    /// The key as it asks this server.
    #[must_use]
    pub fn at(&self, server: &Daemon) -> Self {
        let mount = provisor_providers::find("kernelhost").unwrap().server.mount();
        Self { base_url: format!("http://{}{mount}", server.address()), http: Http::default(), ..self.clone() }
    }
}
