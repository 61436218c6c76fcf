//! Where events are sent: one webhook per key, its secrets sealed.

use jiff::Timestamp;
use provisor_providers::books::{AccountId, Fault, KeyRow, LastDelivery, NewWebhook, Webhook};
use secrecy::SecretString;

use super::sql::{Row, Sql};
use super::{Transaction, deliveries};
use crate::vault::{Place, Vault};

pub(super) fn find(sql: &mut dyn Sql, vault: &Vault, account: i64, key: KeyRow) -> Result<Option<Webhook>, Fault> {
    let row = sql.first(
        "SELECT w.url, w.events, w.sealed_secret, w.disabled_at,
                d.event_id, d.kind, d.last_attempt_at, d.attempts, d.delivered_at, d.last_status
         FROM webhooks w LEFT JOIN deliveries d ON d.id = w.last_delivery_id WHERE w.key_id = $1 AND w.account_id = $2",
        &[key.0.into(), account.into()],
    )?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Webhook {
        url: row.text(0)?,
        events: split(&row.text(1)?),
        secret: open(vault, key, Column::Current, &row.bytes(2)?)?,
        disabled_at: row.opt_time(3)?,
        last_delivery: last_delivery(&row)?,
    }))
}

fn last_delivery(row: &Row) -> Result<Option<LastDelivery>, Fault> {
    let (Some(event_id), Some(at)) = (row.opt_text(4)?, row.opt_time(6)?) else { return Ok(None) };
    Ok(Some(LastDelivery {
        event_id,
        kind: row.text(5)?,
        at,
        attempts: row.number(7)?,
        is_delivered: row.opt_int(8)?.is_some(),
        status: status(row, 9)?,
    }))
}

pub(super) fn set(sql: &mut dyn Sql, vault: &Vault, account: i64, key: KeyRow, new: &NewWebhook<'_>) -> Result<(), Fault> {
    // What is on its way to another address does not count, whatever that answers: it is sent to this one. Not before its lease ends,
    // so that there are never more at a time for one webhook than it may have, however often it moves.
    sql.execute(
        "UPDATE deliveries SET fence = fence + 1
         WHERE key_id = $1 AND next_at IS NOT NULL AND leased_until IS NOT NULL
           AND EXISTS (SELECT 1 FROM webhooks w WHERE w.key_id = $1 AND w.account_id = $2 AND w.url <> $3)",
        &[key.0.into(), account.into(), new.url.into()],
    )?;
    let events = new.events.join(" ");
    let changed = sql.execute(
        "UPDATE webhooks SET url = $1, events = $2, failing_since = NULL, disabled_at = NULL
         WHERE key_id = $3 AND account_id = $4",
        &[new.url.into(), (&events).into(), key.0.into(), account.into()],
    )?;
    let Some(secret) = new.secret else {
        return if changed == 1 { Ok(()) } else { Err(Fault("a webhook needs a secret".to_owned())) };
    };
    let sealed = seal(vault, key, Column::Current, secret)?;
    if changed == 0 {
        sql.execute(
            "INSERT INTO webhooks (key_id, account_id, url, events, sealed_secret, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
            &[key.0.into(), account.into(), new.url.into(), (&events).into(), sealed.as_slice().into(), new.at.into()],
        )?;
        return Ok(());
    }
    let row = sql.first("SELECT sealed_secret FROM webhooks WHERE key_id = $1", &[key.0.into()])?;
    let before = row.ok_or_else(|| Fault("the webhook is gone".to_owned()))?.bytes(0)?;
    // Sealed again: a ciphertext opens in its own column alone.
    let before = seal(vault, key, Column::Previous, &open(vault, key, Column::Current, &before)?)?;
    sql.execute(
        "UPDATE webhooks SET sealed_secret = $1, sealed_previous_secret = $2, previous_until = $3 WHERE key_id = $4",
        &[sealed.as_slice().into(), before.as_slice().into(), new.previous_until.into(), key.0.into()],
    )?;
    Ok(())
}

pub(super) fn unset(sql: &mut dyn Sql, account: i64, key: KeyRow, now: Timestamp) -> Result<(), Fault> {
    let gone = sql.execute("DELETE FROM webhooks WHERE key_id = $1 AND account_id = $2", &[key.0.into(), account.into()])?;
    if gone == 1 { deliveries::bury(sql, key, now, i64::MAX) } else { Ok(()) }
}

