//! Answers recorded under idempotency keys.

use jiff::Timestamp;
use provisor_providers::books::{Fault, IdempotencyScope, Recorded};
use provisor_providers::message::{Headers, Response};

use super::sql::Sql;

pub(super) fn find(sql: &mut dyn Sql, scope: &IdempotencyScope<'_>, now: Timestamp) -> Result<Option<Recorded>, Fault> {
    let row = sql.first(
        "SELECT body_sha256, status, headers, body, unfinished_order, at, expires_at FROM idempotency
         WHERE key_id = $1 AND method = $2 AND path = $3 AND idempotency_key = $4 AND expires_at > $5",
        &[scope.key.0.into(), scope.method.into(), scope.path.into(), scope.idempotency_key.into(), now.into()],
    )?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Recorded {
        body_sha256: row.array(0)?,
        response: Response { status: row.number(1)?, headers: read_headers(&row.text(2)?), body: row.bytes(3)? },
        unfinished_order: row.opt_int(4)?,
        at: row.time(5)?,
        expires_at: row.time(6)?,
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
