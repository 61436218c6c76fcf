//! Orders.

use jiff::Timestamp;
use provisor_providers::books::{AccountId, Entry, Fault, NewInvoice, NewOrder, Order, OrderStatus};
use provisor_providers::money::Minor;

use super::sql::{Row, Sql};
use super::{Transaction, accounts, invoices};

const COLUMNS: &str = "id, product_id, cycle, quantity, config_options, hostname, note, total, recurring, currency, invoice_id, \
                       created_at, expires_at, status, service_id, paid_at, due_at";

pub(super) fn place(sql: &mut dyn Sql, account: i64, order: &NewOrder, invoice: &NewInvoice) -> Result<Order, Fault> {
    let invoice_id = invoices::bill(sql, account, invoice)?;
    let placed = Order {
        id: 0,
        new: order.clone(),
        invoice_id,
        status: OrderStatus::PendingPayment,
        service_id: None,
        paid_at: None,
        due_at: Some(order.expires_at),
    };
    add(sql, account, placed)
}

pub(super) fn buy(
    sql: &mut dyn Sql,
    account: i64,
    order: &NewOrder,
    invoice: &NewInvoice,
    due_at: Option<Timestamp>,
) -> Result<Option<Order>, Fault> {
    let at = invoice.issued_at;
    let Some(invoice_id) = invoices::settle(sql, account, invoice, at)? else { return Ok(None) };
    let entry = Entry { at, kind: "order", reference: &invoice_id.to_string() };
    accounts::note(sql, account, Minor(-invoice.total.0), &entry)?;
    let bought =
        Order { id: 0, new: order.clone(), invoice_id, status: OrderStatus::Paid, service_id: None, paid_at: Some(at), due_at };
    add(sql, account, bought).map(Some)
}

/// Writes an order, and its number into its invoice, which had to be there before.
fn add(sql: &mut dyn Sql, account: i64, order: Order) -> Result<Order, Fault> {
    let new = &order.new;
    let id = sql.insert_one(
        "INSERT INTO orders (account_id, product_id, cycle, quantity, config_options, hostname, note, total, recurring, currency,
                             invoice_id, created_at, expires_at, status, paid_at, due_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
        &[
            account.into(),
            new.product_id.into(),
            (&new.cycle).into(),
            new.quantity.into(),
            (&new.config_options).into(),
            new.hostname.as_deref().into(),
            new.note.as_deref().into(),
            new.total.0.into(),
            new.recurring.0.into(),
            (&new.currency).into(),
            order.invoice_id.into(),
            new.created_at.into(),
            new.expires_at.into(),
            order.status.as_str().into(),
            order.paid_at.into(),
            order.due_at.into(),
        ],
    )?;
    invoices::set_order(sql, account, order.invoice_id, id)?;
    Ok(Order { id, ..order })
}

pub(super) fn find(sql: &mut dyn Sql, account: i64, id: i64) -> Result<Option<Order>, Fault> {
    let query = format!("SELECT {COLUMNS} FROM orders WHERE account_id = $1 AND id = $2");
    sql.first(&query, &[account.into(), id.into()])?.as_ref().map(read).transpose()
}

pub(super) fn pending(sql: &mut dyn Sql, account: i64, limit: u32) -> Result<Vec<i64>, Fault> {
    let rows = sql.query(
        "SELECT id FROM orders WHERE account_id = $1 AND status = 'pending_payment' ORDER BY id LIMIT $2",
        &[account.into(), limit.into()],
    )?;
    rows.iter().map(|row| row.int(0)).collect()
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
            created_at: row.time(11)?,
            expires_at: row.time(12)?,
        },
        invoice_id: row.int(10)?,
        status: row.spelled(13, OrderStatus::parse)?,
        service_id: row.opt_int(14)?,
        paid_at: row.opt_time(15)?,
        due_at: row.opt_time(16)?,
    })
}

pub(super) fn set(sql: &mut dyn Sql, account: i64, order: &Order, from: OrderStatus) -> Result<bool, Fault> {
    let set = sql.execute(
        "UPDATE orders SET status = $1, service_id = $2, paid_at = $3, due_at = $4
         WHERE account_id = $5 AND id = $6 AND status = $7",
        &[
            order.status.as_str().into(),
            order.service_id.into(),
            order.paid_at.into(),
            order.due_at.into(),
            account.into(),
            order.id.into(),
            from.as_str().into(),
        ],
    )?;
    Ok(set == 1)
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

impl Transaction<'_> {
    /// The newest orders of a reseller, or of all, newest first.
    pub fn newest_orders(&mut self, account: Option<AccountId>, limit: u32) -> Result<Vec<(AccountId, Order)>, Fault> {
        let Some(account) = account else {
            let query = format!("SELECT {COLUMNS}, account_id FROM orders ORDER BY id DESC LIMIT $1");
            let rows = self.sql.query(&query, &[limit.into()])?;
            return rows.iter().map(|row| Ok((AccountId(row.int(17)?), read(row)?))).collect();
        };
        let mut found = Vec::new();
        for id in invoices::newest_orders(self.sql, account.0, limit)? {
            found.extend(find(self.sql, account.0, id)?.map(|order| (account, order)));
        }
        Ok(found)
    }

    /// Any reseller's order.
    pub fn any_order(&mut self, id: i64) -> Result<Option<(AccountId, Order)>, Fault> {
        let query = format!("SELECT {COLUMNS}, account_id FROM orders WHERE id = $1");
        let row = self.sql.first(&query, &[id.into()])?;
        row.map(|row| Ok((AccountId(row.int(17)?), read(&row)?))).transpose()
    }
}
