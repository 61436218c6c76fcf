//! `provisor reseller`: who may order, and on what credit.

use std::path::Path;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use provisor_providers::PROVIDERS;
use provisor_providers::books::{AccountId, Books, Entry, Fault};
use provisor_providers::money::Minor;
use provisor_providers::server::Moment;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use zeroize::Zeroizing;

use super::book::{block_on, note};
use super::{Context, Exit, Failure, read_file};
use crate::clock::{Clock, System};
use crate::store::Transaction;

/// Make resellers, give them credit, put their card on file
#[derive(Args)]
#[command(after_help = "\
Examples:
  provisor reseller create --name 'Example Ltd' --email owner@example.com --credit 100.00
  provisor reseller credit 1 50.00         add to the credit; -50.00 takes from it
  provisor reseller card 1 --token -       put a card on file, its token read from stdin
  provisor reseller suspend 1              sell it nothing more; what it has stays until it falls due
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
    /// Put a reseller's card on file, or take it off
    #[command(after_help = "\
Cards of the simulated gateway: sim_success is charged, sim_slow after a second, sim_lost with its first answer lost; sim_declined,
sim_expired and sim_3ds (which wants its owner's consent) are refused, as is every token that it does not know.")]
    Card {
        /// The reseller's number
        id: i64,
        /// The card gateway's token for the card; with - it is read from stdin. It is sealed in the book
        #[arg(long, required_unless_present = "remove", conflicts_with = "remove")]
        token: Option<String>,
        /// What people know the card by
        #[arg(long, default_value = "card", conflicts_with = "remove")]
        label: String,
        /// Take the card off
        #[arg(long)]
        remove: bool,
    },
    /// Sell a reseller nothing more: orders and renewals are answered as unpaid, `client_not_found`
    Suspend {
        /// The reseller's number
        id: i64,
    },
    /// Sell to a suspended reseller again
    Unsuspend {
        /// The reseller's number
        id: i64,
    },
    /// Change what a reseller wants
    Set {
        /// The reseller's number
        id: i64,
        /// Send a mail to the reseller each time a service's credentials are read
        #[arg(long, value_name = "ON|OFF")]
        notify_credentials: Switch,
    },
    /// List the resellers
    List,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Switch {
    On,
    Off,
}

pub(super) fn run(command: Reseller, context: &Context) -> Result<Exit, Failure> {
    match command.command {
        Command::Create { name, email, credit, currency } => create(context, &name, &email, credit, &currency),
        Command::Credit { id, amount } => change_credit(context, AccountId(id), amount),
        Command::Card { id, token, label, remove } => {
            let token = token.as_deref().filter(|_| !remove);
            card(context, AccountId(id), token, &label)
        }
        Command::Suspend { id } => close(context, AccountId(id), true),
        Command::Unsuspend { id } => close(context, AccountId(id), false),
        Command::Set { id, notify_credentials } => set(context, AccountId(id), matches!(notify_credentials, Switch::On)),
        Command::List => list(context),
    }
}

#[derive(Serialize)]
struct Changed {
    id: i64,
    card_on_file: Option<bool>,
    suspended: Option<bool>,
}

fn card(context: &Context, id: AccountId, token: Option<&str>, label: &str) -> Result<Exit, Failure> {
    let token = match token {
        Some("-") => {
            let bytes = Zeroizing::new(read_file(Path::new("-"))?);
            let text = std::str::from_utf8(&bytes).map_err(Failure::usage)?;
            Some(SecretString::from(text.trim()))
        }
        Some(token) => Some(SecretString::from(token)),
        None => None,
    };
    if token.as_ref().is_some_and(|token| token.expose_secret().is_empty()) {
        return Err(Failure::usage(anyhow!("the token is empty")));
    }
    let (store, label, has_card) = (context.book()?, label.to_owned(), token.is_some());
    let is_known = block_on(async move {
        let set = store.transact(move |books| {
            let is_known = books.set_card(id, token.as_ref().map(|token| (token, label.as_str())))?;
            if is_known {
                note(books, id, None, "reseller.card", Some(if token.is_some() { "put on file" } else { "taken off" }))?;
            }
            Ok(is_known)
        });
        set.await.map_err(Failure::failed)
    })?;
    changed(context, is_known, &Changed { id: id.0, card_on_file: Some(has_card), suspended: None }, |now| {
        let state = if has_card { "has a card on file" } else { "has no card on file" };
        format!("reseller {} {state}", now.id)
    })
}

fn close(context: &Context, id: AccountId, suspend: bool) -> Result<Exit, Failure> {
    let home = context.home()?;
    let moment = System.moment(home.config.rules());
    let store = home.book()?;
    let is_known = block_on(async move {
        let closed = store.transact(move |books| {
            let is_known = books.close_account(id, suspend.then_some(moment.now))?;
            if is_known {
                note(books, id, None, if suspend { "reseller.suspended" } else { "reseller.unsuspended" }, None)?;
            }
            if is_known && !suspend {
                settle(&moment, id, books)?;
            }
            Ok(is_known)
        });
        closed.await.map_err(Failure::failed)
    })?;
    changed(context, is_known, &Changed { id: id.0, card_on_file: None, suspended: Some(suspend) }, |now| {
        format!("reseller {} is {}", now.id, if suspend { "suspended" } else { "active" })
    })
}

fn changed(context: &Context, is_known: bool, now: &Changed, people: impl FnOnce(&Changed) -> String) -> Result<Exit, Failure> {
    if !is_known {
        return Err(Failure::usage(anyhow!("there is no reseller {}; `provisor reseller list` shows them", now.id)));
    }
    context.output.record(now, people)?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Wishes {
    id: i64,
    notify_credentials: bool,
}

fn set(context: &Context, id: AccountId, notify_credentials: bool) -> Result<Exit, Failure> {
    let store = context.book()?;
    let is_known = block_on(async move {
        let since = notify_credentials.then(|| System.now());
        store.transact(move |books| books.notify_credentials(id, since)).await.map_err(Failure::failed)
    })?;
    if !is_known {
        return Err(Failure::usage(anyhow!("there is no reseller {}; `provisor reseller list` shows them", id.0)));
    }
    context.output.record(&Wishes { id: id.0, notify_credentials }, |wishes| {
        let word = if wishes.notify_credentials { "a mail" } else { "no mail" };
        format!("reseller {} gets {word} when credentials are read", wishes.id)
    })?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Created {
    id: i64,
}

/// The form of ISO 4217's codes; which ones there are is not our business.
pub(super) fn check_currency(code: &str) -> Result<(), Failure> {
    if code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Ok(());
    }
    Err(Failure::usage(anyhow!("`{code}` is not a currency: three capital letters such as EUR")))
}

fn create(context: &Context, name: &str, email: &str, amount: Minor, currency: &str) -> Result<Exit, Failure> {
    if name.trim().is_empty() || !email.contains('@') {
        return Err(Failure::usage(anyhow!("a reseller has a name and an e-mail address")));
    }
    check_currency(currency)?;
    if amount < Minor::ZERO {
        return Err(Failure::usage(anyhow!("a reseller does not start with debts")));
    }
    let (name, email, currency) = (name.to_owned(), email.to_owned(), currency.to_owned());
    let store = context.book()?;
    let id = block_on(async move {
        let made = store.transact(move |books| {
            let now = System.now();
            let id = books.create_account(&name, &email, &currency, now)?;
            note(books, id, None, "reseller.created", None)?;
            if amount > Minor::ZERO {
                books.credit(id, amount, &entry(now))?;
                note_credit(books, id, amount)?;
            }
            Ok(id)
        });
        made.await.map_err(Failure::failed)
    })?;
    context.output.record(&Created { id: id.0 }, |made| format!("reseller {}", made.id))?;
    Ok(Exit::Done)
}

fn note_credit(books: &mut Transaction<'_>, id: AccountId, amount: Minor) -> Result<(), Fault> {
    note(books, id, None, "reseller.credited", Some(&amount.to_string()))
}

/// Pays with the credit what waits for it.
fn settle(moment: &Moment, id: AccountId, books: &mut Transaction<'_>) -> Result<(), Fault> {
    PROVIDERS.iter().try_for_each(|provider| provider.server.credited(moment, id, books))
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
            if balance.is_some() {
                note_credit(books, id, amount)?;
            }
            if balance.is_some() && amount > Minor::ZERO {
                settle(&moment, id, books)?;
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
    card_on_file: bool,
    suspended: bool,
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
            card_on_file: account.has_card,
            suspended: account.is_closed,
        })
        .collect();
    context.output.records(["id", "name", "e-mail", "credit", "currency", "card", "state"], &listed, |row| {
        let card = if row.card_on_file { "on file" } else { "" };
        let state = if row.suspended { "suspended" } else { "active" };
        let [id, name, email] = [row.id.to_string(), row.name.clone(), row.email.clone()];
        [id, name, email, row.balance.clone(), row.currency.clone(), card.to_owned(), state.to_owned()]
    })?;
    Ok(Exit::Done)
}
