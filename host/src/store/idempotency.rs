//! Answers recorded under idempotency keys.

use jiff::Timestamp;
use provisor_providers::books::{Fault, IdempotencyScope, Recorded};
use provisor_providers::message::{Headers, Response};

use super::sql::Sql;

/// A record whose time is over is none, and goes: the next under its key stands where the sweep expects it, among the youngest.
pub(super) fn find(sql: &mut dyn Sql, scope: &IdempotencyScope<'_>, now: Timestamp) -> Result<Option<Recorded>, Fault> {
    let named = [scope.key.0.into(), scope.method.into(), scope.path.into(), scope.idempotency_key.into()];
    let row = sql.first(
        "SELECT body_sha256, status, headers, body, unfinished_order, at, expires_at FROM idempotency
         WHERE key_id = $1 AND method = $2 AND path = $3 AND idempotency_key = $4",
        &named,
    )?;
    let Some(row) = row else { return Ok(None) };
    let expires_at = row.time(6)?;
    if expires_at <= now {
        sql.execute("DELETE FROM idempotency WHERE key_id = $1 AND method = $2 AND path = $3 AND idempotency_key = $4", &named)?;
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

pub(super) fn record(sql: &mut dyn Sql, scope: &IdempotencyScope<'_>, recorded: &Recorded) -> Result<(), Fault> {
    let headers = write_headers(&recorded.response.headers);
    sql.execute(
        "INSERT INTO idempotency
           (key_id, method, path, idempotency_key, body_sha256, status, headers, body, unfinished_order, at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         ON CONFLICT (key_id, method, path, idempotency_key) DO UPDATE SET
           body_sha256 = excluded.body_sha256, status = excluded.status, headers = excluded.headers, body = excluded.body,
           unfinished_order = excluded.unfinished_order, at = excluded.at, expires_at = excluded.expires_at",
        &[
            scope.key.0.into(),
            scope.method.into(),
            scope.path.into(),
            scope.idempotency_key.into(),
            recorded.body_sha256.as_slice().into(),
            i64::from(recorded.response.status).into(),
            (&headers).into(),
            recorded.response.body.as_slice().into(),
            recorded.unfinished_order.into(),
            recorded.at.into(),
            recorded.expires_at.into(),
        ],
    )?;
    Ok(())
}

/// One field a line. Our own headers hold neither line breaks nor bytes outside UTF-8.
fn write_headers(headers: &Headers) -> String {
    headers.iter().fold(String::new(), |text, (name, value)| text + name + ": " + &String::from_utf8_lossy(value) + "\n")
}

fn read_headers(text: &str) -> Headers {
    text.lines().filter_map(|line| line.split_once(": ")).fold(Headers::new(), |headers, (name, value)| headers.with(name, value))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::SignedDuration;
    use provisor_providers::books::{Books, KeyRow};

    use super::*;
    use crate::store::Store;
    use crate::vault::Vault;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    async fn use_keys(store: &Store, name: &'static str, count: u32, now: Timestamp) {
        let used = store.transact(move |books| {
            for number in 0..count {
                let idempotency_key = &format!("{name}-{number}");
                let scope = IdempotencyScope { key: KeyRow(1), method: "POST", path: "/v1/orders", idempotency_key };
                assert!(books.idempotent(&scope, now)?.is_none());
                let response = Response::new(201, "application/json", "{}");
                let expires_at = now + HOUR * 24;
                let recorded = Recorded { body_sha256: [0; 32], response, unfinished_order: None, at: now, expires_at };
                books.record_idempotent(&scope, &recorded)?;
            }
            Ok(())
        });
        used.await.unwrap();
    }

    #[tokio::test]
    async fn keys_used_again_when_their_time_is_over_hold_up_no_sweep() {
        let directory = tempfile::tempdir().unwrap();
        let vault = Arc::new(Vault::open(directory.path()).unwrap());
        let store = Store::open_sqlite(&directory.path().join("book.db"), vault).unwrap();
        let start: Timestamp = "2027-01-15T08:00:00Z".parse().unwrap();
        use_keys(&store, "again", 1000, start).await;
        use_keys(&store, "once", 10, start + HOUR).await;
        use_keys(&store, "again", 1000, start + HOUR * 24).await;
        let left = store.transact(move |books| {
            books.sweep(start + HOUR * 25)?;
            books.sql.first("SELECT COUNT(*) FROM idempotency", &[])?.unwrap().int(0)
        });
        assert_eq!(left.await.unwrap(), 1000);
    }
}
