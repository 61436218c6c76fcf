//! Rows of the audit log: whatever stands in one, its encoding says all of it and nothing else, and its hash rests on each byte.
#![no_main]

use std::net::IpAddr;

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use provisor_providers::books::{AccountId, AuditRow};
use sha2::{Digest, Sha256};

// The host's own file: as a dependency the host would bring the sandbox, which takes minutes to instrument.
#[allow(dead_code, reason = "the host uses more of it")]
#[path = "../../../host/src/audit/chain.rs"]
mod chain;

/// What parts the texts of an input.
const PART: u8 = 0xff;

/// Takes what is left of an input apart.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.0.split_at(self.0.len().min(N));
        self.0 = rest;
        let mut bytes = [0; N];
        bytes[..taken.len()].copy_from_slice(taken);
        bytes
    }

    fn int(&mut self) -> i64 {
        i64::from_be_bytes(self.bytes())
    }

    fn text(&mut self) -> String {
        let length = self.0.iter().position(|byte| *byte == PART).unwrap_or(self.0.len());
        let (text, rest) = self.0.split_at(length);
        self.0 = rest.get(1..).unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    fn row(&mut self) -> AuditRow {
        let [present] = self.bytes();
        let peer = if present & 1 == 0 { IpAddr::from(self.bytes::<4>()) } else { IpAddr::from(self.bytes::<16>()) };
        let at = Timestamp::from_millisecond(self.int() % 253_402_207_200_000).unwrap_or_default();
        let account = (present & 2 != 0).then(|| AccountId(self.int()));
        let status = u16::from_be_bytes(self.bytes());
        let mut optional = |bit: u8| (present & bit != 0).then(|| self.text());
        let (key_id, reason, detail) = (optional(4), optional(8), optional(16));
        let [method, path, request_id, event] = std::array::from_fn(|_| self.text());
        AuditRow { account, at, key_id, peer, method, path, status, reason, request_id, event, detail }
    }
}

/// What docs/audit.md says of a row, read back: each column's bytes, or none.
fn columns(mut row: &[u8]) -> Option<Vec<Option<Vec<u8>>>> {
    let mut columns = Vec::new();
    while let Some((length, rest)) = row.split_first_chunk() {
        let length = u32::from_be_bytes(*length);
        if length == u32::MAX {
            columns.push(None);
            row = rest;
        } else {
            let (column, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            columns.push(Some(column.to_vec()));
            row = rest;
        }
    }
    row.is_empty().then_some(columns)
}

fn expected(stream: i64, seq: i64, row: &AuditRow) -> Vec<Option<Vec<u8>>> {
    let int = |value: i64| Some(value.to_be_bytes().to_vec());
    let text = |value: &str| Some(value.as_bytes().to_vec());
    let optional = |value: &Option<String>| value.as_deref().and_then(text);
    vec![
        int(stream),
        int(seq),
        int(row.at.as_millisecond()),
        row.account.and_then(|account| int(account.0)),
        optional(&row.key_id),
        text(&row.peer.to_string()),
        text(&row.method),
        text(&row.path),
        int(row.status.into()),
        optional(&row.reason),
        text(&row.request_id),
        text(&row.event),
        optional(&row.detail),
    ]
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let (stream, seq, previous) = (input.int(), input.int(), input.bytes());
    let row = input.row();
    let encoded = chain::Link::new(stream, seq, &row).encoded();
    assert_eq!(columns(encoded.row()), Some(expected(stream, seq, &row)));
    let mut hashed = [&previous[..], encoded.row()].concat();
    let hash = chain::Link::new(stream, seq, &row).hash(&previous);
    assert_eq!(hash, <[u8; 32]>::from(Sha256::digest(&hashed)));
    let place = usize::from(input.bytes::<1>()[0]) * hashed.len() / 256;
    hashed[place] ^= 1;
    assert_ne!(hash, <[u8; 32]>::from(Sha256::digest(&hashed)));
});
