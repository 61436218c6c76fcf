//! The one printer: lines and tables for people, one compact JSON object per line for programs.

use std::io::{self, Write};

use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, Serializer};
use serde_json::json;

use super::{Exit, Failure};

/// Where a command's results go. Logs never do.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    /// For programs, or for people.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether a program reads it.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Prints one result: as an object, or as the text that `people` makes of it.
    pub fn record<T: Serialize>(self, record: &T, people: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        let text = if self.json { line_of(record)? } else { people(record) };
        print(&text)
    }

    /// Prints many results: each as an object on a line of its own, or all as one table.
    pub fn records<T: Serialize, const N: usize>(
        self,
        titles: [&str; N],
        records: &[T],
        row: impl Fn(&T) -> [String; N],
    ) -> Result<(), Failure> {
        if !self.json {
            return print(&table(titles, records.iter().map(row).collect()));
        }
        records.iter().try_for_each(|record| print(&line_of(record)?))
    }

    /// Prints an error and its causes to stderr.
    pub fn error(self, exit: Exit, error: &anyhow::Error) {
        let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
        let text = if self.json {
            json!({ "error": { "message": error.to_string(), "causes": causes, "exit": exit as u8 } }).to_string()
        } else {
            causes.iter().fold(format!("error: {error}"), |text, cause| format!("{text}\n  because: {cause}"))
        };
        // With stderr gone the exit code still tells.
        let _gone = writeln!(io::stderr(), "{text}");
    }
}

fn line_of<T: Serialize>(record: &T) -> Result<String, Failure> {
    serde_json::to_string(record).map_err(Failure::failed)
}

/// Whoever reads may stop early (`| head`): that is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(anyhow::Error::from(error).context("cannot write the result")))
        }
        _ => Ok(()),
    }
}

/// Columns as wide as their widest cell, two blanks apart.
fn table<const N: usize>(titles: [&str; N], rows: Vec<[String; N]>) -> String {
    let lines: Vec<[String; N]> = std::iter::once(titles.map(str::to_uppercase)).chain(rows).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let padded = |line: &[String; N]| {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{:width$}", plain(cell))).collect();
        cells.join("  ").trim_end().to_owned()
    };
    lines.iter().map(padded).collect::<Vec<_>>().join("\n")
}

/// A text of strangers in one line: what would steer the terminal is replaced.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter }).collect()
}

/// A secret that this command exists to show. Nothing else that holds a [`SecretString`] can be printed as JSON.
pub struct Shown(pub SecretString);

impl Shown {
    /// The secret.
    pub fn text(&self) -> &str {
        self.0.expose_secret()
    }
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_by_characters() {
        let rows = vec![["ü".to_owned(), "active".to_owned()], ["example".to_owned(), String::new()]];
        assert_eq!(table(["name", "state"], rows), "NAME     STATE\nü        active\nexample");
        assert_eq!(table(["name"], Vec::new()), "NAME");
    }

    #[test]
    fn nobodys_text_steers_the_terminal() {
        let rows = vec![["a\u{1b}[2Jb\u{9b}31m\nc".to_owned()]];
        assert_eq!(table(["path"], rows), "PATH\na\u{fffd}[2Jb\u{fffd}31m\u{fffd}c");
    }
}
