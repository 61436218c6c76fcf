//! Invoices.

use jiff::Timestamp;
use provisor_providers::books::{AccountId, Fault, Invoice, InvoiceLine, InvoiceStatus, NewInvoice, Tax};
use provisor_providers::money::Minor;

use super::Transaction;
use super::sql::{Row, Sql};

const COLUMNS: &str = "id, status, total, tax, tax_basis_points, currency, lines, seller, order_id, renews_service, renews_from, \
                       issued_at, due_at, paid_at";

/// Which invoices of a reseller stand in the index of the migration: every one so many.
const STEP: u64 = 64;

/// Walks from one invoice of a reseller back to the one of a number.
const BACK: &str = "WITH RECURSIVE back (place) AS (
                      SELECT CAST($1 AS BIGINT) UNION
                      SELECT previous FROM back CROSS JOIN invoices WHERE id = place AND number > $2)";

/// A new invoice that is to be paid.
pub(super) fn bill(sql: &mut dyn Sql, account: i64, invoice: &NewInvoice) -> Result<i64, Fault> {
    let id = add(sql, account, invoice, None)?;
    id.ok_or_else(|| Fault(format!("account {account} is gone")))
}

/// A new invoice that is paid from the credit at once; none, and nothing taken, if there is not enough of it. The caller owes the
/// ledger its line.
pub(super) fn settle(sql: &mut dyn Sql, account: i64, invoice: &NewInvoice, at: Timestamp) -> Result<Option<i64>, Fault> {
    add(sql, account, invoice, Some(at))
}

fn add(sql: &mut dyn Sql, account: i64, invoice: &NewInvoice, paid_at: Option<Timestamp>) -> Result<Option<i64>, Fault> {
    let (status, taken) = if paid_at.is_some() { (InvoiceStatus::Paid, invoice.total.0) } else { (InvoiceStatus::Unpaid, 0) };
    let (service, from) = invoice.renews.unzip();
    let id = sql.insert(
        "INSERT INTO invoices (status, total, tax, tax_basis_points, currency, lines, seller, order_id, renews_service, renews_from,
                               issued_at, due_at, paid_at, account_id, previous, number)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, id, last_invoice, invoices + 1
         FROM accounts WHERE id = $14 AND balance >= $15",
        &[
            status.as_str().into(),
            invoice.total.0.into(),
            invoice.tax.amount.0.into(),
            invoice.tax.basis_points.into(),
            (&invoice.currency).into(),
            (&write_lines(&invoice.lines)?).into(),
            (&*invoice.seller).into(),
            invoice.order_id.into(),
            service.into(),
            from.into(),
            invoice.issued_at.into(),
            invoice.due_at.into(),
            paid_at.into(),
            account.into(),
            taken.into(),
        ],
    )?;
    if let Some(id) = id {
        sql.execute(
            "UPDATE accounts SET balance = balance - $1, last_invoice = $2, invoices = invoices + 1 WHERE id = $3",
            &[taken.into(), id.into(), account.into()],
        )?;
    }
    Ok(id)
}

pub(super) fn set_order(sql: &mut dyn Sql, account: i64, id: i64, order: i64) -> Result<(), Fault> {
    sql.execute(
        "UPDATE invoices SET order_id = $1 WHERE account_id = $2 AND id = $3",
        &[order.into(), account.into(), id.into()],
    )?;
    Ok(())
}

pub(super) fn find(sql: &mut dyn Sql, account: i64, id: i64) -> Result<Option<Invoice>, Fault> {
    let query = format!("SELECT {COLUMNS} FROM invoices WHERE account_id = $1 AND id = $2");
    sql.first(&query, &[account.into(), id.into()])?.as_ref().map(read).transpose()
}

pub(super) fn list(sql: &mut dyn Sql, account: i64, offset: u64, limit: u32) -> Result<Vec<Invoice>, Fault> {
    let end = count(sql, account)?.min(offset.saturating_add(limit.into()));
    if end <= offset {
        return Ok(Vec::new());
    }
    let [first, end] = [offset + 1, end].map(|number| i64::try_from(number).unwrap_or(i64::MAX));
    let step =
        format!("SELECT id FROM invoices WHERE account_id = $1 AND number >= $2 AND number % {STEP} = 0 ORDER BY number LIMIT 1");
    let start = match sql.first(&step, &[account.into(), end.into()])? {
        Some(row) => row.opt_int(0)?,
        None => last(sql, account)?,
    };
    let query = format!(
        "{BACK} SELECT {COLUMNS} FROM back CROSS JOIN invoices
         WHERE id = place AND account_id = $3 AND number >= $2 AND number <= $4 ORDER BY number"
    );
    sql.query(&query, &[start.into(), first.into(), account.into(), end.into()])?.iter().map(read).collect()
}

pub(super) fn count(sql: &mut dyn Sql, account: i64) -> Result<u64, Fault> {
    sql.first("SELECT invoices FROM accounts WHERE id = $1", &[account.into()])?.map_or(Ok(0), |row| row.number(0))
}

/// The newest of a reseller.
fn last(sql: &mut dyn Sql, account: i64) -> Result<Option<i64>, Fault> {
    sql.first("SELECT last_invoice FROM accounts WHERE id = $1", &[account.into()])?.map_or(Ok(None), |row| row.opt_int(0))
}

