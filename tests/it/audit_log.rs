//! The audit log in another's hands: whatever is done to it is found, and the right row named.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::io::{BufRead, BufReader, Lines};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;

use jiff::Timestamp;
use provisor::audit::{BadRow, Checkpoint, FOLDER, Notes, Verdict, Verifier, What, files, verify, verify_against, verify_store};
use provisor::server::Options;
use provisor::store::Store;
use provisor::vault::Vault;
use provisor_providers::books::{AccountId, AuditRow, Books};
use provisor_tests::binary;
use provisor_tests::house::House;
use provisor_tests::resellers::KeyTraits;
use rusqlite::Connection;
use rusqlite::types::Value;
use serde_json::json;
use sha2::{Digest, Sha256};

const ROWS: i64 = 12;
/// The hashed columns, in their order.
const COLUMNS: [&str; 13] = [
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

/// A log of three streams, and somebody who can write the file.
struct Log {
    store: Store,
    forger: Connection,
    _directory: tempfile::TempDir,
}

fn row(account: i64, number: i64) -> AuditRow {
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
    async fn write() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Vault::create_key(directory.path(), &[7; 32]).unwrap();
        let file = directory.path().join("book.db");
        let store = Store::open_sqlite(&file, Arc::new(Vault::open(directory.path()).unwrap())).unwrap();
        let append = store.transact(|books| {
            for number in 1..=ROWS {
                for account in [0, 1, 2] {
                    books.audit(&row(account, number))?;
                }
            }
            Ok(())
        });
        append.await.unwrap();
        let forger = Connection::open(file).unwrap();
        forger.execute_batch("PRAGMA synchronous = OFF; CREATE TABLE saved AS SELECT * FROM audit; CREATE TABLE saved_heads AS SELECT * FROM chain_heads").unwrap();
        Self { store, forger, _directory: directory }
    }

    /// What two threads find; one finds the same.
    fn verdict(&self, checkpoints: &[Checkpoint]) -> Verdict {
        verify_store(&self.store, checkpoints).unwrap()
    }

    /// The only bad row; nothing if there is none.
    fn bad(&self, checkpoints: &[Checkpoint]) -> Option<(i64, i64, What)> {
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

    fn forge(&self, sql: &str) {
        self.forger.execute_batch(sql).unwrap();
    }

    fn restore(&self) {
        self.forge("DELETE FROM audit; INSERT INTO audit SELECT * FROM saved; DELETE FROM chain_heads; INSERT INTO chain_heads SELECT * FROM saved_heads");
    }

    fn hash_at(&self, stream: i64, seq: i64) -> [u8; 32] {
        let query = "SELECT chain_hash FROM audit WHERE stream = ?1 AND seq = ?2";
        self.forger.query_row(query, [stream, seq], |row| row.get(0)).unwrap()
    }

    fn checkpoint(&self, stream: i64, size: i64) -> Checkpoint {
        Checkpoint { stream, size, head: self.hash_at(stream, size), at: row(1, 1).at }
    }

    /// Computes the chain of a stream anew from a row on, head included: by the documented encoding, not by the code under test.
    fn rehash(&self, stream: i64, from: i64) {
        let mut previous = if from == 1 { [0; 32] } else { self.hash_at(stream, from - 1) };
        let last: i64 =
            self.forger.query_row("SELECT MAX(seq) FROM audit WHERE stream = ?1", [stream], |row| row.get(0)).unwrap();
        for seq in from..=last {
            let query = format!("SELECT {} FROM audit WHERE stream = ?1 AND seq = ?2", COLUMNS.join(", "));
            let encoded = self.forger.query_row(&query, [stream, seq], |row| {
                let cells = (0..COLUMNS.len()).map(|column| row.get::<_, Value>(column));
                cells.map(|cell| Ok(encode(&cell?))).collect::<rusqlite::Result<Vec<_>>>()
            });
            previous = Sha256::new().chain_update(previous).chain_update(encoded.unwrap().concat()).finalize().into();
            let update = "UPDATE audit SET chain_hash = ?3 WHERE stream = ?1 AND seq = ?2";
            self.forger.execute(update, (stream, seq, previous)).unwrap();
        }
        let update = "UPDATE chain_heads SET seq = ?2, chain_hash = ?3 WHERE stream = ?1";
        self.forger.execute(update, (stream, last, previous)).unwrap();
    }
}

fn encode(cell: &Value) -> Vec<u8> {
    let bytes = match cell {
        Value::Null => return u32::MAX.to_be_bytes().to_vec(),
        Value::Integer(value) => value.to_be_bytes().to_vec(),
        Value::Text(text) => text.as_bytes().to_vec(),
        Value::Blob(_) | Value::Real(_) => panic!("no column holds {cell:?}"),
    };
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat()
}

/// Every other value that a cell could be given by changing one byte of it.
fn changed(cell: &Value) -> Vec<Value> {
    let flip = |bytes: &[u8], at: usize, bit: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= bit;
        bytes
    };
    match cell {
        Value::Null => vec![Value::Text(String::new()), Value::Integer(0), Value::Blob(Vec::new())],
        #[expect(clippy::cast_precision_loss, reason = "any float will do")]
        Value::Integer(value) => (0..8)
            .map(|byte| Value::Integer(value ^ (1 << (8 * byte))))
            .chain([Value::Null, Value::Text(format!("x{value}")), Value::Real(*value as f64 + 0.5)])
            .collect(),
        // A blob stands for a text with a byte that no text has.
        Value::Text(text) => (0..text.len())
            .map(|at| Value::Blob(flip(text.as_bytes(), at, if at % 2 == 0 { 0x01 } else { 0x80 })))
            .chain([Value::Null, Value::Blob(text.as_bytes().to_vec())])
            .collect(),
        Value::Blob(bytes) => (0..bytes.len())
            .map(|at| Value::Blob(flip(bytes, at, 0x40)))
            .chain([Value::Null, Value::Blob(bytes[1..].to_vec())])
            .collect(),
        Value::Real(_) => panic!("no column holds {cell:?}"),
    }
}

