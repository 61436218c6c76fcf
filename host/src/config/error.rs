//! What is wrong with a configuration, and where. Never shows the line itself: it may hold what should have been kept secret.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::environment::Override;

/// Why a configuration cannot be used. Operators read these.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not there, not ours to read, or no text.
    #[error("cannot read the configuration {}", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is over 1 MiB.
    #[error("{} has {size} bytes, which no configuration has", file.display())]
    TooLarge {
        /// Which file.
        file: PathBuf,
        /// Its bytes.
        size: u64,
    },
    /// No TOML.
    #[error("{}:{line}:{column}: {message}", file.display())]
    Syntax {
        /// Which file.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// A key or value that does not belong there.
    #[error("{}:{line}:{column}: {key}: {message}", file.display())]
    Setting {
        /// Which file.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// Its dotted name.
        key: String,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// An override that does not fit.
    #[error("the environment variable {variable}: {message}")]
    Variable {
        /// Its name.
        variable: String,
        /// What is wrong, and what would be right.
        message: String,
    },
}

/// What is wrong with a key, before it is known who set it.
pub(super) struct Refusal {
    pub(super) key: Vec<String>,
    pub(super) message: String,
}

impl Refusal {
    /// Says who set the key: a variable, or the file at its line. A key that is missing stands where its section does.
    pub(super) fn placed(self, overrides: &[Override], text: &str, file: &Path) -> Error {
        if let Some(made) = overrides.iter().rev().find(|made| self.key.starts_with(&made.key) || made.key.starts_with(&self.key))
        {
            return Error::Variable {
                variable: made.variable.clone(),
                message: format!("{}: {}", self.key.join("."), self.message),
            };
        }
        let offset = DeTable::parse(text).ok().and_then(|table| offset_of(table.get_ref(), &self.key)).unwrap_or(0);
        let (line, column) = position(text, offset);
        Error::Setting { file: file.to_owned(), line, column, key: self.key.join("."), message: self.message }
    }
}

/// A text that is no TOML.
pub(super) fn syntax(error: &toml::de::Error, text: &str, file: &Path) -> Error {
    let (line, column) = position(text, error.span().map_or(0, |span| span.start));
    Error::Syntax { file: file.to_owned(), line, column, message: explained(error.message()) }
}

/// TOML that is no configuration.
pub(super) fn refusal(error: &toml::de::Error, text: &str) -> Refusal {
    let key = error
        .span()
        .zip(DeTable::parse(text).ok())
        .and_then(|(span, table)| key_at(table.get_ref(), span.start))
        .unwrap_or_default();
    Refusal { key, message: explained(error.message()) }
}

/// serde's message in an operator's words. It shows what should stand there and never what does: a secret in a wrong place.
fn explained(message: &str) -> String {
    if let Some(unknown) = message.strip_prefix("unknown field ") {
        return explained_key(unknown);
    }
    // serde's words: invalid type: string "x", expected struct Profile
    let tells_value = ["invalid type: ", "invalid value: ", "unknown variant "].iter().any(|words| message.starts_with(words));
    let Some((_, expected)) = message.rsplit_once(", expected ").filter(|_| tells_value) else { return message.to_owned() };
    let expected = match expected {
        "a map" => "a section",
        "u16" => "a number from 0 to 65535",
        "u32" => "a number from 0 to 4294967295",
        structure if structure.starts_with("struct ") => "a section",
        other => other,
    };
    format!("expected {expected}")
}

/// Names the nearest key for an unknown one.
fn explained_key(unknown: &str) -> String {
    // serde's words: unknown field `x`, expected one of `a`, `b`
    let mut names = unknown.split('`').skip(1).step_by(2);
    let wrong = names.next().unwrap_or_default();
    let names: Vec<&str> = names.collect();
    let nearest = names.iter().map(|name| (strsim::damerau_levenshtein(wrong, name), name)).min();
    match nearest {
        Some((distance, name)) if distance <= wrong.len().max(3) / 2 => format!("unknown key; did you mean `{name}`?"),
        _ => format!("unknown key; known here: {}", names.join(", ")),
    }
}

/// The innermost key whose name or value is at an offset.
fn key_at(table: &DeTable, offset: usize) -> Option<Vec<String>> {
    table.iter().find_map(|(name, value)| {
        let inner = match value.get_ref() {
            DeValue::Table(table) => key_at(table, offset),
            _ => None,
        };
        let here = name.span().contains(&offset) || value.span().contains(&offset);
        match (inner, here) {
            (Some(key), _) => Some(std::iter::once(name.get_ref().to_string()).chain(key).collect()),
            (None, true) => Some(vec![name.get_ref().to_string()]),
            (None, false) => None,
        }
    })
}

/// Where a key stands, or the innermost section around it that does.
fn offset_of(table: &DeTable, key: &[String]) -> Option<usize> {
    let (name, value) = table.iter().find(|(name, _)| Some(name.get_ref().as_ref()) == key.first().map(String::as_str))?;
    let inner = match value.get_ref() {
        DeValue::Table(table) => offset_of(table, &key[1..]),
        _ => None,
    };
    inner.or_else(|| Some(Spanned::span(name).start))
}

/// Line and column of a byte offset, from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}
