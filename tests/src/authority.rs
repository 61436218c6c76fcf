//! A certificate authority that nobody trusts but who is told to, made with openssl.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use crate::resellers::unique;

const NEW_KEY: [&str; 6] = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/// The authority, in a folder that goes with it.
pub struct Authority {
    folder: TempDir,
}

/// A certificate and its key, as PEM files.
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let authority = Self { folder: tempfile::tempdir().unwrap() };
        // A name of its own: of two with one name, either would be tried for the other's certificates.
        let subject = format!("/CN=Authority {}", unique());
        let own = ["-x509", "-days", "2", "-subj", &subject, "-keyout", "ca.key", "-out", "ca.pem"];
        authority.openssl(&[&NEW_KEY[..], &own].concat());
        authority
    }

    /// Its certificate, as a PEM file.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Its certificate, as DER.
    pub fn der(&self) -> Vec<u8> {
        let text = std::fs::read_to_string(self.certificate()).unwrap();
        STANDARD.decode(text.lines().filter(|line| !line.starts_with("-----")).collect::<String>()).unwrap()
    }

    /// A server's certificate for a name.
    pub fn issue(&self, name: &str) -> Identity {
        std::fs::write(self.folder.path().join("extensions"), format!("subjectAltName=DNS:{name}\n")).unwrap();
        let subject = format!("/CN={name}");
        self.openssl(&[&NEW_KEY[..], &["-subj", &subject, "-keyout", "server.key", "-out", "server.csr"]].concat());
        let signed = ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"];
        self.openssl(&[&signed[..], &["-extfile", "extensions", "-out", "server.pem"]].concat());
        let file = |name: &str| self.folder.path().join(name);
        Identity { certificate: file("server.pem"), key: file("server.key") }
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").args(arguments).current_dir(self.folder()).output().unwrap();
        assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
