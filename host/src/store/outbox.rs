//! What is to be told to resellers, written in the transaction of what it tells of.

use jiff::Timestamp;
use provisor_providers::books::{Fault, Mail, NewEvent};

use super::sql::Sql;

pub(super) fn add_event(sql: &mut dyn Sql, account: i64, event: &NewEvent<'_>) -> Result<(), Fault> {
    sql.execute(
        "INSERT INTO deliveries (key_id, account_id, event_id, kind, body, created_at, attempts, next_at, fence)
         SELECT key_id, account_id, $1, $2, $3, CAST($4 AS BIGINT), 0, CAST($4 AS BIGINT), 0 FROM webhooks
         WHERE account_id = $5 AND disabled_at IS NULL AND (events = '' OR ' ' || events || ' ' LIKE '% ' || $2 || ' %')
           AND EXISTS (SELECT 1 FROM api_keys k WHERE k.id = webhooks.key_id AND k.revoked_at IS NULL)",
        &[event.id.into(), event.kind.into(), event.body.into(), event.at.into(), account.into()],
    )?;
    Ok(())
}

/// To whom a mail goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Recipient<'a> {
    /// A reseller, at the address that it has when the mail is sent.
    Account(i64),
    /// The operator.
    Address(&'a str),
}

pub(super) fn queue_mail(sql: &mut dyn Sql, to: Recipient<'_>, mail: &Mail) -> Result<(), Fault> {
    let (account, address) = match to {
        Recipient::Account(id) => (Some(id), None),
        Recipient::Address(address) => (None, Some(address)),
    };
    sql.execute(
        "INSERT INTO mails (account_id, address, kind, subject, body, created_at, attempts, next_at, fence)
         VALUES ($1, $2, $3, $4, $5, $6, 0, $6, 0)",
        &[account.into(), address.into(), (&mail.kind).into(), (&mail.subject).into(), (&mail.body).into(), mail.at.into()],
    )?;
    Ok(())
}

pub(super) fn mails_since(sql: &mut dyn Sql, account: i64, kind: &str, since: Timestamp) -> Result<u64, Fault> {
    let row = sql.first(
        "SELECT COUNT(*) FROM mails WHERE account_id = $1 AND kind = $2 AND created_at > $3",
        &[account.into(), kind.into(), since.into()],
    )?;
    row.map_or(Ok(0), |row| row.number(0))
}
