//! Orders and the invoices that bill them.

use jiff::Timestamp;
use provisor_providers::books::{AccountId, Fault, NewInvoice, NewOrder, Order, OrderStatus};
use provisor_providers::money::Minor;

use super::sql::{Row, Sql};

const COLUMNS: &str = "id, product_id, cycle, quantity, config_options, hostname, note, total, recurring, currency, invoice_id, \
                       created_at, expires_at, status, service_id, paid_at, due_at";

pub(super) fn add(sql: &mut dyn Sql, account: i64, order: &NewOrder) -> Result<i64, Fault> {
    sql.insert(
        "INSERT INTO orders (account_id, product_id, cycle, quantity, config_options, hostname, note, total, recurring, currency,
                             invoice_id, created_at, expires_at, status, due_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 'pending_payment', $13) RETURNING id",
        &[
            account.into(),
            order.product_id.into(),
            (&order.cycle).into(),
            order.quantity.into(),
            (&order.config_options).into(),
            order.hostname.as_deref().into(),
            order.note.as_deref().into(),
            order.total.0.into(),
            order.recurring.0.into(),
            (&order.currency).into(),
            order.invoice_id.into(),
            order.created_at.into(),
            order.expires_at.into(),
        ],
    )
}

pub(super) fn find(sql: &mut dyn Sql, account: i64, id: i64) -> Result<Option<Order>, Fault> {
    let query = format!("SELECT {COLUMNS} FROM orders WHERE account_id = $1 AND id = $2");
    sql.first(&query, &[account.into(), id.into()])?.as_ref().map(read).transpose()
}

fn read(row: &Row) -> Result<Order, Fault> {
    Ok(Order {
        id: row.int(0)?,
        new: NewOrder {
            product_id: row.int(1)?,
            cycle: row.text(2)?,
            quantity: row.number(3)?,
            config_options: row.text(4)?,
            hostname: row.opt_text(5)?,
            note: row.opt_text(6)?,
            total: Minor(row.int(7)?),
            recurring: Minor(row.int(8)?),
            currency: row.text(9)?,
            invoice_id: row.int(10)?,
            created_at: row.time(11)?,
            expires_at: row.time(12)?,
        },
        status: row.spelled(13, OrderStatus::parse)?,
        service_id: row.opt_int(14)?,
        paid_at: row.opt_time(15)?,
        due_at: row.opt_time(16)?,
    })
}

pub(super) fn set(sql: &mut dyn Sql, account: i64, order: &Order) -> Result<(), Fault> {
    sql.execute(
        "UPDATE orders SET status = $1, service_id = $2, paid_at = $3, due_at = $4 WHERE account_id = $5 AND id = $6",
        &[
            order.status.as_str().into(),
            order.service_id.into(),
            order.paid_at.into(),
            order.due_at.into(),
            account.into(),
            order.id.into(),
        ],
    )?;
    Ok(())
}

pub(super) fn due(sql: &mut dyn Sql, now: Timestamp, limit: u32) -> Result<Vec<(AccountId, i64)>, Fault> {
    let rows = sql.query(
        "SELECT account_id, id FROM orders WHERE due_at IS NOT NULL AND due_at <= $1 ORDER BY due_at, id LIMIT $2",
        &[now.into(), limit.into()],
    )?;
    rows.iter().map(|row| Ok((AccountId(row.int(0)?), row.int(1)?))).collect()
}

pub(super) fn next_due(sql: &mut dyn Sql) -> Result<Option<Timestamp>, Fault> {
    sql.first("SELECT MIN(due_at) FROM orders WHERE due_at IS NOT NULL", &[])?.map_or(Ok(None), |row| row.opt_time(0))
}

pub(super) fn add_invoice(sql: &mut dyn Sql, account: i64, invoice: &NewInvoice) -> Result<i64, Fault> {
    let (service, from) = invoice.renews.unzip();
    sql.insert(
        "INSERT INTO invoices (account_id, status, total, currency, renews_service, renews_from, issued_at, due_at)
         VALUES ($1, 'unpaid', $2, $3, $4, $5, $6, $7) RETURNING id",
        &[
            account.into(),
            invoice.total.0.into(),
            (&invoice.currency).into(),
            service.into(),
            from.into(),
            invoice.issued_at.into(),
            invoice.due_at.into(),
        ],
    )
}

pub(super) fn renewal_invoice(sql: &mut dyn Sql, account: i64, service: i64, from: Timestamp) -> Result<Option<i64>, Fault> {
    let row = sql.first(
        "SELECT id FROM invoices WHERE account_id = $1 AND renews_service = $2 AND renews_from = $3 AND status <> 'cancelled'",
        &[account.into(), service.into(), from.into()],
    )?;
    row.map(|row| row.int(0)).transpose()
}

pub(super) fn set_invoice_paid(sql: &mut dyn Sql, account: i64, id: i64, now: Timestamp) -> Result<(), Fault> {
    sql.execute(
        "UPDATE invoices SET status = 'paid', paid_at = $1 WHERE account_id = $2 AND id = $3",
        &[now.into(), account.into(), id.into()],
    )?;
    Ok(())
}

pub(super) fn cancel_invoice(sql: &mut dyn Sql, account: i64, id: i64) -> Result<(), Fault> {
    sql.execute(
        "UPDATE invoices SET status = 'cancelled' WHERE account_id = $1 AND id = $2 AND status = 'unpaid'",
        &[account.into(), id.into()],
    )?;
    Ok(())
}
