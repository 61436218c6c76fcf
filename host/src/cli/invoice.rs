//! `provisor invoice`: what resellers were billed.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use provisor_providers::books::{AccountId, Books, Invoice as Billed};
use provisor_providers::money::Minor;
use provisor_providers::server::Paper;
use serde::Serialize;

use super::order::Which;
use super::{Context, Exit, Failure};
use crate::paper;

/// List and show invoices, and write them as PDF
#[derive(Args)]
#[command(after_help = "\
Examples:
  provisor invoice list --reseller 1
  provisor invoice show 12
  provisor invoice pdf 12 invoice.pdf      the same bytes that the reseller gets; - writes them to stdout")]
pub(super) struct Invoice {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List invoices, newest first
    List(Which),
    /// Show an invoice with its lines
    Show {
        /// The invoice's id, the end of its number
        id: i64,
    },
    /// Write an invoice as PDF
    Pdf {
        /// The invoice's id, the end of its number
        id: i64,
        /// Where to; the number with .pdf in this directory unless given, stdout with -
        file: Option<PathBuf>,
    },
}

pub(super) fn run(command: Invoice, context: &Context) -> Result<Exit, Failure> {
    match command.command {
        Command::List(which) => {
            let book = context.book()?;
            let invoices = book.read(|books| books.newest_invoices(which.account(), which.limit)).map_err(Failure::failed)?;
            print(context, &invoices.into_iter().map(listed).collect::<Vec<_>>())
        }
        Command::Show { id } => {
            let Paper { invoice, buyer } = find(context, id)?;
            let invoice = listed((buyer.id, invoice));
            context.output.record(&invoice, |invoice| {
                let lines = invoice
                    .lines
                    .iter()
                    .fold(String::new(), |text, line| text + &format!("\n  {} x {} at {}", line.quantity, line.text, line.each));
                let Listed { number, status, total, currency, net, tax, tax_percent, .. } = invoice;
                format!("{number}  {status}  {total} {currency} (net {net}, tax {tax_percent} % {tax}){lines}")
            })?;
            Ok(Exit::Done)
        }
        Command::Pdf { id, file } => pdf(context, id, file),
    }
}

fn find(context: &Context, id: i64) -> Result<Paper, Failure> {
    let found = context.book()?.read(|books| {
        let Some((account, invoice)) = books.any_invoice(id)? else { return Ok(None) };
        Ok(Some(Paper { invoice, buyer: books.account(account).profile()? }))
    });
    found.map_err(Failure::failed)?.ok_or_else(|| Failure::usage(anyhow!("there is no invoice {id}")))
}

#[derive(Serialize)]
struct Written {
    id: i64,
    number: String,
    file: PathBuf,
}

fn pdf(context: &Context, id: i64, file: Option<PathBuf>) -> Result<Exit, Failure> {
    let paper = find(context, id)?;
    let bytes = paper::print(&paper);
    let number = paper.invoice.number();
    let file = file.unwrap_or_else(|| format!("{number}.pdf").into());
    if file == Path::new("-") {
        std::io::stdout().write_all(&bytes).map_err(Failure::failed)?;
        return Ok(Exit::Done);
    }
    std::fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display())).map_err(Failure::failed)?;
    context.output.record(&Written { id, number, file }, |done| format!("{} in {}", done.number, done.file.display()))?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Listed {
    id: i64,
    number: String,
    reseller: i64,
    status: &'static str,
    total: String,
    net: String,
    tax: String,
    tax_percent: String,
    currency: String,
    order_id: Option<i64>,
    service_id: Option<i64>,
    issued_at: Timestamp,
    due_at: Timestamp,
    paid_at: Option<Timestamp>,
    lines: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    text: String,
    quantity: u32,
    each: String,
}

fn listed((account, invoice): (AccountId, Billed)) -> Listed {
    let (number, net) = (invoice.number(), invoice.net().to_string());
    let new = invoice.new;
    let line = |line: provisor_providers::books::InvoiceLine| Line {
        text: line.text,
        quantity: line.quantity,
        each: line.each.to_string(),
    };
    Listed {
        id: invoice.id,
        number,
        reseller: account.0,
        status: invoice.status.as_str(),
        total: new.total.to_string(),
        net,
        tax: new.tax.amount.to_string(),
        tax_percent: Minor(new.tax.basis_points.into()).to_string(),
        currency: new.currency,
        order_id: new.order_id,
        service_id: new.renews.map(|(service, _)| service),
        issued_at: new.issued_at,
        due_at: new.due_at,
        paid_at: invoice.paid_at,
        lines: new.lines.into_iter().map(line).collect(),
    }
}

fn print(context: &Context, invoices: &[Listed]) -> Result<Exit, Failure> {
    let titles = ["id", "number", "reseller", "status", "total", "issued", "due", "paid"];
    context.output.records(titles, invoices, |row| {
        let paid = row.paid_at.map(|at| at.to_string()).unwrap_or_default();
        [
            row.id.to_string(),
            row.number.clone(),
            row.reseller.to_string(),
            row.status.to_owned(),
            format!("{} {}", row.total, row.currency),
            row.issued_at.to_string(),
            row.due_at.to_string(),
            paid,
        ]
    })?;
    Ok(Exit::Done)
}