#[tokio::test]
async fn every_changed_byte_of_every_column_names_its_row() {
    let log = Log::write().await;
    assert_eq!(log.verdict(&[]), Verdict::Whole { streams: 3, rows: 3 * ROWS.unsigned_abs() });
    let (mut tried, mut refused_by_the_table) = (0, 0);
    for (stream, seq) in [(1, 1), (1, 6), (1, ROWS), (0, 3)] {
        for column in COLUMNS.iter().chain(&["chain_hash"]) {
            let select = format!("SELECT {column}, rowid FROM audit WHERE stream = ?1 AND seq = ?2");
            let (cell, rowid): (Value, i64) =
                log.forger.query_row(&select, [stream, seq], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            for value in changed(&cell) {
                // Both as a text and as the blob it is.
                for as_text in [true, false] {
                    let cast = if as_text && matches!(cell, Value::Text(_)) { "CAST(?1 AS TEXT)" } else { "?1" };
                    let update = format!("UPDATE audit SET {column} = {cast} WHERE rowid = ?2");
                    if as_text && value == Value::Blob(text_of(&cell)) {
                        continue;
                    }
                    if log.forger.execute(&update, (&value, rowid)).is_err() {
                        refused_by_the_table += 1;
                        continue;
                    }
                    tried += 1;
                    let Verdict::Broken(bad) = log.verdict(&[]) else { panic!("{column} of {stream}/{seq} as {value:?}") };
                    // Where it stands now, it does not belong; further on, it is missed first.
                    let moved = if let ("seq", Value::Integer(to)) = (*column, &value) { seq.min(*to) } else { seq };
                    let named = bad.iter().any(|bad| bad.stream == stream && (bad.seq == seq || bad.seq == moved));
                    assert!(named, "{column} of {stream}/{seq} as {value:?}: {bad:?}");
                    log.forger.execute(&format!("UPDATE audit SET {column} = ?1 WHERE rowid = ?2"), (&cell, rowid)).unwrap();
                }
            }
        }
        assert_eq!(log.bad(&[]), None, "{stream}/{seq} was put back");
    }
    assert!(tried > 1000 && refused_by_the_table < tried / 4, "{tried} tried, {refused_by_the_table} refused");
}

fn text_of(cell: &Value) -> Vec<u8> {
    if let Value::Text(text) = cell { text.as_bytes().to_vec() } else { vec![0xff] }
}

/// Two rows of a stream at each other's places in the table.
fn swap_places(one: i64, other: i64) -> String {
    let place = |seq| format!("(SELECT id FROM saved WHERE stream = 1 AND seq = {seq})");
    let put = |seq, place: &str| format!("UPDATE audit SET id = {place} WHERE stream = 1 AND seq = {seq};");
    [put(one, "-1"), put(other, &place(one)), put(one, &place(other))].concat()
}

#[tokio::test]
async fn rows_removed_inserted_swapped_or_moved_are_found() {
    let log = Log::write().await;
    let all = COLUMNS[2..].join(", ");
    let swap = |one: i64, other: i64| {
        format!(
            "UPDATE audit SET seq = -1 WHERE stream = 1 AND seq = {one}; UPDATE audit SET seq = {one} WHERE stream = 1 AND seq = {other};
             UPDATE audit SET seq = {other} WHERE stream = 1 AND seq = -1"
        )
    };
    let insert = format!(
        "UPDATE audit SET seq = -seq - 1 WHERE stream = 1 AND seq >= 5; UPDATE audit SET seq = -seq WHERE seq < 0;
         INSERT INTO audit (stream, seq, {all}, chain_hash) SELECT stream, 5, {all}, chain_hash FROM audit WHERE stream = 1 AND seq = 2"
    );
    for (forgery, seq, what) in [
        ("DELETE FROM audit WHERE stream = 1 AND seq = 1".to_owned(), 1, What::Missing),
        ("DELETE FROM audit WHERE stream = 1 AND seq = 7".to_owned(), 7, What::Missing),
        ("DELETE FROM audit WHERE stream = 1 AND seq > 9".to_owned(), 10, What::Missing),
        ("DELETE FROM audit WHERE stream = 1".to_owned(), 1, What::Missing),
        (insert, 5, What::Changed),
        (swap(4, 9), 4, What::Changed),
        (swap(11, 12), 11, What::Changed),
        ("UPDATE chain_heads SET seq = 11 WHERE stream = 1".to_owned(), 11, What::HeadDiffers),
        ("UPDATE chain_heads SET chain_hash = zeroblob(32) WHERE stream = 1".to_owned(), 12, What::HeadDiffers),
        ("DELETE FROM chain_heads WHERE stream = 1".to_owned(), 1, What::PastHead),
        ("UPDATE chain_heads SET seq = 13 WHERE stream = 1".to_owned(), 13, What::Missing),
    ] {
        log.forge(&forgery);
        assert_eq!(log.bad(&[]), Some((1, seq, what)), "{forgery}");
        log.restore();
        assert_eq!(log.bad(&[]), None);
    }
    // A row that was taken from another stream is missing there and too much here.
    log.forge("UPDATE audit SET stream = 9 WHERE stream = 1 AND seq = 3");
    let Verdict::Broken(bad) = log.verdict(&[]) else { panic!("a row moved between streams") };
    assert_eq!(bad, [BadRow { stream: 1, seq: 3, what: What::Missing }, BadRow { stream: 9, seq: 1, what: What::Missing }]);
    log.restore();
    // Whole as it is, a row at another's place would be looked for in vain.
    log.forge(&swap_places(4, 9));
    assert_eq!(log.bad(&[]), Some((1, 5, What::Displaced)));
    log.restore();
    // Behind the last number there is none.
    log.forge(&format!("UPDATE audit SET seq = {} WHERE stream = 1 AND seq > 10", i64::MAX));
    assert_eq!(log.bad(&[]), Some((1, 11, What::Missing)));
}

/// Rows that a search by a stream's sequence might pass by.
#[tokio::test]
async fn rows_before_the_first_place_or_without_an_index_entry_are_found() {
    let log = Log::write().await;
    let all = COLUMNS[1..].join(", ");
    let again = |place: i64| {
        format!(
            "INSERT INTO audit (id, stream, {all}, chain_hash) SELECT {place}, stream, {all}, chain_hash FROM saved WHERE stream = 2 AND seq = 3;"
        )
    };
    // An honest row stands in a block before it, which alone is nothing.
    for honest in [-1025, -3000, -4096, i64::MIN + 1] {
        let moved = format!("UPDATE audit SET id = {honest} WHERE stream = 1 AND seq = 1;");
        log.forge(&moved);
        assert_eq!(log.bad(&[]), None, "{honest}");
        for place in [-1, -1023, -1024, -1500, -2047, -2048] {
            log.forge(&again(place));
            assert_eq!(log.bad(&[]), Some((2, 3, What::Displaced)), "{honest}, {place}");
            log.forge(&format!("DELETE FROM audit WHERE id = {place}"));
        }
        log.restore();
    }
    // While the index is not known, a row gets no entry.
    let reread = |version: i64| format!("PRAGMA schema_version = {version}; PRAGMA writable_schema = RESET;");
    let version: i64 = log.forger.query_row("PRAGMA schema_version", [], |row| row.get(0)).unwrap();
    let hidden = "CREATE TABLE hidden AS SELECT * FROM sqlite_schema WHERE name = 'audit_blocks'; PRAGMA writable_schema = ON;
                  DELETE FROM sqlite_schema WHERE name = 'audit_blocks';";
    log.forge(&format!("{hidden}{}{}", reread(version + 10), again(5000)));
    let shown = "PRAGMA writable_schema = ON; INSERT INTO sqlite_schema SELECT * FROM hidden;";
    log.forge(&format!("{shown}{}", reread(version + 20)));
    let led = "SELECT COUNT(*) FROM audit INDEXED BY audit_blocks WHERE id / 1024 = 4 AND stream = 2";
    assert_eq!(log.forger.query_row(led, [], |row| row.get::<_, i64>(0)).unwrap(), 0, "the index does not lead there");
    assert_eq!(log.bad(&[]), Some((2, 3, What::Unexpected)));
}

#[tokio::test]
async fn a_cut_tail_and_a_rewritten_log_are_found_by_checkpoints_alone() {
    let log = Log::write().await;
    let checkpoints: Vec<Checkpoint> = [4, 8, ROWS].map(|size| log.checkpoint(1, size)).into();
    assert_eq!(log.bad(&checkpoints), None);

    log.forge("DELETE FROM audit WHERE stream = 1 AND seq > 9");
    log.rehash(1, 9);
    assert_eq!(log.bad(&[]), None, "a chain alone does not show a cut tail");
    assert_eq!(log.bad(&checkpoints), Some((1, 10, What::Missing)));
    log.restore();

    for (changed, from, until) in [(1, 1, 4), (6, 5, 8), (8, 5, 8), (9, 9, ROWS), (ROWS, 9, ROWS)] {
        log.forge(&format!("UPDATE audit SET status = 404 WHERE stream = 1 AND seq = {changed}"));
        assert_eq!(log.bad(&[]), Some((1, changed, What::Changed)));
        log.rehash(1, changed);
        assert_eq!(log.bad(&[]), None, "a chain alone does not show a full rewrite");
        assert_eq!(log.bad(&checkpoints), Some((1, from, What::Rewritten { until })), "row {changed}");
        log.restore();
    }
    let whole_stream = "DELETE FROM audit WHERE stream = 1; DELETE FROM chain_heads WHERE stream = 1";
    log.forge(whole_stream);
    assert!(matches!(log.verdict(&[]), Verdict::Whole { streams: 2, .. }));
    assert_eq!(log.bad(&checkpoints), Some((1, 1, What::Missing)));
}

/// Where two threads meet.
#[tokio::test]
async fn a_long_stream_is_joined_where_its_halves_meet() {
    let log = Log::write().await;
    let append = log.store.transact(|books| (ROWS + 1..=9000).try_for_each(|number| books.audit(&row(1, number))));
    append.await.unwrap();
    log.forge("DROP TABLE saved; CREATE TABLE saved AS SELECT * FROM audit; DROP TABLE saved_heads; CREATE TABLE saved_heads AS SELECT * FROM chain_heads");
    assert_eq!(log.verdict(&[]), Verdict::Whole { streams: 3, rows: 9000 + 2 * ROWS.unsigned_abs() });
    let middle: i64 = log.forger.query_row("SELECT (MIN(id) + MAX(id)) / 2 FROM audit", [], |row| row.get(0)).unwrap();
    let last: i64 =
        log.forger.query_row("SELECT seq FROM audit WHERE id = ?1 AND stream = 1", [middle], |row| row.get(0)).unwrap();
    assert_eq!(last, 4488, "the last of the first half");
    let checkpoints = [4488, 4489, 8500].map(|size| log.checkpoint(1, size));
    let (within, across) = (swap_places(4487, 4488), swap_places(4488, 4489));
    for (forgery, seq, what) in [
        (&*within, 4488, What::Displaced),
        (&*across, 4489, What::Displaced),
        ("UPDATE audit SET status = 1 WHERE stream = 1 AND seq = 4488", 4488, What::Changed),
        ("UPDATE audit SET status = 1 WHERE stream = 1 AND seq = 4489", 4489, What::Changed),
        ("UPDATE audit SET status = 1 WHERE stream = 1 AND seq = 8192", 8192, What::Changed),
        ("UPDATE audit SET chain_hash = zeroblob(32) WHERE stream = 1 AND seq = 4488", 4488, What::Changed),
        ("DELETE FROM audit WHERE stream = 1 AND seq = 4488", 4488, What::Missing),
        ("DELETE FROM audit WHERE stream = 1 AND seq = 4489", 4489, What::Missing),
        ("DELETE FROM audit WHERE stream = 1 AND seq >= 4489 AND seq < 8192", 4489, What::Missing),
        ("DELETE FROM audit WHERE stream = 1 AND seq >= 8192", 8192, What::Missing),
        ("DELETE FROM audit WHERE stream = 1 AND seq < 4489", 1, What::Missing),
    ] {
        log.forge(forgery);
        assert_eq!(log.bad(&[]), Some((1, seq, what)), "{forgery}");
        let single = log.store.read(|books| verify_against(books, &checkpoints)).unwrap();
        assert_eq!(single, log.verdict(&checkpoints), "{forgery}");
        log.restore();
    }
    log.forge("UPDATE audit SET status = 1 WHERE stream = 1 AND seq = 4489");
    log.rehash(1, 4489);
    assert_eq!(log.bad(&[]), None);
    assert_eq!(log.bad(&checkpoints), Some((1, 4489, What::Rewritten { until: 4489 })));
}

/// What a server writes while it runs and when it stops.
#[tokio::test]
async fn a_server_signs_what_it_answered_and_a_cut_tail_shows() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(FOLDER).join("test.notes");
    let options = Options { per_ip_per_minute: 0, checkpoints: Some(file.clone()), ..Options::default() };
    let mut house = House::start_with(options).await;
    let account = house.reseller("10.00").await;
    let key = house.kernelhost_key(account, KeyTraits::default()).await;
    for _ in 0..1001 {
        assert_eq!(key.get("/v1/me").await.status, 200);
    }
    let verifiers = Verifier::all(house.store.vault());
    let read = || {
        let mut notes = Notes::default();
        for file in files(folder.path()).unwrap() {
            notes.read_file(&file, &verifiers).unwrap();
        }
        notes
    };
    while read().notes == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(key.get("/v1/me").await.status, 200);
    house.stop().await;
    let notes = read();
    assert_eq!(
        (notes.torn, notes.refused.len(), notes.checkpoints.last().unwrap().size),
        (0, 0, 1002),
        "stopping signs the last row"
    );
    assert!(notes.checkpoints.iter().any(|point| point.size < 1002), "and some before");
    assert!(matches!(house.store.read(|books| verify_against(books, &notes.checkpoints)).unwrap(), Verdict::Whole { .. }));

    let book = Connection::open(house.directory().join("provisor.db")).unwrap();
    book.execute("DELETE FROM audit WHERE seq > 1000", []).unwrap();
    let cut = "UPDATE chain_heads SET seq = 1000, chain_hash = (SELECT chain_hash FROM audit WHERE seq = 1000)";
    book.execute(cut, []).unwrap();
    assert!(matches!(house.store.read(verify).unwrap(), Verdict::Whole { rows: 1000, .. }));
    let stream = account.0;
    let verdict = house.store.read(|books| verify_against(books, &notes.checkpoints)).unwrap();
    assert_eq!(verdict, Verdict::Broken(vec![BadRow { stream, seq: 1001, what: What::Missing }]));
    assert!(PathBuf::from(&file).exists());
}

