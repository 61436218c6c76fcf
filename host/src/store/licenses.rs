//! Firewall licenses.

use provisor_providers::books::{AccountId, Fault, License, LicenseState};

use super::sql::Sql;

pub(super) fn licensee(sql: &mut dyn Sql, domain: &str) -> Result<Option<AccountId>, Fault> {
    let row = sql.first("SELECT account_id FROM licenses WHERE domain = $1 AND state <> 'cancelled'", &[domain.into()])?;
    row.map(|row| row.int(0).map(AccountId)).transpose()
}

pub(super) fn find(sql: &mut dyn Sql, account: i64, domain: &str) -> Result<Option<License>, Fault> {
    let row = sql.first(
        "SELECT id, domain, package, token, state, email, password_hash, due_at, created_at, renewed_at FROM licenses
         WHERE account_id = $1 AND domain = $2 AND state <> 'cancelled'",
        &[account.into(), domain.into()],
    )?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(License {
        id: row.int(0)?,
        domain: row.text(1)?,
        package: row.text(2)?,
        token: row.text(3)?,
        state: row.spelled(4, LicenseState::parse)?,
        email: row.text(5)?,
        password_hash: row.text(6)?,
        due_at: row.time(7)?,
        created_at: row.time(8)?,
        renewed_at: row.opt_time(9)?,
    }))
}

pub(super) fn add(sql: &mut dyn Sql, account: i64, license: &License) -> Result<i64, Fault> {
    sql.insert(
        "INSERT INTO licenses (account_id, domain, package, token, state, email, password_hash, due_at, created_at, renewed_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id",
        &[
            account.into(),
            (&license.domain).into(),
            (&license.package).into(),
            (&license.token).into(),
            license.state.as_str().into(),
            (&license.email).into(),
            (&license.password_hash).into(),
            license.due_at.into(),
            license.created_at.into(),
            license.renewed_at.into(),
        ],
    )
}

pub(super) fn set(sql: &mut dyn Sql, account: i64, license: &License) -> Result<(), Fault> {
    sql.execute(
        "UPDATE licenses SET package = $1, state = $2, password_hash = $3, due_at = $4, renewed_at = $5
         WHERE account_id = $6 AND id = $7",
        &[
            (&license.package).into(),
            license.state.as_str().into(),
            (&license.password_hash).into(),
            license.due_at.into(),
            license.renewed_at.into(),
            account.into(),
            license.id.into(),
        ],
    )?;
    Ok(())
}