/// The newest orders of a reseller, newest first. By way of the invoices, one of which each has: what leads to a reseller's orders
/// would cost every order, for operators alone.
pub(super) fn newest_orders(sql: &mut dyn Sql, account: i64, limit: u32) -> Result<Vec<i64>, Fault> {
    let query = format!(
        "{BACK} SELECT order_id FROM back CROSS JOIN invoices WHERE id = place AND renews_service IS NULL
                         ORDER BY number DESC LIMIT $3"
    );
    let (start, newest) = (last(sql, account)?, i64::try_from(count(sql, account)?).unwrap_or(i64::MAX));
    // Between them are renewals, mostly few: no further back than is needed.
    let mut span = 4 * i64::from(limit);
    loop {
        let first = newest.saturating_sub(span).max(1);
        let rows = sql.query(&query, &[start.into(), first.into(), limit.into()])?;
        if first == 1 || u32::try_from(rows.len()) == Ok(limit) {
            return rows.iter().map(|row| row.int(0)).collect();
        }
        span = span.saturating_mul(2);
    }
}

pub(super) fn renewal(sql: &mut dyn Sql, account: i64, service: i64, from: Timestamp) -> Result<Option<Invoice>, Fault> {
    let query = format!(
        "SELECT {COLUMNS} FROM invoices
         WHERE account_id = $1 AND renews_service = $2 AND renews_from = $3 AND status <> 'cancelled'"
    );
    sql.first(&query, &[account.into(), service.into(), from.into()])?.as_ref().map(read).transpose()
}

pub(super) fn unpaid_renewals(sql: &mut dyn Sql, account: i64, now: Timestamp, limit: u32) -> Result<Vec<i64>, Fault> {
    let rows = sql.query(
        "SELECT id FROM invoices WHERE account_id = $1 AND due_at <= $2 AND renews_service IS NOT NULL AND status = 'unpaid'
         ORDER BY due_at, id LIMIT $3",
        &[account.into(), now.into(), limit.into()],
    )?;
    rows.iter().map(|row| row.int(0)).collect()
}

pub(super) fn pay(sql: &mut dyn Sql, account: i64, id: i64, now: Timestamp) -> Result<bool, Fault> {
    let paid = sql.execute(
        "UPDATE invoices SET status = 'paid', paid_at = $1 WHERE account_id = $2 AND id = $3 AND status = 'unpaid'",
        &[now.into(), account.into(), id.into()],
    )?;
    Ok(paid == 1)
}

pub(super) fn cancel(sql: &mut dyn Sql, account: i64, id: i64) -> Result<bool, Fault> {
    let cancelled = sql.execute(
        "UPDATE invoices SET status = 'cancelled' WHERE account_id = $1 AND id = $2 AND status = 'unpaid'",
        &[account.into(), id.into()],
    )?;
    Ok(cancelled == 1)
}

fn read(row: &Row) -> Result<Invoice, Fault> {
    let tax = Tax { amount: Minor(row.int(3)?), basis_points: row.number(4)? };
    Ok(Invoice {
        id: row.int(0)?,
        status: row.spelled(1, InvoiceStatus::parse)?,
        new: NewInvoice {
            total: Minor(row.int(2)?),
            tax,
            currency: row.text(5)?,
            lines: read_lines(&row.text(6)?)?,
            seller: row.text(7)?.into(),
            order_id: row.opt_int(8)?,
            renews: row.opt_int(9)?.zip(row.opt_time(10)?),
            issued_at: row.time(11)?,
            due_at: row.time(12)?,
        },
        paid_at: row.opt_time(13)?,
    })
}

fn write_lines(lines: &[InvoiceLine]) -> Result<String, Fault> {
    let lines: Vec<_> = lines.iter().map(|line| (&line.text, line.quantity, line.each.0)).collect();
    serde_json::to_string(&lines).map_err(|error| Fault(error.to_string()))
}

fn read_lines(text: &str) -> Result<Vec<InvoiceLine>, Fault> {
    let lines: Vec<(String, u32, i64)> =
        serde_json::from_str(text).map_err(|error| Fault(format!("an invoice's lines: {error}")))?;
    Ok(lines.into_iter().map(|(text, quantity, each)| InvoiceLine { text, quantity, each: Minor(each) }).collect())
}

impl Transaction<'_> {
    /// The newest invoices of a reseller, or of all, newest first.
    pub fn newest_invoices(&mut self, account: Option<AccountId>, limit: u32) -> Result<Vec<(AccountId, Invoice)>, Fault> {
        let Some(account) = account else {
            let query = format!("SELECT {COLUMNS}, account_id FROM invoices ORDER BY id DESC LIMIT $1");
            let rows = self.sql.query(&query, &[limit.into()])?;
            return rows.iter().map(|row| Ok((AccountId(row.int(14)?), read(row)?))).collect();
        };
        let before = count(self.sql, account.0)?.saturating_sub(limit.into());
        let listed = list(self.sql, account.0, before, limit)?;
        Ok(listed.into_iter().rev().map(|invoice| (account, invoice)).collect())
    }

    /// Any reseller's invoice.
    pub fn any_invoice(&mut self, id: i64) -> Result<Option<(AccountId, Invoice)>, Fault> {
        let query = format!("SELECT {COLUMNS}, account_id FROM invoices WHERE id = $1");
        let row = self.sql.first(&query, &[id.into()])?;
        row.map(|row| Ok((AccountId(row.int(14)?), read(&row)?))).transpose()
    }
}
