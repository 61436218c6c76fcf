//! What was answered, held against an OpenAPI document by packages from PyPI, by none of our own code; and schemathesis let loose.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::binary::python;
use crate::http::Answer;

/// Answers to the operations of a document.
pub struct Seen {
    document: PathBuf,
    lines: Vec<Value>,
}

impl Seen {
    /// None yet, to those of the document in this file of the project.
    pub fn of(document: &str) -> Self {
        Self { document: root().join(document), lines: Vec::new() }
    }

    /// The document.
    pub fn document(&self) -> Value {
        serde_json::from_slice(&std::fs::read(&self.document).unwrap()).unwrap()
    }

    /// An answer that must have this status.
    pub fn saw(&mut self, operation: &str, status: u16, answer: &Answer) {
        assert_eq!(answer.status, status, "{operation}: {}", String::from_utf8_lossy(&answer.body));
        let headers = answer.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
        self.add(operation, status, &headers.collect::<Vec<_>>(), &answer.body);
    }

    /// An answer in parts.
    pub fn add(&mut self, operation: &str, status: u16, headers: &[(&str, &str)], body: &[u8]) {
        self.lines.push(json!({"operation": operation, "status": status, "headers": headers, "body": STANDARD.encode(body)}));
    }

    /// Says why an answer that is documented is not among these.
    pub fn excuse(&mut self, operation: &str, status: u16, why: &str) {
        self.lines.push(json!({"operation": operation, "status": status, "unseen": why}));
    }

    /// Validates the document, each answer against it, and that nothing documented was not seen, unless it is excused.
    pub fn judge(&self) {
        self.check(&[]);
    }

    /// The same, but not whether everything was seen.
    pub fn judge_these(&self) {
        self.check(&["--these"]);
    }

    fn check(&self, options: &[&str]) {
        let mut checker = Command::new(python("python"));
        checker.arg(in_folder("check.py")).arg(&self.document).args(options);
        let mut checker = checker.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = checker.stdin.take().unwrap();
        for line in &self.lines {
            writeln!(input, "{line}").unwrap();
        }
        drop(input);
        let output = checker.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{} answers:\n{text}", self.lines.len());
        println!("{text}");
    }
}

/// Lets schemathesis loose on a served document under a seed for so many seconds: with options of its own, one of `tests/openapi` as its hooks, and
/// what that reads from the environment.
pub fn schemathesis(url: &str, options: &[&str], hooks: &str, environment: &[(&str, &str)], (seed, seconds): (u32, u32)) {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(python("schemathesis"));
    command
        .args(options)
        .args([
            "run",
            url,
            "--seed",
            &seed.to_string(),
            "--max-examples",
            "50",
            "--max-time",
            &seconds.to_string(),
            "--continue-on-failure",
        ])
        // What the schema allows the books may refuse: an unknown product, an action that the service's state does not allow.
        .args(["--exclude-checks", "positive_data_acceptance"])
        .env("SCHEMATHESIS_HOOKS", in_folder(hooks))
        .envs(environment.iter().copied())
        .current_dir(directory.path());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    println!("{}", text.rsplit("SUMMARY").next().unwrap_or_default());
}

/// A file of `tests/openapi`.
pub fn in_folder(file: &str) -> PathBuf {
    root().join("tests/openapi").join(file)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
