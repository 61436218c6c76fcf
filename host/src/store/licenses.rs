//! Firewall licenses.

use jiff::Timestamp;
use provisor_providers::books::{AccountId, Fault, License, LicenseState};

use super::Transaction;
use super::sql::{Row, Sql, Value};

const COLUMNS: &str =
    "id, domain, package, token, state, email, password_hash, due_at, created_at, renewed_at, look_at, unpaid_since";
/// The place of what stands after [`COLUMNS`].
const AFTER: usize = 12;

pub(super) fn licensee(sql: &mut dyn Sql, domain: &str) -> Result<Option<AccountId>, Fault> {
    let row = sql.first("SELECT account_id FROM licenses WHERE domain = $1 AND state <> 'cancelled'", &[domain.into()])?;
    row.map(|row| row.int(0).map(AccountId)).transpose()
}

pub(super) fn find(sql: &mut dyn Sql, account: i64, domain: &str) -> Result<Option<License>, Fault> {
    let query = format!("SELECT {COLUMNS} FROM licenses WHERE account_id = $1 AND domain = $2 AND state <> 'cancelled'");
    sql.first(&query, &[account.into(), domain.into()])?.as_ref().map(read).transpose()
}

fn read(row: &Row) -> Result<License, Fault> {
    Ok(License {
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
        look_at: row.opt_time(10)?,
        unpaid_since: row.opt_time(11)?,
    })
}

pub(super) fn add(sql: &mut dyn Sql, account: i64, license: &License) -> Result<i64, Fault> {
    sql.insert_one(
        "INSERT INTO licenses (account_id, domain, package, token, state, email, password_hash, due_at, created_at, renewed_at,
                               look_at, unpaid_since)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
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
            license.look_at.into(),
            license.unpaid_since.into(),
        ],
    )
}

pub(super) fn set(sql: &mut dyn Sql, account: i64, license: &License) -> Result<(), Fault> {
    sql.execute(
        "UPDATE licenses SET package = $1, state = $2, password_hash = $3, due_at = $4, renewed_at = $5, look_at = $6,
                             unpaid_since = $7
         WHERE account_id = $8 AND id = $9",
        &[
            (&license.package).into(),
            license.state.as_str().into(),
            (&license.password_hash).into(),
            license.due_at.into(),
            license.renewed_at.into(),
            license.look_at.into(),
            license.unpaid_since.into(),
            account.into(),
            license.id.into(),
        ],
    )?;
    Ok(())
}

pub(super) fn due(sql: &mut dyn Sql, now: Timestamp, limit: u32) -> Result<Vec<(AccountId, String)>, Fault> {
    let rows = sql.query(
        "SELECT account_id, domain FROM licenses WHERE look_at IS NOT NULL AND look_at <= $1 ORDER BY look_at, id LIMIT $2",
        &[now.into(), limit.into()],
    )?;
    rows.iter().map(|row| Ok((AccountId(row.int(0)?), row.text(1)?))).collect()
}

pub(super) fn next_due(sql: &mut dyn Sql) -> Result<Option<Timestamp>, Fault> {
    sql.first("SELECT MIN(look_at) FROM licenses WHERE look_at IS NOT NULL", &[])?.map_or(Ok(None), |row| row.opt_time(0))
}

/// Whether a reseller who pays in a currency has a live license of a package of the catalogue.
pub(super) fn is_in_use(sql: &mut dyn Sql, package: &str, currency: &str) -> Result<bool, Fault> {
    let query = "SELECT 1 FROM licenses JOIN accounts ON accounts.id = licenses.account_id
                 WHERE licenses.package = $1 AND accounts.currency = $2 AND licenses.state <> 'cancelled' LIMIT 1";
    Ok(sql.first(query, &[package.into(), currency.into()])?.is_some())
}

impl Transaction<'_> {
    /// The newest licenses of a reseller, or of all, newest first; the cancelled ones too.
    pub fn newest_licenses(&mut self, account: Option<AccountId>, limit: u32) -> Result<Vec<(AccountId, License)>, Fault> {
        let of = if account.is_some() { "WHERE account_id = $1 ORDER BY id DESC LIMIT $2" } else { "ORDER BY id DESC LIMIT $1" };
        let query = format!("SELECT {COLUMNS}, account_id FROM licenses {of}");
        let mut values: Vec<Value<'_>> = account.map(|account| account.0.into()).into_iter().collect();
        values.push(limit.into());
        self.sql.query(&query, &values)?.iter().map(owned).collect()
    }

    /// Every license that a domain has or had, newest first, at most `limit`.
    pub fn licenses_of(&mut self, domain: &str, limit: u32) -> Result<Vec<(AccountId, License)>, Fault> {
        let query = format!("SELECT {COLUMNS}, account_id FROM licenses WHERE domain = $1 ORDER BY id DESC LIMIT $2");
        self.sql.query(&query, &[domain.into(), limit.into()])?.iter().map(owned).collect()
    }
}

fn owned(row: &Row) -> Result<(AccountId, License), Fault> {
    Ok((AccountId(row.int(AFTER)?), read(row)?))
}
