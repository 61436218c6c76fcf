//! Secrets are named, never written: where one is, and reading it when it is needed.

use std::io::Read;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Environment;

pub(super) const LITERAL: &str =
    "a secret is never written into the configuration: name where it is, as { env = \"NAME\" } or { file = \"path\" }";

/// A secret file larger than this is not one, in bytes.
const SECRET_MAX: u64 = 64 * 1024;

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase", try_from = "toml::Value")]
pub enum SecretRef {
    /// In an environment variable of this name.
    Env(String),
    /// In a file, its last line break left out.
    File(PathBuf),
}

impl TryFrom<toml::Value> for SecretRef {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        let toml::Value::Table(table) = value else { return Err(LITERAL.to_owned()) };
        let mut entries = table.into_iter();
        match (entries.next(), entries.next()) {
            (Some((kind, toml::Value::String(name))), None) if !name.is_empty() => match kind.as_str() {
                "env" if is_variable(&name) => Ok(Self::Env(name)),
                "env" => Err("the name of a variable is of A-Z a-z 0-9 and _, and begins with none of the digits".to_owned()),
                "file" => Ok(Self::File(name.into())),
                _ => Err(LITERAL.to_owned()),
            },
            _ => Err(LITERAL.to_owned()),
        }
    }
}

/// What a shell can set. Anything else is rather the secret than its variable's name, which errors show.
fn is_variable(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl SecretRef {
    /// Reads the secret. An empty one is refused.
    pub fn read(&self, environment: &Environment) -> Result<SecretString, SecretError> {
        match self {
            Self::Env(name) => environment.secret(name),
            Self::File(path) => read_file(path),
        }
    }

    pub(super) fn anchor(&mut self, folder: &Path) {
        if let Self::File(path) = self {
            *path = folder.join(&*path);
        }
    }
}

fn read_file(path: &Path) -> Result<SecretString, SecretError> {
    let unreadable = |source| SecretError::Unreadable { file: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    warn_if_shared(path, &file);
    let mut text = Zeroizing::new(String::new());
    file.take(SECRET_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > SECRET_MAX {
        return Err(SecretError::TooLarge(path.to_owned()));
    }
    let secret = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if secret.is_empty() {
        return Err(SecretError::EmptyFile(path.to_owned()));
    }
    Ok(SecretString::from(secret))
}

#[cfg(unix)]
fn warn_if_shared(path: &Path, file: &std::fs::File) {
    use std::os::unix::fs::MetadataExt;

    if file.metadata().is_ok_and(|metadata| metadata.mode() & 0o077 != 0) {
        tracing::warn!(file = %path.display(), "others on this machine can read this secret; `chmod 600` it");
    }
}

#[cfg(not(unix))]
fn warn_if_shared(_path: &Path, _file: &std::fs::File) {}

/// A value that may be a secret, as keys and settings are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged, try_from = "toml::Value")]
pub enum Value {
    /// Written in the configuration, so not secret. Numbers and truth values as the text they are.
    Literal(String),
    /// Named there.
    Reference(SecretRef),
}

impl TryFrom<toml::Value> for Value {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::String(text) => Ok(Self::Literal(text)),
            toml::Value::Boolean(_) | toml::Value::Integer(_) | toml::Value::Float(_) => Ok(Self::Literal(value.to_string())),
            toml::Value::Table(_) => SecretRef::try_from(value).map(Self::Reference),
            toml::Value::Array(_) | toml::Value::Datetime(_) => {
                Err("a setting is a text, a number, true, false, { env = \"NAME\" } or { file = \"path\" }".to_owned())
            }
        }
    }
}

impl Value {
    /// The value itself.
    pub fn read(&self, environment: &Environment) -> Result<SecretString, SecretError> {
        match self {
            Self::Literal(text) => Ok(SecretString::from(text.as_str())),
            Self::Reference(reference) => reference.read(environment),
        }
    }

    pub(super) fn is_literal(&self) -> bool {
        matches!(self, Self::Literal(_))
    }

    pub(super) fn reference_mut(&mut self) -> Option<&mut SecretRef> {
        match self {
            Self::Literal(_) => None,
            Self::Reference(reference) => Some(reference),
        }
    }
}

/// Why a secret cannot be had. Says where it was looked for, never what was found.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not there, or is not text.
    #[error("the environment variable {0} is not set")]
    Unset(String),
    /// The variable is there and holds nothing.
    #[error("the environment variable {0} is empty")]
    Empty(String),
    /// The file cannot be read as text.
    #[error("the secret file {} cannot be read", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds nothing.
    #[error("the secret file {} is empty", .0.display())]
    EmptyFile(PathBuf),
    /// The file is over 64 KiB.
    #[error("the secret file {} is over 64 KiB, which no secret is", .0.display())]
    TooLarge(PathBuf),
}
