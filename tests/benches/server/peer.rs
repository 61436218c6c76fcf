//! The peer: the same service as one would write it with Fastify and better-sqlite3.

use std::path::{Path, PathBuf};
use std::process::Command;

use provisor_tests::daemon::Daemon;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{Caller, on_first_core};

/// Starts it with the same resellers and services.
pub fn start(home: &Path, callers: &[Caller], service: &[u8]) -> Daemon {
    let folder = install();
    let service: Value = serde_json::from_slice(service).unwrap();
    let told = callers.iter().map(|caller| {
        let id: i64 = caller.service.rsplit('/').next().unwrap().parse().unwrap();
        let mut service = service.clone();
        service["id"] = id.into();
        json!({"key": caller.key.id, "secret": caller.key.secret.expose_secret(), "account": caller.account.0, "service": service})
    });
    let file = home.join("peer.json");
    std::fs::write(&file, Value::from_iter(told).to_string()).unwrap();
    let mut command = Command::new("node");
    command.arg(folder.join("server.mjs")).arg(home.join("peer.db")).arg(file).env("NODE_ENV", "production");
    command.env("PATH", std::env::var("PATH").unwrap_or_default());
    Daemon::start(on_first_core(&command))
}

/// Brings its packages into the target directory, once.
fn install() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/server/peer");
    let own = std::env::current_exe().unwrap();
    let folder = own.ancestors().nth(3).unwrap().join("peer");
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["package.json", "package-lock.json", "server.mjs"] {
        std::fs::copy(source.join(file), folder.join(file)).unwrap();
    }
    if !folder.join("node_modules/better-sqlite3/build/Release/better_sqlite3.node").exists() {
        let installed = Command::new("npm").arg("ci").current_dir(&folder).status();
        assert!(installed.is_ok_and(|status| status.success()), "the peer needs npm, and npm its registry");
    }
    folder
}
