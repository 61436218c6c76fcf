//! Answers recorded under idempotency keys.

use jiff::Timestamp;
use provisor_providers::books::{Fault, IdempotencyScope, Recorded};
use provisor_providers::message::{Headers, Response};

use super::sql::{Dialect, Sql, Value, unlogged};

/// A record whose time is over is none. With one writer its memory knows in which row a record is, and the book has the log of them;
/// between several a unique index does.
pub(super) fn find(sql: &mut dyn Sql, scope: &IdempotencyScope<'_>, now: Timestamp) -> Result<Option<Recorded>, Fault> {
    let [key, method, path, name] = named(scope);
    let row = match sql.dialect() {
        Dialect::Sqlite => {
            let Some(id) = sql.logs().ok_or_else(unlogged)?.record(scope) else { return Ok(None) };
            sql.first(
                "SELECT body_sha256, status, headers, body, unfinished_order, at, expires_at FROM idempotency
                 WHERE id = $1 AND key_id = $2 AND method = $3 AND path = $4 AND idempotency_key = $5",
                &[id.into(), key, method, path, name],
            )?
        }
        Dialect::Postgres => sql.first(
            "SELECT body_sha256, status, headers, body, unfinished_order, at, expires_at FROM idempotency
             WHERE key_id = $1 AND method = $2 AND path = $3 AND idempotency_key = $4",
            &[key, method, path, name],
        )?,
    };
    let Some(row) = row else { return Ok(None) };
    let expires_at = row.time(6)?;
    if expires_at <= now {
        return Ok(None);
    }
    Ok(Some(Recorded {
        body_sha256: row.array(0)?,
        response: Response { status: row.number(1)?, headers: read_headers(&row.text(2)?), body: row.bytes(3)? },
        unfinished_order: row.opt_int(4)?,
        at: row.time(5)?,
        expires_at,
    }))
}

