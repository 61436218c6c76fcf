//! The shipped binary as a process of its own, in an environment of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// The binary that stands beside this process's own.
pub fn binary() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let binary = own.parent().unwrap().parent().unwrap().join("provisor");
    assert!(binary.exists(), "{} is missing: run `cargo build --release -p provisor` first", binary.display());
    binary
}

/// A process that serves, killed when it is dropped.
pub struct Daemon {
    process: Child,
    address: SocketAddr,
    metrics: Option<SocketAddr>,
}

impl Daemon {
    /// Starts a process that prints `{"server":"address:port"}`, or `gateway` in place of `server`, once it listens.
    pub fn start(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let listening: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: `{line}`"));
        let address = listening["server"].as_str().or(listening["gateway"].as_str()).unwrap().parse().unwrap();
        let metrics = listening["metrics"].as_str().map(|address| address.parse().unwrap());
        Self { process, address, metrics }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the server tells monitoring, if it does.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// The base URL of an API.
    pub fn base_url(&self, provider: &str) -> String {
        let mount = provisor_providers::find(provider).unwrap().server.mount();
        format!("http://{}{mount}", self.address)
    }

    /// Its process id.
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

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may be gone already.
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}
