//! What is to be told to resellers, written in the transaction of what it tells of.

use provisor_providers::books::{Fault, Mail, NewEvent};

use super::sql::Sql;

pub(super) fn add_event(sql: &mut dyn Sql, account: i64, event: &NewEvent<'_>) -> Result<(), Fault> {
    sql.execute(
        "INSERT INTO deliveries (key_id, account_id, event_id, kind, body, created_at, attempts, next_at, fence)
         SELECT key_id, account_id, $1, $2, $3, CAST($4 AS BIGINT), 0, CAST($4 AS BIGINT), 0 FROM webhooks
         WHERE account_id = $5 AND disabled_at IS NULL AND (events = '' OR ' ' || events || ' ' LIKE '% ' || $2 || ' %')
           AND key_id IN (SELECT id FROM api_keys WHERE account_id = $5 AND revoked_at IS NULL)",
        &[event.id.into(), event.kind.into(), event.body.into(), event.at.into(), account.into()],
    )?;
    Ok(())
}

pub(super) fn queue_mail(sql: &mut dyn Sql, account: i64, mail: &Mail) -> Result<(), Fault> {
    sql.execute(
        "INSERT INTO mails (account_id, kind, subject, body, created_at, attempts, next_at, fence)
         VALUES ($1, $2, $3, $4, $5, 0, $5, 0)",
        &[account.into(), (&mail.kind).into(), (&mail.subject).into(), (&mail.body).into(), mail.at.into()],
    )?;
    Ok(())
}
