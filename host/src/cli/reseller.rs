//! `provisor reseller`: who may order, and on what credit.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use provisor_providers::PROVIDERS;
use provisor_providers::books::{AccountId, Books, Entry};
use provisor_providers::money::Minor;
use serde::Serialize;

use super::book::block_on;
use super::{Context, Exit, Failure};
use crate::clock::{Clock, System};

/// Make resellers and give them credit
#[derive(Args)]
#[command(after_help = "\
Examples:
  provisor reseller create --name 'Example Ltd' --email owner@example.com --credit 100.00
  provisor reseller credit 1 50.00         add to the credit; -50.00 takes from it
  provisor reseller list")]
pub(super) struct Reseller {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a reseller
    Create {
        /// The reseller's name
        #[arg(long)]
        name: String,
        /// Where mail about keys and invoices goes
        #[arg(long)]
        email: String,
        /// The credit to start with
        #[arg(long, value_name = "AMOUNT", default_value = "0.00")]
        credit: Minor,
        /// The currency of prices and credit, as ISO 4217 names it
        #[arg(long, default_value = "EUR")]
        currency: String,
    },
    /// Add to a reseller's credit, or take from it
    Credit {
        /// The reseller's number
        id: i64,
        /// Such as 50.00, or -50.00
        #[arg(allow_hyphen_values = true)]
        amount: Minor,
    },
    /// List the resellers
    List,
}

pub(super) fn run(command: Reseller, context: &Context) -> Result<Exit, Failure> {
    match command.command {
        Command::Create { name, email, credit, currency } => create(context, &name, &email, credit, &currency),
        Command::Credit { id, amount } => change_credit(context, AccountId(id), amount),
        Command::List => list(context),
    }
}

#[derive(Serialize)]
struct Created {
    id: i64,
}

fn create(context: &Context, name: &str, email: &str, amount: Minor, currency: &str) -> Result<Exit, Failure> {
    if name.trim().is_empty() || !email.contains('@') {
        return Err(Failure::usage(anyhow!("a reseller has a name and an e-mail address")));
    }
    if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(Failure::usage(anyhow!("`{currency}` is not a currency: three capital letters such as EUR")));
    }
    if amount < Minor::ZERO {
        return Err(Failure::usage(anyhow!("a reseller does not start with debts")));
    }
    let (name, email, currency) = (name.to_owned(), email.to_owned(), currency.to_owned());
    let store = context.book()?;
    let id = block_on(async move {
        let made = store.transact(move |books| {
            let now = System.now();
            let id = books.create_account(&name, &email, &currency, now)?;
            if amount > Minor::ZERO {
                books.credit(id, amount, &entry(now))?;
            }
            Ok(id)
        });
        made.await.map_err(Failure::failed)
    })?;
    context.output.record(&Created { id: id.0 }, |made| format!("reseller {}", made.id))?;
    Ok(Exit::Done)
}

fn entry(now: jiff::Timestamp) -> Entry<'static> {
    Entry { at: now, kind: "credit", reference: "operator" }
}

#[derive(Serialize)]
struct Balance {
    id: i64,
    balance: String,
}

fn change_credit(context: &Context, id: AccountId, amount: Minor) -> Result<Exit, Failure> {
    let home = context.home()?;
    let moment = System.moment(home.config.rules());
    let store = home.book()?;
    let balance = block_on(async move {
        let changed = store.transact(move |books| {
            let known = books.has_account(id)?;
            let mut balance = books.credit(id, amount, &entry(moment.now))?;
            if balance.is_some() && amount > Minor::ZERO {
                for provider in PROVIDERS {
                    provider.server.credited(&moment, id, books)?;
                }
                balance = Some(books.account(id).profile()?.balance);
            }
            Ok((known, balance))
        });
        changed.await.map_err(Failure::failed)
    })?;
    match balance {
        (_, Some(balance)) => {
            let balance = Balance { id: id.0, balance: balance.to_string() };
            context.output.record(&balance, |now| format!("reseller {} has {}", now.id, now.balance))?;
            Ok(Exit::Done)
        }
        (true, None) => Err(Failure::failed(anyhow!("reseller {} does not have that much credit", id.0))),
        (false, None) => Err(Failure::usage(anyhow!("there is no reseller {}; `provisor reseller list` shows them", id.0))),
    }
}

#[derive(Serialize)]
struct Listed {
    id: i64,
    name: String,
    email: String,
    balance: String,
    currency: String,
}

fn list(context: &Context) -> Result<Exit, Failure> {
    let accounts = context.book()?.read(|books| books.accounts()).map_err(Failure::failed)?;
    let listed: Vec<Listed> = accounts
        .into_iter()
        .map(|account| Listed {
            id: account.id.0,
            name: account.name,
            email: account.email,
            balance: account.balance.to_string(),
            currency: account.currency,
        })
        .collect();
    context.output.records(["id", "name", "e-mail", "credit", "currency"], &listed, |row| {
        [row.id.to_string(), row.name.clone(), row.email.clone(), row.balance.clone(), row.currency.clone()]
    })?;
    Ok(Exit::Done)
}
