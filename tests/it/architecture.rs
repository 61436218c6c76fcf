//! The nevers of ARCHITECTURE.md: what each room must not know. Read from the sources, so that they hold before anything runs.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files of a folder or the file itself, below the root, with their text. Nothing there is nothing to judge.
fn texts(place: &str) -> Vec<(PathBuf, String)> {
    let mut open = vec![root().join(place)];
    let mut texts = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if let Ok(text) = fs::read_to_string(&path) {
            texts.push((path, text));
        }
    }
    texts
}

fn refuse(places: &[&str], words: &[&str]) {
    for (file, text) in places.iter().flat_map(|place| texts(place)) {
        for (number, line) in text.lines().enumerate() {
            for word in words {
                assert!(!line.contains(word), "{}:{}: `{word}` does not belong here", file.display(), number + 1);
            }
        }
    }
}

/// The folders in providers/src: one per provider.
fn providers() -> BTreeSet<String> {
    let entries = fs::read_dir(root().join("providers/src")).unwrap().map(Result::unwrap);
    entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name().into_string().unwrap()).collect()
}

fn names(text: &str, provider: &str) -> bool {
    text.to_ascii_lowercase().split(|letter: char| !letter.is_ascii_alphanumeric()).any(|word| word == provider)
}

#[test]
fn providers_depend_on_what_is_pure() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--package", "provisor-providers", "--edges", "normal", "--prefix", "none", "--locked", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    let crates: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(crates.contains("hmac"), "{tree}");
    for never in ["tokio", "async-std", "smol", "mio", "socket2", "hyper", "http", "reqwest", "ureq", "axum"] {
        assert!(!crates.contains(never), "providers depend on {never}");
    }
    for never in ["rusqlite", "libsqlite3-sys", "sqlx", "postgres", "tokio-postgres", "wasmtime", "getrandom", "rayon"] {
        assert!(!crates.contains(never), "providers depend on {never}");
    }
    refuse(
        &["providers/src"],
        &["std::net::Tcp", "std::net::Udp", "std::fs", "std::thread", "std::process", "std::env", "SystemTime", "Instant::now"],
    );
    refuse(&["providers/src"], &["Timestamp::now", "Zoned::now", "cfg(target", "cfg(feature", "cfg(not(target"]);
}

#[test]
fn a_provider_names_no_other() {
    let providers = providers();
    assert!(providers.len() >= 2);
    for provider in &providers {
        for (file, text) in texts(&format!("providers/src/{provider}")) {
            for other in providers.iter().filter(|other| *other != provider) {
                assert!(!names(&text, other), "{} names {other}", file.display());
            }
        }
    }
}

#[test]
fn the_wings_do_not_know_each_other() {
    let asking = ["crate::gateway", "crate::operations", "crate::plugin", "crate::egress"];
    let answering = ["crate::server", "crate::portal"];
    refuse(&["host/src/gateway", "host/src/operations", "host/src/plugin", "host/src/egress"], &answering);
    // One way through the asking wing: nobody in it looks back.
    refuse(&["host/src/operations", "host/src/plugin", "host/src/egress"], &["crate::gateway"]);
    refuse(&["host/src/plugin", "host/src/egress"], &["crate::operations"]);
    refuse(&["host/src/server", "host/src/portal"], &asking);
    let ground = [
        "store",
        "config",
        "vault.rs",
        "audit",
        "clock.rs",
        "listen.rs",
        "mail.rs",
        "addresses.rs",
        "resolve.rs",
        "telemetry.rs",
        "ticks.rs",
        "tls.rs",
    ]
    .map(|room| format!("host/src/{room}"));
    let ground = ground.each_ref().map(String::as_str);
    assert!(ground.iter().all(|room| !texts(room).is_empty()));
    refuse(&ground, &[&asking[..], &answering[..], &["crate::cli"]].concat());
}
