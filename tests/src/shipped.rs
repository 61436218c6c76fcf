//! The shipped binary as a process, and the tools from outside that try it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::http::Http;
use crate::resellers::KernelHostKey;

/// Where cargo builds to, seen from this test's own binary.
fn target() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.ancestors().nth(3).unwrap().to_owned()
}

/// A program of the Python environment that `tests/run` makes.
pub fn python(program: &str) -> PathBuf {
    let path = target().join("python/bin").join(program);
    assert!(path.exists(), "{} is missing: `tests/run` installs it from tests/python.txt", path.display());
    path
}

/// Whether the long tests are asked for.
pub fn is_long() -> bool {
    std::env::var("PROVISOR_LONG").is_ok_and(|long| long == "1")
}

/// The binary on a data directory, in an environment of its own.
pub fn provisor(data: &Path) -> Command {
    let binary = target().join("release/provisor");
    assert!(binary.exists(), "{} is missing: run `cargo build --release -p provisor` first", binary.display());
    let mut command = Command::new(binary);
    command
        .env_clear()
        .envs([("PROVISOR_SERVER__LIMITS__PER_IP_PER_MINUTE", "0"), ("PROVISOR_SERVER__FULFILMENT__DELAY_MS", "0")]);
    command.args(["--json", "--data"]).arg(data);
    command
}

/// What a command that ends by itself prints.
pub fn run(data: &Path, arguments: &[&str]) -> Value {
    let output = provisor(data).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Makes a reseller with so much credit; returns its number.
pub fn reseller(data: &Path, credit: &str) -> String {
    run(data, &["reseller", "create", "--name", "Test", "--email", "owner@example.com", "--credit", credit])["id"].to_string()
}

/// Makes a KernelHost key without limits worth the name. It knows no server yet.
pub fn kernelhost_key(data: &Path, reseller: &str, scopes: &str) -> KernelHostKey {
    let create = ["key", "create", "--reseller", reseller, "--provider", "kernelhost", "--scopes", scopes];
    let limits = ["--per-minute", "1000000", "--burst", "1000000", "--per-day", "100000000"];
    let made = run(data, &[&create[..], &limits].concat());
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    KernelHostKey { id: text("key"), secret: text("secret").into(), base_url: String::new(), http: Http::default() }
}

/// A running server, killed when it is dropped.
pub struct Server {
    process: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts on a free port of loopback, and returns once it listens.
    pub fn start(data: &Path) -> Self {
        Self::start_logging(data, "error", Stdio::null())
    }

    /// The same with a log of this level.
    pub fn start_logging(data: &Path, level: &str, log: Stdio) -> Self {
        let mut command = provisor(data);
        command.args(["--log", level, "serve", "--server", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(log);
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let listening: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: `{line}`"));
        let address = listening["server"].as_str().unwrap().parse().unwrap();
        Self { process, address }
    }

    /// The base URL of an API.
    pub fn base_url(&self, provider: &str) -> String {
        let mount = provisor_providers::find(provider).unwrap().server.mount();
        format!("http://{}{mount}", self.address)
    }

    /// SIGKILL: nothing of it runs any more when this returns.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}
