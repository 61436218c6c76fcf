//! The audit chain: `chain_hash[n] = SHA-256(chain_hash[n-1] || row)`, one chain per account (spec/kernelhost 2.15).
//!
//! A row is its columns in the table's order, `chain_hash` aside, each behind its length as four bytes, big-endian; integers are
//! eight bytes, big-endian; an absent value is the length `ff ff ff ff` and nothing. A chain alone shows neither a cut tail nor a
//! full rewrite.

use provisor_providers::books::{AuditRow, Fault};
use sha2::{Digest, Sha256};

use crate::store::{StoredAuditRow, Transaction};

/// What the first row of a stream follows.
pub const GENESIS: [u8; 32] = [0; 32];
/// Rows read at a time.
const BATCH: u32 = 1000;

/// A row at its place in a stream.
pub(crate) struct Link<'a> {
    pub(crate) stream: i64,
    pub(crate) seq: i64,
    pub(crate) row: &'a AuditRow,
}

impl Link<'_> {
    pub(crate) fn hash(&self, previous: &[u8; 32]) -> [u8; 32] {
        let row = self.row;
        let mut encoded = Encoded(Vec::with_capacity(256));
        encoded.int(self.stream).int(self.seq).int(row.at.as_millisecond());
        match row.account {
            Some(account) => encoded.int(account.0),
            None => encoded.absent(),
        };
        encoded.optional(row.key_id.as_deref()).text(&row.peer.to_string()).text(&row.method).text(&row.path);
        encoded.int(row.status.into()).optional(row.reason.as_deref()).text(&row.request_id).text(&row.event);
        encoded.optional(row.detail.as_deref());
        Sha256::new().chain_update(previous).chain_update(&encoded.0).finalize().into()
    }
}

struct Encoded(Vec<u8>);

impl Encoded {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        // Every column is cut far below 4 GiB before it gets here.
        self.0.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX - 1).to_be_bytes());
        self.0.extend(bytes);
        self
    }

    fn int(&mut self, value: i64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    fn absent(&mut self) -> &mut Self {
        self.0.extend(u32::MAX.to_be_bytes());
        self
    }

    fn optional(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(value),
            None => self.absent(),
        }
    }
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every row follows from the one before.
    Whole {
        /// How many streams.
        streams: u64,
        /// How many rows.
        rows: u64,
    },
    /// The first row that does not.
    Broken {
        /// The stream.
        stream: i64,
        /// The sequence number at which a wrong row, or none, stands.
        seq: i64,
    },
}

/// Walks every chain from its first row to its head.
pub fn verify(books: &mut Transaction<'_>) -> Result<Verdict, Fault> {
    let heads = books.chain_heads()?;
    let mut count = 0;
    for (stream, head_seq, head_hash) in &heads {
        let (mut seq, mut hash) = (0, GENESIS);
        loop {
            let rows = books.audit_rows(*stream, seq, BATCH)?;
            if rows.is_empty() {
                break;
            }
            for StoredAuditRow { seq: stored_seq, row, chain_hash, .. } in rows {
                seq += 1;
                hash = Link { stream: *stream, seq, row: &row }.hash(&hash);
                if stored_seq != seq || chain_hash != hash {
                    return Ok(Verdict::Broken { stream: *stream, seq });
                }
            }
        }
        if (seq, hash) != (*head_seq, *head_hash) {
            return Ok(Verdict::Broken { stream: *stream, seq: seq + 1 });
        }
        count += seq.unsigned_abs();
    }
    Ok(Verdict::Whole { streams: heads.len() as u64, rows: count })
}
