//! `provisor service`: what resellers have.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use provisor_providers::books::{AccountId, Service as Kept};
use serde::Serialize;

use super::order::Which;
use super::{Context, Exit, Failure};

/// List and show services. Their passwords are shown to their resellers alone
#[derive(Args)]
#[command(after_help = "\
Examples:
  provisor service list --reseller 1
  provisor service show 7")]
pub(super) struct Service {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List services, newest first
    List(Which),
    /// Show a service
    Show {
        /// The service's number
        id: i64,
    },
}

pub(super) fn run(command: &Service, context: &Context) -> Result<Exit, Failure> {
    let book = context.book()?;
    let services = match &command.command {
        Command::List(which) => {
            book.read(|books| books.newest_services(which.account(), which.limit)).map_err(Failure::failed)?
        }
        Command::Show { id } => {
            let service = book.read(|books| books.any_service(*id)).map_err(Failure::failed)?;
            vec![service.ok_or_else(|| Failure::usage(anyhow!("there is no service {id}")))?]
        }
    };
    print(context, &services.into_iter().map(listed).collect::<Vec<_>>())
}

#[derive(Serialize)]
struct Listed {
    id: i64,
    reseller: i64,
    order_id: i64,
    product_id: i64,
    status: &'static str,
    power: Option<&'static str>,
    hostname: String,
    ip_addresses: Vec<String>,
    billing_cycle: String,
    recurring: String,
    currency: String,
    next_due_at: Timestamp,
    unpaid_since: Option<Timestamp>,
    created_at: Timestamp,
}

fn listed((account, service): (AccountId, Kept)) -> Listed {
    Listed {
        id: service.id,
        reseller: account.0,
        order_id: service.order_id,
        product_id: service.product_id,
        status: service.status.as_str(),
        power: service.power.map(|power| power.as_str()),
        hostname: service.hostname,
        ip_addresses: service.addresses.iter().map(ToString::to_string).collect(),
        billing_cycle: service.cycle,
        recurring: service.recurring.to_string(),
        currency: service.currency,
        next_due_at: service.next_due_at,
        unpaid_since: service.unpaid_since,
        created_at: service.created_at,
    }
}

fn print(context: &Context, services: &[Listed]) -> Result<Exit, Failure> {
    let titles = ["id", "reseller", "status", "host name", "product", "cycle", "price", "due"];
    context.output.records(titles, services, |row| {
        let status = if row.unpaid_since.is_some() { format!("{}, unpaid", row.status) } else { row.status.to_owned() };
        [
            row.id.to_string(),
            row.reseller.to_string(),
            status,
            row.hostname.clone(),
            row.product_id.to_string(),
            row.billing_cycle.clone(),
            format!("{} {}", row.recurring, row.currency),
            row.next_due_at.to_string(),
        ]
    })?;
    Ok(Exit::Done)
}
