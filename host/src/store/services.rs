//! Services and their logins.

use jiff::Timestamp;
use provisor_providers::books::{AccountId, Fault, Login, NewService, Power, Service, ServiceStatus};
use provisor_providers::money::Minor;
use secrecy::SecretString;

use super::Transaction;
use super::sql::{Row, Sql, Value};
use crate::vault::{Place, Vault};

const COLUMNS: &str = "id, order_id, product_id, status, power, hostname, addresses, cycle, recurring, currency, next_due_at, \
                       created_at, bill_at, unpaid_since";

pub(super) fn add(sql: &mut dyn Sql, vault: &Vault, account: i64, service: &NewService) -> Result<i64, Fault> {
    let addresses = service.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let id = sql.insert_one(
        "INSERT INTO services (account_id, order_id, product_id, status, power, hostname, addresses, cycle, recurring, currency,
                               next_due_at, bill_at, created_at, username, sealed_password, port)
         VALUES ($1, $2, $3, 'active', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        &[
            account.into(),
            service.order_id.into(),
            service.product_id.into(),
            service.power.map(Power::as_str).into(),
            (&service.hostname).into(),
            (&addresses).into(),
            (&service.cycle).into(),
            service.recurring.0.into(),
            (&service.currency).into(),
            service.next_due_at.into(),
            service.bill_at.into(),
            service.created_at.into(),
            (&service.login.username).into(),
            // The seal is bound to the row, whose id is known only now.
            Value::Bytes(&[]),
            u32::from(service.login.port).into(),
        ],
    )?;
    set_password(sql, vault, account, id, &service.login.password)?;
    Ok(id)
}

pub(super) fn find(sql: &mut dyn Sql, account: i64, id: i64) -> Result<Option<Service>, Fault> {
    let query = format!("SELECT {COLUMNS} FROM services WHERE account_id = $1 AND id = $2");
    sql.first(&query, &[account.into(), id.into()])?.as_ref().map(read).transpose()
}

pub(super) fn list(sql: &mut dyn Sql, account: i64, offset: u64, limit: u32) -> Result<Vec<Service>, Fault> {
    let query = format!("SELECT {COLUMNS} FROM services WHERE account_id = $1 ORDER BY id LIMIT $2 OFFSET $3");
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    sql.query(&query, &[account.into(), limit.into(), offset.into()])?.iter().map(read).collect()
}

pub(super) fn count(sql: &mut dyn Sql, account: i64) -> Result<u64, Fault> {
    sql.first("SELECT COUNT(*) FROM services WHERE account_id = $1", &[account.into()])?.map_or(Ok(0), |row| row.number(0))
}

fn read(row: &Row) -> Result<Service, Fault> {
    Ok(Service {
        id: row.int(0)?,
        order_id: row.int(1)?,
        product_id: row.int(2)?,
        status: row.spelled(3, ServiceStatus::parse)?,
        power: row.opt_text(4)?.as_deref().and_then(Power::parse),
        hostname: row.text(5)?,
        addresses: row.spelled(6, |text| text.split_whitespace().map(|address| address.parse().ok()).collect())?,
        cycle: row.text(7)?,
        recurring: Minor(row.int(8)?),
        currency: row.text(9)?,
        next_due_at: row.time(10)?,
        created_at: row.time(11)?,
        bill_at: row.opt_time(12)?,
        unpaid_since: row.opt_time(13)?,
    })
}

pub(super) fn set(sql: &mut dyn Sql, account: i64, service: &Service) -> Result<(), Fault> {
    sql.execute(
        "UPDATE services SET status = $1, power = $2, next_due_at = $3, bill_at = $4, unpaid_since = $5
         WHERE account_id = $6 AND id = $7",
        &[
            service.status.as_str().into(),
            service.power.map(Power::as_str).into(),
            service.next_due_at.into(),
            service.bill_at.into(),
            service.unpaid_since.into(),
            account.into(),
            service.id.into(),
        ],
    )?;
    Ok(())
}

pub(super) fn due(sql: &mut dyn Sql, now: Timestamp, limit: u32) -> Result<Vec<(AccountId, i64)>, Fault> {
    let rows = sql.query(
        "SELECT account_id, id FROM services WHERE bill_at IS NOT NULL AND bill_at <= $1 ORDER BY bill_at, id LIMIT $2",
        &[now.into(), limit.into()],
    )?;
    rows.iter().map(|row| Ok((AccountId(row.int(0)?), row.int(1)?))).collect()
}

pub(super) fn next_due(sql: &mut dyn Sql) -> Result<Option<Timestamp>, Fault> {
    sql.first("SELECT MIN(bill_at) FROM services WHERE bill_at IS NOT NULL", &[])?.map_or(Ok(None), |row| row.opt_time(0))
}

pub(super) fn login(sql: &mut dyn Sql, vault: &Vault, account: i64, id: i64) -> Result<Option<Login>, Fault> {
    let row = sql.first(
        "SELECT username, sealed_password, port FROM services WHERE account_id = $1 AND id = $2",
        &[account.into(), id.into()],
    )?;
    let Some(row) = row else { return Ok(None) };
    let password = vault.open_value(place(&id.to_string()), &row.bytes(1)?).map_err(|error| Fault(error.to_string()))?;
    Ok(Some(Login { username: row.text(0)?, password, port: row.number(2)? }))
}

pub(super) fn set_password(
    sql: &mut dyn Sql,
    vault: &Vault,
    account: i64,
    id: i64,
    password: &SecretString,
) -> Result<(), Fault> {
    let sealed = vault.seal(place(&id.to_string()), password).map_err(|error| Fault(error.to_string()))?;
    sql.execute(
        "UPDATE services SET sealed_password = $1 WHERE account_id = $2 AND id = $3",
        &[sealed.as_slice().into(), account.into(), id.into()],
    )?;
    Ok(())
}

fn place(row: &str) -> Place<'_> {
    Place { table: "services", row, column: "sealed_password" }
}

impl Transaction<'_> {
    /// The newest services of a reseller, or of all, newest first.
    pub fn newest_services(&mut self, account: Option<AccountId>, limit: u32) -> Result<Vec<(AccountId, Service)>, Fault> {
        let of = if account.is_some() { "WHERE account_id = $1 ORDER BY id DESC LIMIT $2" } else { "ORDER BY id DESC LIMIT $1" };
        let query = format!("SELECT {COLUMNS}, account_id FROM services {of}");
        let mut values: Vec<Value<'_>> = account.map(|account| account.0.into()).into_iter().collect();
        values.push(limit.into());
        let rows = self.sql.query(&query, &values)?;
        rows.iter().map(|row| Ok((AccountId(row.int(14)?), read(row)?))).collect()
    }

    /// Any reseller's service.
    pub fn any_service(&mut self, id: i64) -> Result<Option<(AccountId, Service)>, Fault> {
        let query = format!("SELECT {COLUMNS}, account_id FROM services WHERE id = $1");
        let row = self.sql.first(&query, &[id.into()])?;
        row.map(|row| Ok((AccountId(row.int(14)?), read(&row)?))).transpose()
    }
}