/// Rows that come while the log is verified are no fault of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_grows_meanwhile_is_whole() {
    let log = Log::write().await;
    let store = log.store.clone();
    let writer = tokio::spawn(async move {
        for number in 1..=300 {
            store.transact(move |books| books.audit(&row(number % 4, number))).await.unwrap();
        }
    });
    let mut verified = 0;
    while !writer.is_finished() {
        assert!(matches!(log.verdict(&[]), Verdict::Whole { .. }), "{:?}", log.verdict(&[]));
        verified += 1;
    }
    writer.await.unwrap();
    assert!(verified > 0);
}

/// Old rows go into a file that can be verified, and the chains go on from there.
#[tokio::test]
async fn an_archive_takes_old_rows_out_and_stays_verifiable() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let key = binary::key(&data, &binary::reseller(&data, "100.00"));
    let server = binary::serve(&data);
    for _ in 0..5 {
        assert_eq!(key.at(&server).get("/v1/me").await.status, 200);
    }
    server.stop();
    let middle = Timestamp::now().to_string();
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let server = binary::serve(&data);
    assert_eq!(key.at(&server).get("/v1/me").await.status, 200);
    let file = directory.path().join("old.jsonl");
    let name = file.to_str().unwrap();
    let archived = binary::run(&data, &["audit", "archive", "--before", &middle, "--out", name]);
    // The key's making, and the five.
    assert_eq!((&archived["rows"], &archived["streams"]), (&json!(6), &json!(1)));
    assert_eq!(key.at(&server).get("/v1/me").await.status, 200);
    let whole = binary::run(&data, &["audit", "verify"]);
    assert_eq!((&whole["ok"], &whole["rows"]), (&json!(true), &json!(2)));
    assert!(whole["checkpoints"].as_i64().unwrap() > 0, "older ones harm nothing");
    assert_eq!(binary::run(&data, &["audit", "verify-archive", name])["rows"], 6);
    // Nothing is old any more.
    let again = directory.path().join("again.jsonl");
    let again = binary::run(&data, &["audit", "archive", "--before", &middle, "--out", again.to_str().unwrap()]);
    assert_eq!(again["rows"], 0);
    server.stop();

    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let swapped = [lines[0], lines[1], lines[3], lines[2], lines[4], lines[5]].join("\n") + "\n";
    let cut = lines[..5].join("\n") + "\n";
    for (forged, seq) in [
        (text.replacen("\"status\":200", "\"status\":404", 2), 1),
        (text.replace("\"seq\":4,", "\"seq\":5,"), 4),
        (swapped, 3),
        (cut, 6),
    ] {
        std::fs::write(&file, forged).unwrap();
        let output = binary::provisor(&data).args(["audit", "verify-archive", name]).output().unwrap();
        let bad: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), &bad["seq"]), (Some(1), &json!(seq)), "{bad}");
    }
    std::fs::write(&file, text).unwrap();
    let note = directory.path().join("old.jsonl.note");
    std::fs::write(&note, std::fs::read_to_string(&note).unwrap().replacen(" 6 ", " 5 ", 1)).unwrap();
    let output = binary::provisor(&data).args(["audit", "verify-archive", name]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "the note was changed");
}

