//! One row of a chain as bytes, and its hash.
//!
//! A row is its columns in the table's order, `chain_hash` aside, each behind its length as four bytes, big-endian; integers are
//! eight bytes, big-endian; an absent value is the length `ff ff ff ff` and nothing.

use provisor_providers::books::AuditRow;
use sha2::{Digest, Sha256};

/// What the first row of a stream follows.
pub const GENESIS: [u8; 32] = [0; 32];

/// A row at its place in a stream.
pub(crate) struct Link<'a> {
    stream: i64,
    pub(crate) seq: i64,
    row: &'a AuditRow,
    /// The row's peer, as it is hashed and stored.
    pub(crate) peer: String,
}

impl<'a> Link<'a> {
    pub(crate) fn new(stream: i64, seq: i64, row: &'a AuditRow) -> Self {
        Self { stream, seq, row, peer: row.peer.to_string() }
    }

    pub(crate) fn hash(&self, previous: &[u8; 32]) -> [u8; 32] {
        self.encoded().hash(previous)
    }

    pub(crate) fn encoded(&self) -> Encoded {
        let row = self.row;
        let mut encoded = Encoded::default();
        encoded.int(self.stream).int(self.seq).int(row.at.as_millisecond());
        match row.account {
            Some(account) => encoded.int(account.0),
            None => encoded.absent(),
        };
        encoded.optional(row.key_id.as_deref()).text(&self.peer).text(&row.method).text(&row.path);
        encoded.int(row.status.into()).optional(row.reason.as_deref()).text(&row.request_id).text(&row.event);
        encoded.optional(row.detail.as_deref());
        encoded
    }
}

/// A row in the encoding of the chain, behind room for the hash that it follows.
pub(crate) struct Encoded(Vec<u8>);

const HASH_LEN: usize = 32;

impl Default for Encoded {
    fn default() -> Self {
        let mut bytes = Vec::with_capacity(512);
        bytes.resize(HASH_LEN, 0);
        Self(bytes)
    }
}

impl Encoded {
    /// Makes room for another row.
    pub(crate) fn clear(&mut self) {
        self.0.truncate(HASH_LEN);
    }

    /// Puts a row here that was encoded before.
    pub(crate) fn set(&mut self, row: &[u8]) {
        self.clear();
        self.0.extend_from_slice(row);
    }

    /// The row alone.
    pub(crate) fn row(&self) -> &[u8] {
        &self.0[HASH_LEN..]
    }

    /// The hash of the row, which follows another.
    pub(crate) fn hash(&mut self, previous: &[u8; HASH_LEN]) -> [u8; HASH_LEN] {
        self.0[..HASH_LEN].copy_from_slice(previous);
        Sha256::digest(&self.0).into()
    }

    pub(crate) fn int(&mut self, value: i64) -> &mut Self {
        let mut bytes = [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes[4..].copy_from_slice(&value.to_be_bytes());
        self.0.extend_from_slice(&bytes);
        self
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        self.0.reserve(4 + value.len());
        // Every column is cut far below 4 GiB before it gets here.
        self.0.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX - 1).to_be_bytes());
        self.0.extend_from_slice(value.as_bytes());
        self
    }

    pub(crate) fn absent(&mut self) -> &mut Self {
        self.0.extend_from_slice(&u32::MAX.to_be_bytes());
        self
    }

    fn optional(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(value),
            None => self.absent(),
        }
    }
}
