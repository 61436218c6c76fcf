//! The shipped binary on a data directory, as a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::http::Http;
use crate::resellers::KernelHostKey;

/// Serves on a free port.
pub const SERVE: [&str; 3] = ["serve", "--server", "127.0.0.1:0"];

/// The binary that stands beside this test's own.
pub fn binary() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let binary = own.parent().unwrap().parent().unwrap().join("provisor");
    assert!(binary.exists(), "{} is missing: run `cargo build --release -p provisor` first", binary.display());
    binary
}

/// The binary on a data directory, in an environment of its own.
pub fn provisor(data: &Path) -> Command {
    let mut command = Command::new(binary());
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

/// A running server, killed when it is dropped.
pub struct Server {
    process: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts on a free port.
    pub fn start(data: &Path) -> Self {
        let mut command = provisor(data);
        command.args(SERVE).stderr(Stdio::null());
        Self::spawn(command)
    }

    /// Starts a command that runs [`SERVE`] in the end.
    pub fn spawn(mut command: Command) -> Self {
        command.stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let listening: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: `{line}`"));
        let address = listening["server"].as_str().unwrap().parse().unwrap();
        Self { process, address }
    }

    /// Its process's id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// SIGTERM: returns once it has ended by itself.
    pub fn stop(mut self) {
        let told = Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        assert!(told.success() && self.process.wait().unwrap().success());
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

/// A reseller with so much credit, in decimal text, made by the command line.
pub fn reseller(data: &Path, credit: &str) -> String {
    run(data, &["reseller", "create", "--name", "Test", "--email", "owner@example.com", "--credit", credit])["id"].to_string()
}

/// A reseller's key that may do everything, made by the command line.
pub fn key(data: &Path, reseller: &str) -> KernelHostKey {
    let create = ["key", "create", "--reseller", reseller, "--provider", "kernelhost", "--scopes", "all"];
    let limits = ["--per-minute", "1000000", "--burst", "1000000", "--per-day", "100000000"];
    let made = run(data, &[&create[..], &limits].concat());
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    KernelHostKey { id: text("key"), secret: text("secret").into(), base_url: String::new(), http: Http::default() }
}

impl KernelHostKey {
    /// The key as it asks this server.
    #[must_use]
    pub fn at(&self, server: &Server) -> Self {
        let mount = provisor_providers::find("kernelhost").unwrap().server.mount();
        Self { base_url: format!("http://{}{mount}", server.address), http: Http::default(), ..self.clone() }
    }
}