/// Adds a record, or writes the one anew that [`find`] found.
pub(super) fn record(sql: &mut dyn Sql, scope: &IdempotencyScope<'_>, recorded: &Recorded) -> Result<(), Fault> {
    let headers = write_headers(&recorded.response.headers);
    let [key, method, path, name] = named(scope);
    let [body_sha256, status, headers, body, order, at, expires_at] = [
        recorded.body_sha256.as_slice().into(),
        i64::from(recorded.response.status).into(),
        (&headers).into(),
        recorded.response.body.as_slice().into(),
        recorded.unfinished_order.into(),
        recorded.at.into(),
        recorded.expires_at.into(),
    ];
    if sql.dialect() == Dialect::Postgres {
        sql.execute(
            "INSERT INTO idempotency
               (key_id, method, path, idempotency_key, body_sha256, status, headers, body, unfinished_order, at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
             ON CONFLICT (key_id, method, path, idempotency_key) DO UPDATE SET
               body_sha256 = excluded.body_sha256, status = excluded.status, headers = excluded.headers, body = excluded.body,
               unfinished_order = excluded.unfinished_order, at = excluded.at, expires_at = excluded.expires_at",
            &[key, method, path, name, body_sha256, status, headers, body, order, at, expires_at],
        )?;
        return Ok(());
    }
    if let Some(id) = sql.logs().ok_or_else(unlogged)?.record(scope) {
        // One whose time is over stays as it is, where the sweep expects it.
        let written = sql.execute(
            "UPDATE idempotency SET body_sha256 = $1, status = $2, headers = $3, body = $4, unfinished_order = $5, at = $6,
                                    expires_at = $7
             WHERE id = $8 AND key_id = $9 AND method = $10 AND path = $11 AND idempotency_key = $12 AND expires_at > $6",
            &[body_sha256, status, headers, body, order, at, expires_at, id.into(), key, method, path, name],
        )?;
        if written == 1 {
            return Ok(());
        }
    }
    let id = next_row(sql, scope)?;
    sql.execute(
        "INSERT INTO idempotency
           (id, key_id, method, path, idempotency_key, body_sha256, status, headers, body, unfinished_order, at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        &[id.into(), key, method, path, name, body_sha256, status, headers, body, order, at, expires_at],
    )?;
    Ok(())
}

/// Where a new record goes: the end of the log. From time to time the rows that were swept are let go of.
fn next_row(sql: &mut dyn Sql, scope: &IdempotencyScope<'_>) -> Result<i64, Fault> {
    if sql.logs().ok_or_else(unlogged)?.has_swept_records(scope) {
        let oldest = sql.first("SELECT MIN(id) FROM idempotency", &[])?.map_or(Ok(None), |row| row.opt_int(0))?;
        sql.logs().ok_or_else(unlogged)?.let_go_of_records(scope, oldest.unwrap_or(i64::MAX));
    }
    Ok(sql.logs().ok_or_else(unlogged)?.add_record(scope))
}

fn named<'a>(scope: &IdempotencyScope<'a>) -> [Value<'a>; 4] {
    [scope.key.0.into(), scope.method.into(), scope.path.into(), scope.idempotency_key.into()]
}

/// One field a line. Our own headers hold neither line breaks nor bytes outside UTF-8.
fn write_headers(headers: &Headers) -> String {
    headers.iter().fold(String::new(), |text, (name, value)| text + name + ": " + &String::from_utf8_lossy(value) + "\n")
}

fn read_headers(text: &str) -> Headers {
    text.lines().filter_map(|line| line.split_once(": ")).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use jiff::SignedDuration;
    use provisor_providers::books::{Books, KeyRow};

    use super::*;
    use crate::store::Store;
    use crate::store::memory::Memory;
    use crate::store::sqlite::{Sqlite, open_writer};
    use crate::vault::Vault;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn start() -> Timestamp {
        "2027-01-15T08:00:00Z".parse().unwrap()
    }

    fn open(folder: &Path) -> Store {
        Store::open_sqlite(&folder.join("book.db"), Arc::new(Vault::open(folder).unwrap())).unwrap()
    }

    fn scope(idempotency_key: &str) -> IdempotencyScope<'_> {
        IdempotencyScope { key: KeyRow(1), method: "POST", path: "/v1/orders", idempotency_key }
    }

    fn recorded(body: &str, at: Timestamp) -> Recorded {
        let response = Response::new(201, "application/json", body);
        Recorded { body_sha256: [0; 32], response, unfinished_order: None, at, expires_at: at + HOUR * 24 }
    }

    async fn use_keys(store: &Store, name: &'static str, count: u32, now: Timestamp) {
        let used = store.transact(move |books| {
            for number in 0..count {
                let name = format!("{name}-{number}");
                assert!(books.idempotent(&scope(&name), now)?.is_none());
                books.record_idempotent(&scope(&name), &recorded("{}", now))?;
            }
            Ok(())
        });
        used.await.unwrap();
    }

    async fn found(store: &Store, name: &'static str, now: Timestamp) -> Option<String> {
        let found = store.transact(move |books| books.idempotent(&scope(name), now)).await.unwrap();
        found.map(|found| String::from_utf8(found.response.body).unwrap())
    }

    async fn count(store: &Store) -> i64 {
        let count = store.transact(|books| books.sql.first("SELECT COUNT(*) FROM idempotency", &[])?.unwrap().int(0));
        count.await.unwrap()
    }

    #[tokio::test]
    async fn keys_used_again_when_their_time_is_over_hold_up_no_sweep() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        use_keys(&store, "again", 1000, start()).await;
        use_keys(&store, "once", 10, start() + HOUR).await;
        use_keys(&store, "again", 1000, start() + HOUR * 24).await;
        store.transact(move |books| books.sweep(start() + HOUR * 25)).await.unwrap();
        assert_eq!(count(&store).await, 1000 + 10);
        store.transact(move |books| books.sweep(start() + HOUR * 25)).await.unwrap();
        assert_eq!(count(&store).await, 1000);
    }

    #[tokio::test]
    async fn a_record_is_written_anew_until_its_time_is_over_and_then_another_is_added() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        for (body, hours, rows) in [("first", 0, 1), ("second", 23, 1), ("third", 47, 2), ("fourth", 48, 2)] {
            let now = start() + HOUR * hours;
            // What was recorded first says until when.
            let at = if hours < 47 { start() + HOUR * (hours / 23) } else { start() + HOUR * 47 };
            store.transact(move |books| books.record_idempotent(&scope("name"), &recorded(body, at))).await.unwrap();
            assert_eq!((found(&store, "name", now).await.as_deref(), count(&store).await), (Some(body), rows));
        }
    }

    /// Another process on the same book, and the next one after a stop.
    #[tokio::test]
    async fn what_another_process_recorded_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (open(folder.path()), open(folder.path()));
        for (writer, reader, name) in [(&one, &other, "a"), (&other, &one, "b"), (&one, &other, "c")] {
            assert_eq!(found(reader, name, start()).await, None);
            writer.transact(move |books| books.record_idempotent(&scope(name), &recorded(name, start()))).await.unwrap();
            assert_eq!(found(reader, name, start()).await.as_deref(), Some(name));
        }
        drop((one, other));
        let next = open(folder.path());
        for name in ["a", "b", "c"] {
            assert_eq!(found(&next, name, start()).await.as_deref(), Some(name));
        }
    }

    #[tokio::test]
    async fn a_new_process_reads_the_records_without_keeping_others_from_writing() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        use_keys(&store, "a", 3, start()).await;
        let connection = open_writer(&folder.path().join("book.db")).unwrap();
        let writing = open_writer(&folder.path().join("book.db")).unwrap();
        writing.execute_batch("BEGIN IMMEDIATE").unwrap();
        let (mut memory, mut sql) = (Memory::default(), Sqlite::new(&connection));
        memory.read_ahead(&mut sql);
        assert_eq!(memory.logs.count_records(), 3);
        writing.execute_batch("ROLLBACK").unwrap();
        use_keys(&store, "b", 2, start()).await;
        memory.catch_up(&mut sql).unwrap();
        assert_eq!(memory.logs.count_records(), 5);
    }

    #[tokio::test]
    async fn what_was_swept_is_let_go_of() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        for day in 0..4 {
            let now = start() + HOUR * 25 * day;
            while store.transact(move |books| books.sweep(now)).await.unwrap() {}
            use_keys(&store, ["w", "x", "y", "z"][usize::try_from(day).unwrap()], 9000, now).await;
        }
        let held = store.transact(|books| Ok(books.sql.logs().unwrap().count_records())).await.unwrap();
        assert!(held < 2 * 9000 + 10_000, "{held}");
        assert_eq!(found(&store, "z-8999", start() + HOUR * 75).await.as_deref(), Some("{}"));
        assert_eq!(found(&store, "w-1", start() + HOUR * 75).await, None);
    }
}
