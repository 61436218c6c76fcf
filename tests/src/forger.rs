//! An audit log in the hands of somebody who can write to the book.

use jiff::Timestamp;
use provisor::audit::{Checkpoint, Verdict, What, verify_store};
use provisor::store::Store;
use provisor_providers::books::{AccountId, AuditRow, Books};
use sha2::{Digest, Sha256};

use crate::book::{Book, Engine};

/// Rows of each stream.
pub const ROWS: i64 = 12;
/// The hashed columns, in their order.
pub const COLUMNS: [&str; 13] = [
    "stream",
    "seq",
    "at",
    "account_id",
    "key_id",
    "peer",
    "method",
    "path",
    "status",
    "reason",
    "request_id",
    "event",
    "detail",
];

const SAVE: &str = "DROP TABLE IF EXISTS saved; CREATE TABLE saved AS SELECT * FROM audit;
    DROP TABLE IF EXISTS saved_heads; CREATE TABLE saved_heads AS SELECT * FROM chain_heads";
const RESTORE: &str = "DELETE FROM audit; INSERT INTO audit SELECT * FROM saved;
    DELETE FROM chain_heads; INSERT INTO chain_heads SELECT * FROM saved_heads";

/// A log of the streams 0, 1 and 2.
pub struct Log {
    /// For whoever writes and verifies it.
    pub store: Store,
    /// For the forger.
    pub book: Book,
}

/// A row of a stream.
pub fn row(account: i64, number: i64) -> AuditRow {
    let is_odd = number % 2 == 1;
    AuditRow {
        account: (account > 0).then_some(AccountId(account)),
        at: Timestamp::from_millisecond(1_800_000_000_000 + number).unwrap(),
        key_id: is_odd.then(|| format!("kh_live_{number:032}")),
        peer: if is_odd { "203.0.113.7".parse().unwrap() } else { "2001:db8::7".parse().unwrap() },
        method: "GET".to_owned(),
        path: format!("/v1/services/{number}"),
        status: 200,
        reason: (!is_odd).then(|| "replay_detected".to_owned()),
        request_id: format!("01HX7Z3K8Q{number:016}"),
        event: "request".to_owned(),
        detail: is_odd.then(|| "ünïcode".to_owned()),
    }
}

impl Log {
    /// Writes one.
    pub async fn write(engine: Engine) -> Self {
        let book = Book::new(engine);
        let store = book.open();
        let append = store.transact(|books| {
            for number in 1..=ROWS {
                for account in [0, 1, 2] {
                    books.audit(&row(account, number))?;
                }
            }
            Ok(())
        });
        append.await.unwrap();
        let log = Self { store, book };
        log.save();
        log
    }

    /// What two threads find; one finds the same.
    pub fn verdict(&self, checkpoints: &[Checkpoint]) -> Verdict {
        verify_store(&self.store, checkpoints).unwrap()
    }

    /// The only bad row; nothing if there is none.
    pub fn bad(&self, checkpoints: &[Checkpoint]) -> Option<(i64, i64, What)> {
        match self.verdict(checkpoints) {
            Verdict::Whole { streams, .. } => {
                assert_eq!(streams, 3);
                None
            }
            Verdict::Broken(bad) => {
                assert_eq!(bad.len(), 1, "{bad:?}");
                Some((bad[0].stream, bad[0].seq, bad[0].what))
            }
        }
    }

    /// Writes to the book past the program.
    pub fn forge(&self, sql: &str) {
        self.book.execute(sql);
    }

    /// Keeps the log as it is now.
    pub fn save(&self) {
        self.forge(SAVE);
    }

    /// Puts it back as it was kept.
    pub fn restore(&self) {
        self.forge(RESTORE);
    }

    fn hash_at(&self, stream: i64, seq: i64) -> [u8; 32] {
        let found = self.book.hex("chain_hash", &format!("FROM audit WHERE stream = {stream} AND seq = {seq}"));
        found.try_into().unwrap()
    }

    /// What would have been signed when a stream had so many rows.
    pub fn checkpoint(&self, stream: i64, size: i64) -> Checkpoint {
        Checkpoint { stream, size, head: self.hash_at(stream, size), at: row(1, 1).at }
    }

    /// Computes the chain of a stream anew from a row on, head included: by the documented encoding, not by the code under test.
    pub fn rehash(&self, stream: i64, from: i64) {
        let mut previous = if from == 1 { [0; 32] } else { self.hash_at(stream, from - 1) };
        let rows = self.store.read(|books| books.audit_rows(stream, from - 1, 100_000)).unwrap();
        let (mut forgery, mut last) = (Vec::new(), from);
        for stored in rows {
            let encoded = encode(stored.stream, stored.seq, &stored.row);
            previous = Sha256::new().chain_update(previous).chain_update(encoded).finalize().into();
            last = stored.seq;
            let hash = self.book.bytes(&previous);
            forgery.push(format!("UPDATE audit SET chain_hash = {hash} WHERE stream = {stream} AND seq = {last};"));
        }
        let hash = self.book.bytes(&previous);
        forgery.push(format!("UPDATE chain_heads SET seq = {last}, chain_hash = {hash} WHERE stream = {stream}"));
        self.forge(&forgery.concat());
    }
}

/// As docs/audit.md describes it.
fn encode(stream: i64, seq: i64, row: &AuditRow) -> Vec<u8> {
    let int = |value: i64| Some(value.to_be_bytes().to_vec());
    let text = |value: &str| Some(value.as_bytes().to_vec());
    let columns: [Option<Vec<u8>>; COLUMNS.len()] = [
        int(stream),
        int(seq),
        int(row.at.as_millisecond()),
        row.account.and_then(|account| int(account.0)),
        row.key_id.as_deref().and_then(text),
        text(&row.peer.to_string()),
        text(&row.method),
        text(&row.path),
        int(row.status.into()),
        row.reason.as_deref().and_then(text),
        text(&row.request_id),
        text(&row.event),
        row.detail.as_deref().and_then(text),
    ];
    let cell = |column: Option<Vec<u8>>| match column {
        Some(bytes) => [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat(),
        None => u32::MAX.to_be_bytes().to_vec(),
    };
    columns.into_iter().flat_map(cell).collect()
}