/// A webhook that may be told something.
pub(super) struct Endpoint {
    pub(super) key_id: String,
    pub(super) provider: String,
    pub(super) url: String,
    /// The newest first.
    pub(super) secrets: Vec<SecretString>,
    pub(super) is_failing: bool,
}

/// `None` once it is unset or disabled, or its key revoked.
pub(super) fn endpoint(sql: &mut dyn Sql, vault: &Vault, key: KeyRow, now: Timestamp) -> Result<Option<Endpoint>, Fault> {
    let row = sql.first(
        "SELECT k.provider, w.url, w.sealed_secret, w.sealed_previous_secret, w.previous_until, w.failing_since, k.public_id
         FROM webhooks w JOIN api_keys k ON k.id = w.key_id
         WHERE w.key_id = $1 AND w.disabled_at IS NULL AND k.revoked_at IS NULL",
        &[key.0.into()],
    )?;
    let Some(row) = row else { return Ok(None) };
    let mut secrets = vec![open(vault, key, Column::Current, &row.bytes(2)?)?];
    if row.opt_time(4)?.is_some_and(|until| now < until) {
        secrets.push(open(vault, key, Column::Previous, &row.bytes(3)?)?);
    }
    let is_failing = row.opt_int(5)?.is_some();
    Ok(Some(Endpoint { key_id: row.text(6)?, provider: row.text(0)?, url: row.text(1)?, secrets, is_failing }))
}

/// A webhook as it is listed: everything but its secrets.
#[derive(Debug)]
pub struct WebhookSummary {
    /// The key's row.
    pub key: KeyRow,
    /// The key's public id.
    pub key_id: String,
    /// Whose.
    pub account: AccountId,
    /// Where events are sent.
    pub url: String,
    /// The types it listens to; empty for all.
    pub events: Vec<String>,
    /// Deliveries that are still to be made.
    pub waiting: i64,
    /// The first failure after the last success.
    pub failing_since: Option<Timestamp>,
    /// Since when nothing is sent.
    pub disabled_at: Option<Timestamp>,
}

impl Transaction<'_> {
    /// All webhooks, or one reseller's.
    pub fn webhooks(&mut self, account: Option<AccountId>) -> Result<Vec<WebhookSummary>, Fault> {
        let rows = self.sql.query(
            "SELECT w.key_id, k.public_id, w.account_id, w.url, w.events, w.failing_since, w.disabled_at,
                    (SELECT COUNT(*) FROM deliveries d WHERE d.key_id = w.key_id AND d.next_at IS NOT NULL)
             FROM webhooks w JOIN api_keys k ON k.id = w.key_id
             WHERE CAST($1 AS BIGINT) IS NULL OR w.account_id = $1 ORDER BY w.key_id",
            &[account.map(|account| account.0).into()],
        )?;
        rows.iter()
            .map(|row| {
                Ok(WebhookSummary {
                    key: KeyRow(row.int(0)?),
                    key_id: row.text(1)?,
                    account: AccountId(row.int(2)?),
                    url: row.text(3)?,
                    events: split(&row.text(4)?),
                    failing_since: row.opt_time(5)?,
                    disabled_at: row.opt_time(6)?,
                    waiting: row.int(7)?,
                })
            })
            .collect()
    }
}

/// An HTTP status, where there was an answer.
pub(super) fn status(row: &Row, column: usize) -> Result<Option<u16>, Fault> {
    row.opt_int(column)?.map(|_| row.number(column)).transpose()
}

#[derive(Clone, Copy)]
enum Column {
    Current,
    Previous,
}

fn seal(vault: &Vault, key: KeyRow, column: Column, secret: &SecretString) -> Result<Vec<u8>, Fault> {
    vault.seal(place(&key.0.to_string(), column), secret).map_err(|error| Fault(error.to_string()))
}

fn open(vault: &Vault, key: KeyRow, column: Column, sealed: &[u8]) -> Result<SecretString, Fault> {
    vault.open_value(place(&key.0.to_string(), column), sealed).map_err(|error| Fault(error.to_string()))
}

fn place(row: &str, column: Column) -> Place<'_> {
    let column = match column {
        Column::Current => "sealed_secret",
        Column::Previous => "sealed_previous_secret",
    };
    Place { table: "webhooks", row, column }
}

fn split(words: &str) -> Vec<String> {
    words.split_whitespace().map(str::to_owned).collect()
}
