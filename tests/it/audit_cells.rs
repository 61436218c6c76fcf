//! The audit log as a file of SQLite's, in which any cell can hold anything, and an index can be led around.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use provisor::audit::{Verdict, What};
use provisor_tests::book::Engine;
use provisor_tests::forger::{COLUMNS, Log, ROWS};
use rusqlite::Connection;
use rusqlite::types::Value;

/// A log, and somebody who can write the file.
async fn log() -> (Log, Connection) {
    let log = Log::write(Engine::Sqlite).await;
    let forger = Connection::open(log.book.file()).unwrap();
    forger.execute_batch("PRAGMA synchronous = OFF").unwrap();
    // The table takes what is of its columns' types alone: that goes first.
    let version: i64 = forger.query_row("PRAGMA schema_version", [], |row| row.get(0)).unwrap();
    let loosen = "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, ' STRICT', '') WHERE name = 'audit';";
    forger.execute_batch(&format!("{loosen} PRAGMA schema_version = {}; PRAGMA writable_schema = RESET", version + 1)).unwrap();
    (log, forger)
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
    let (log, forger) = log().await;
    assert_eq!(log.verdict(&[]), Verdict::Whole { streams: 3, rows: 3 * ROWS.unsigned_abs() });
    let (mut tried, mut refused_by_the_table) = (0, 0);
    for (stream, seq) in [(1, 1), (1, 6), (1, ROWS), (0, 3)] {
        for column in COLUMNS.iter().chain(&["chain_hash"]) {
            let select = format!("SELECT {column}, rowid FROM audit WHERE stream = ?1 AND seq = ?2");
            let (cell, rowid): (Value, i64) =
                forger.query_row(&select, [stream, seq], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            for value in changed(&cell) {
                // Both as a text and as the blob it is.
                for as_text in [true, false] {
                    let cast = if as_text && matches!(cell, Value::Text(_)) { "CAST(?1 AS TEXT)" } else { "?1" };
                    let update = format!("UPDATE audit SET {column} = {cast} WHERE rowid = ?2");
                    if as_text && value == Value::Blob(text_of(&cell)) {
                        continue;
                    }
                    if forger.execute(&update, (&value, rowid)).is_err() {
                        refused_by_the_table += 1;
                        continue;
                    }
                    tried += 1;
                    let Verdict::Broken(bad) = log.verdict(&[]) else { panic!("{column} of {stream}/{seq} as {value:?}") };
                    // Where it stands now, it does not belong; further on, it is missed first.
                    let moved = if let ("seq", Value::Integer(to)) = (*column, &value) { seq.min(*to) } else { seq };
                    let named = bad.iter().any(|bad| bad.stream == stream && (bad.seq == seq || bad.seq == moved));
                    assert!(named, "{column} of {stream}/{seq} as {value:?}: {bad:?}");
                    forger.execute(&format!("UPDATE audit SET {column} = ?1 WHERE rowid = ?2"), (&cell, rowid)).unwrap();
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

/// Rows that a search by a stream's sequence might pass by.
#[tokio::test]
async fn rows_before_the_first_place_or_without_an_index_entry_are_found() {
    let (log, forger) = log().await;
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
    let version: i64 = forger.query_row("PRAGMA schema_version", [], |row| row.get(0)).unwrap();
    let hidden = "CREATE TABLE hidden AS SELECT * FROM sqlite_schema WHERE name = 'audit_blocks'; PRAGMA writable_schema = ON;
                  DELETE FROM sqlite_schema WHERE name = 'audit_blocks';";
    log.forge(&format!("{hidden}{}{}", reread(version + 10), again(5000)));
    let shown = "PRAGMA writable_schema = ON; INSERT INTO sqlite_schema SELECT * FROM hidden;";
    log.forge(&format!("{shown}{}", reread(version + 20)));
    let led = "SELECT COUNT(*) FROM audit INDEXED BY audit_blocks WHERE id / 1024 = 4 AND stream = 2";
    assert_eq!(forger.query_row(led, [], |row| row.get::<_, i64>(0)).unwrap(), 0, "the index does not lead there");
    assert_eq!(log.bad(&[]), Some((2, 3, What::Unexpected)));
}

/// PostgreSQL's index refuses two rows at one number.
#[tokio::test]
async fn two_rows_at_the_last_number_of_all_are_found() {
    let (log, _) = log().await;
    log.forge(&format!("UPDATE audit SET seq = {} WHERE stream = 1 AND seq > 10", i64::MAX));
    assert_eq!(log.bad(&[]), Some((1, 11, What::Missing)));
}
