//! Old rows, moved out of the book into a signed file: a segment.
//!
//! The file has the rows as they are exported; beside it stands a note in the C2SP signed-note form with the file's hash and, for each
//! stream, which rows it has, the hash before them and the hash of the last.

use std::io::BufRead;

use base16ct::lower as hex;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use provisor_providers::books::{AccountId, AuditRow};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::chain::Link;
use super::checkpoint::{Signer, Verifier, opened};
use super::verify::{BadRow, What};
use crate::store::StoredAuditRow;

/// The first line of a segment's note.
const ORIGIN: &str = "provisor audit segment";

/// A row as it is exported. `at` has milliseconds, so that the row's hash can be computed from it.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/audit.md has the columns")]
pub struct Line {
    pub stream: i64,
    pub seq: i64,
    pub at: String,
    pub account_id: Option<i64>,
    pub key_id: Option<String>,
    pub peer: String,
    pub method: String,
    pub path: String,
    pub status: u16,
    pub reason: Option<String>,
    pub request_id: String,
    pub event: String,
    pub detail: Option<String>,
    pub chain_hash: String,
}

impl From<StoredAuditRow> for Line {
    fn from(stored: StoredAuditRow) -> Self {
        let StoredAuditRow { id: _, stream, seq, row, chain_hash } = stored;
        Self {
            stream,
            seq,
            at: row.at.to_string(),
            account_id: row.account.map(|account| account.0),
            key_id: row.key_id,
            peer: row.peer.to_string(),
            method: row.method,
            path: row.path,
            status: row.status,
            reason: row.reason,
            request_id: row.request_id,
            event: row.event,
            detail: row.detail,
            chain_hash: hex::encode_string(&chain_hash),
        }
    }
}

impl Line {
    fn row(self) -> Option<AuditRow> {
        Some(AuditRow {
            account: self.account_id.map(AccountId),
            at: self.at.parse().ok()?,
            key_id: self.key_id,
            peer: self.peer.parse().ok()?,
            method: self.method,
            path: self.path,
            status: self.status,
            reason: self.reason,
            request_id: self.request_id,
            event: self.event,
            detail: self.detail,
        })
    }
}

/// What a segment has of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The stream.
    pub stream: i64,
    /// Its first row here.
    pub first: i64,
    /// Its last row here.
    pub last: i64,
    /// The hash that the first follows.
    pub before: [u8; 32],
    /// The hash of the last.
    pub head: [u8; 32],
}

/// What a segment's note says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// When it was made.
    pub at: Timestamp,
    /// Of the file with its rows.
    pub sha256: [u8; 32],
    /// What it has, by stream: the order of the file too.
    pub parts: Vec<Part>,
}

impl Segment {
    /// The note to stand beside the file.
    pub fn note(&self, signer: &Signer) -> String {
        let line = |part: &Part| {
            let [before, head] = [part.before, part.head].map(|hash| STANDARD.encode(hash));
            format!("{} {} {} {before} {head}\n", part.stream, part.first, part.last)
        };
        let parts: String = self.parts.iter().map(line).collect();
        signer.signed(&format!("{ORIGIN}\n{}\n{}\n{parts}", self.at, STANDARD.encode(self.sha256)))
    }

    /// Reads a note; nothing if no verifier confirms it.
    pub fn read(note: &str, verifiers: &[Verifier]) -> Option<Self> {
        let lines = opened(note, verifiers)?;
        let [first, at, sha256, parts @ ..] = lines.as_slice() else { return None };
        if *first != ORIGIN {
            return None;
        }
        let part = |line: &&str| {
            let [stream, first, last, before, head] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
            let number = |text: &str| text.parse().ok();
            Some(Part {
                stream: number(stream)?,
                first: number(first)?,
                last: number(last)?,
                before: hash(before)?,
                head: hash(head)?,
            })
        };
        let parts = parts.iter().map(part).collect::<Option<_>>()?;
        Some(Self { at: at.parse().ok()?, sha256: hash(sha256)?, parts })
    }

    /// Computes every hash of a file anew; how many rows it has, or the first that is not as it was written.
    pub fn verify(&self, rows: impl BufRead) -> std::io::Result<Result<u64, BadRow>> {
        let mut digest = Sha256::new();
        let mut parts = self.parts.iter();
        let mut part: Option<&Part> = None;
        let (mut seq, mut previous, mut count) = (0, [0; 32], 0);
        for line in rows.split(b'\n') {
            let line = line?;
            digest.update(&line);
            digest.update(b"\n");
            if part.is_none_or(|part| seq == part.last) {
                part = parts.next();
                (seq, previous) = part.map_or((0, previous), |part| (part.first - 1, part.before));
            }
            let Some(part) = part else { return Ok(Err(BadRow { stream: 0, seq: 0, what: What::Stray })) };
            seq += 1;
            let bad = |what| Ok(Err(BadRow { stream: part.stream, seq, what }));
            let Ok(read) = serde_json::from_slice::<Line>(&line) else { return bad(What::Malformed) };
            if (read.stream, read.seq) != (part.stream, seq) {
                return bad(What::Missing);
            }
            let stored = read.chain_hash.clone();
            let Some(row) = read.row() else { return bad(What::Malformed) };
            previous = Link::new(part.stream, seq, &row).hash(&previous);
            if hex::encode_string(&previous) != stored {
                return bad(What::Changed);
            }
            count += 1;
            if seq == part.last && previous != part.head {
                return Ok(Err(BadRow { stream: part.stream, seq: part.first, what: What::Rewritten { until: seq } }));
            }
        }
        if let Some(part) = part.filter(|part| seq < part.last).or_else(|| parts.next()) {
            let seq = if seq < part.last { seq + 1 } else { part.first };
            return Ok(Err(BadRow { stream: part.stream, seq, what: What::Missing }));
        }
        let is_same = <[u8; 32]>::from(digest.finalize()) == self.sha256;
        Ok(if is_same { Ok(count) } else { Err(BadRow { stream: 0, seq: 0, what: What::Stray }) })
    }
}

fn hash(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}
