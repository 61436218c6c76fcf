//! `provisor order`: what resellers ordered.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use provisor_providers::PROVIDERS;
use provisor_providers::books::{AccountId, Fault, Order as Ordered};
use provisor_providers::server::Moment;
use serde::Serialize;

use super::book::{block_on, note};
use super::{Context, Exit, Failure};
use crate::clock::{Clock, System};
use crate::store::Transaction;

/// List and show orders, cancel those that wait for their payment, fulfil paid ones by hand or give them up
#[derive(Args)]
#[command(after_help = "\
Examples:
  provisor order list --reseller 1
  provisor order show 17
  provisor order cancel 17                 and its invoice; only while it is not paid
  provisor order fulfil 17                 where fulfilment is manual: its services are there now
  provisor order fail 17                   they cannot be made: what was paid goes back to the credit")]
pub(super) struct Order {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List orders, newest first
    List(Which),
    /// Show an order
    Show {
        /// The order's number
        id: i64,
    },
    /// Cancel an order that waits for its payment
    Cancel {
        /// The order's number
        id: i64,
    },
    /// Say that the services of a paid order were made: they become active
    Fulfil {
        /// The order's number
        id: i64,
    },
    /// Say that the services of a paid order cannot be made: it is cancelled, and what was paid goes back to the credit
    Fail {
        /// The order's number
        id: i64,
    },
}

/// Which part of a list to show.
#[derive(Args)]
pub(super) struct Which {
    /// Only this reseller's
    #[arg(long, value_name = "ID")]
    reseller: Option<i64>,
    /// At most so many, the newest
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    pub(super) limit: u32,
}

impl Which {
    pub(super) fn account(&self) -> Option<AccountId> {
        self.reseller.map(AccountId)
    }
}

pub(super) fn run(command: &Order, context: &Context) -> Result<Exit, Failure> {
    match &command.command {
        Command::List(which) => list(context, which),
        Command::Show { id } => show(context, *id),
        Command::Cancel { id } => change(context, *id, Change::Cancel),
        Command::Fulfil { id } => change(context, *id, Change::Fulfil),
        Command::Fail { id } => change(context, *id, Change::Fail),
    }
}

/// What is done to an order.
#[derive(Clone, Copy)]
enum Change {
    Cancel,
    Fulfil,
    Fail,
}

impl Change {
    /// In the audit log.
    fn event(self) -> &'static str {
        match self {
            Self::Cancel => "order.cancelled",
            Self::Fulfil => "order.fulfilled",
            Self::Fail => "order.failed",
        }
    }

    /// Why it was not done.
    fn missed(self) -> &'static str {
        match self {
            Self::Cancel => "does not wait for its payment any more",
            Self::Fulfil | Self::Fail => "does not wait to be fulfilled by hand",
        }
    }

    fn apply(self, moment: &Moment, (account, order): (AccountId, i64), books: &mut Transaction<'_>) -> Result<bool, Fault> {
        for provider in PROVIDERS {
            let api = provider.server;
            let is_done = match self {
                Self::Cancel => api.cancel_order(moment, account, order, books)?,
                Self::Fulfil => api.fulfil_order(moment, account, order, books)?,
                Self::Fail => api.fail_order(moment, account, order, books)?,
            };
            if is_done {
                note(books, account, None, self.event(), Some(&format!("order {order}")))?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[derive(Serialize)]
struct Listed {
    id: i64,
    reseller: i64,
    status: &'static str,
    product_id: i64,
    billing_cycle: String,
    quantity: u32,
    total: String,
    currency: String,
    invoice_id: i64,
    service_id: Option<i64>,
    hostname: Option<String>,
    note: Option<String>,
    created_at: Timestamp,
    expires_at: Timestamp,
    paid_at: Option<Timestamp>,
}

fn listed((account, order): (AccountId, Ordered)) -> Listed {
    let new = order.new;
    Listed {
        id: order.id,
        reseller: account.0,
        status: order.status.as_str(),
        product_id: new.product_id,
        billing_cycle: new.cycle,
        quantity: new.quantity,
        total: new.total.to_string(),
        currency: new.currency,
        invoice_id: order.invoice_id,
        service_id: order.service_id,
        hostname: new.hostname,
        note: new.note,
        created_at: new.created_at,
        expires_at: new.expires_at,
        paid_at: order.paid_at,
    }
}

fn list(context: &Context, which: &Which) -> Result<Exit, Failure> {
    let orders = context.book()?.read(|books| books.newest_orders(which.account(), which.limit)).map_err(Failure::failed)?;
    print(context, &orders.into_iter().map(listed).collect::<Vec<_>>())
}

fn print(context: &Context, orders: &[Listed]) -> Result<Exit, Failure> {
    let titles = ["id", "reseller", "status", "product", "cycle", "quantity", "total", "invoice", "service", "created"];
    context.output.records(titles, orders, |row| {
        let service = row.service_id.map(|id| id.to_string()).unwrap_or_default();
        [
            row.id.to_string(),
            row.reseller.to_string(),
            row.status.to_owned(),
            row.product_id.to_string(),
            row.billing_cycle.clone(),
            row.quantity.to_string(),
            format!("{} {}", row.total, row.currency),
            row.invoice_id.to_string(),
            service,
            row.created_at.to_string(),
        ]
    })?;
    Ok(Exit::Done)
}

fn show(context: &Context, id: i64) -> Result<Exit, Failure> {
    let order = context.book()?.read(|books| books.any_order(id)).map_err(Failure::failed)?;
    let order = order.ok_or_else(|| Failure::usage(anyhow!("there is no order {id}")))?;
    print(context, &[listed(order)])
}

fn change(context: &Context, id: i64, change: Change) -> Result<Exit, Failure> {
    let home = context.home()?;
    let moment = System.moment(home.config.rules());
    let store = home.book()?;
    let changed = block_on(async move {
        let changed = store.transact(move |books| {
            let Some((account, _)) = books.any_order(id)? else { return Ok(None) };
            change.apply(&moment, (account, id), books).map(Some)
        });
        changed.await.map_err(Failure::failed)
    })?;
    match changed {
        Some(true) => show(context, id),
        Some(false) => Err(Failure::failed(anyhow!("order {id} {}", change.missed()))),
        None => Err(Failure::usage(anyhow!("there is no order {id}"))),
    }
}