/// A `provisor audit tail` that runs.
struct Tail {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Tail {
    fn start(house: &House, arguments: &[&str]) -> Self {
        let mut command = binary::provisor(house.directory());
        let mut process = command.args(["audit", "tail"]).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// Stream and path of the next rows.
    fn next(&mut self, count: usize) -> Vec<(i64, String)> {
        let read = |line: std::io::Result<String>| {
            let row: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
            (row["stream"].as_i64().unwrap(), row["path"].as_str().unwrap().to_owned())
        };
        self.lines.by_ref().take(count).map(read).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_shows_the_last_rows_of_all_and_then_what_comes() {
    let house = House::start().await;
    let mut keys = Vec::new();
    for _ in 0..2 {
        let account = house.reseller("10.00").await;
        keys.push((account, house.kernelhost_key(account, KeyTraits::default()).await));
    }
    let [(one, one_key), (other, other_key)] = &keys[..] else { panic!("two keys") };
    for (key, path) in [(one_key, "/v1/me"), (other_key, "/v1/products"), (one_key, "/v1/services")] {
        assert_eq!(key.get(path).await.status, 200);
    }
    let row = |account: &AccountId, path: &str| (account.0, path.to_owned());
    let mut last = Tail::start(&house, &["--last", "2"]);
    assert_eq!(last.next(9), [row(other, "/v1/products"), row(one, "/v1/services")]);
    assert!(last.process.wait().unwrap().success());
    let mut last = Tail::start(&house, &["--last", "1", "--stream", &other.0.to_string()]);
    assert_eq!(last.next(9), [row(other, "/v1/products")]);
    assert!(last.process.wait().unwrap().success());

    let mut all = Tail::start(&house, &["--last", "1", "--follow"]);
    let mut ones = Tail::start(&house, &["--last", "1", "--follow", "--stream", &one.0.to_string()]);
    assert_eq!(all.next(1), [row(one, "/v1/services")]);
    assert_eq!(ones.next(1), [row(one, "/v1/services")]);
    let mut expected = Vec::new();
    for number in 1..=3 {
        let path = format!("/v1/orders/{number}");
        other_key.get(&path).await;
        one_key.get(&path).await;
        expected.extend([row(other, &path), row(one, &path)]);
    }
    // Each stream's in their order; of rows of one millisecond either may come first.
    let mut seen = all.next(6);
    for rows in [&mut seen, &mut expected] {
        rows.sort_by_key(|(stream, _)| *stream);
    }
    assert_eq!(seen, expected);
    expected.retain(|(stream, _)| *stream == one.0);
    assert_eq!(ones.next(3), expected);

    // Whoever reads no more ends it.
    drop((all.lines, ones.lines));
    for mut process in [all.process, ones.process] {
        one_key.get("/v1/me").await;
        let ended = tokio::task::spawn_blocking(move || process.wait().unwrap());
        assert!(ended.await.unwrap().success());
    }
}
