//! `provisor package`: the firewall packages that resellers have, and what packages cost.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use provisor_providers::books::{AccountId, Books, FREE_PACKAGE, Fault, License, Package as OnSale};
use provisor_providers::money::Minor;
use serde::Serialize;

use super::book::block_on;
use super::order::Which;
use super::reseller::check_currency;
use super::{Context, Exit, Failure};
use crate::store::Transaction;

/// Of one domain, in `show`: each was cancelled but for the last.
const SHOWN: u32 = 50;

/// List and show resellers' firewall packages, and set what packages cost
#[derive(Args)]
#[command(after_help = "\
Examples:
  provisor package list --reseller 1
  provisor package show shop.example.com   the package of a domain, and those it had before
  provisor package prices
  provisor package price 10k EUR 5.90      counts from the next charge on, also in servers that are running
  provisor package price 10k USD --remove  not on sale any more to resellers who pay in this currency

Which packages there are, and their order, is a matter of `provisor product import`.")]
pub(super) struct Package {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List resellers' packages, newest first
    List(Which),
    /// Show the package of a domain
    Show {
        /// The domain
        domain: String,
    },
    /// List what packages cost, lowest package first
    Prices,
    /// Set what a package costs for a month
    Price(Price),
}

#[derive(Args)]
struct Price {
    /// The package, as `package prices` shows it
    package: String,
    /// The currency, as ISO 4217 names it
    currency: String,
    /// An amount such as 5.90
    #[arg(required_unless_present = "remove")]
    amount: Option<Minor>,
    /// Take the price away instead
    #[arg(long, conflicts_with = "amount")]
    remove: bool,
}

pub(super) fn run(command: Package, context: &Context) -> Result<Exit, Failure> {
    match command.command {
        Command::List(which) => list(context, &which),
        Command::Show { domain } => show(context, &domain.to_ascii_lowercase()),
        Command::Prices => prices(context),
        Command::Price(price) => set_price(context, price),
    }
}

#[derive(Serialize)]
struct Listed {
    id: i64,
    reseller: i64,
    domain: String,
    package: String,
    state: &'static str,
    /// Of a term, in the reseller's currency; absent if it is not on sale any more.
    price: Option<String>,
    currency: String,
    email: String,
    due_at: Timestamp,
    renewed_at: Option<Timestamp>,
    unpaid_since: Option<Timestamp>,
    created_at: Timestamp,
}

fn list(context: &Context, which: &Which) -> Result<Exit, Failure> {
    print(context, &read(context, |books| books.newest_licenses(which.account(), which.limit))?)
}

fn show(context: &Context, domain: &str) -> Result<Exit, Failure> {
    let found = read(context, |books| books.licenses_of(domain, SHOWN))?;
    if found.is_empty() {
        return Err(Failure::usage(anyhow!("no reseller has or had a package for {domain}")));
    }
    print(context, &found)
}

fn read(
    context: &Context,
    find: impl FnOnce(&mut Transaction<'_>) -> Result<Vec<(AccountId, License)>, Fault>,
) -> Result<Vec<Listed>, Failure> {
    let listed = context.book()?.read(|books| {
        let (found, on_sale) = (find(books)?, books.packages()?);
        let listed = found.into_iter().map(|(account, license)| {
            let currency = books.account(account).profile()?.currency;
            Ok(listed(account, license, currency, &on_sale))
        });
        listed.collect::<Result<Vec<_>, _>>()
    });
    listed.map_err(Failure::failed)
}

fn listed(account: AccountId, license: License, currency: String, on_sale: &[OnSale]) -> Listed {
    let package = on_sale.iter().find(|package| package.name == license.package);
    let price = package.and_then(|package| package.prices.iter().find(|(of, _)| *of == currency));
    Listed {
        id: license.id,
        reseller: account.0,
        domain: license.domain,
        package: license.package,
        state: license.state.as_str(),
        price: price.map(|(_, price)| price.to_string()),
        currency,
        email: license.email,
        due_at: license.due_at,
        renewed_at: license.renewed_at,
        unpaid_since: license.unpaid_since,
        created_at: license.created_at,
    }
}

fn print(context: &Context, packages: &[Listed]) -> Result<Exit, Failure> {
    let titles = ["id", "reseller", "domain", "package", "state", "price", "due"];
    context.output.records(titles, packages, |row| {
        let state = if row.unpaid_since.is_some() { format!("{}, unpaid", row.state) } else { row.state.to_owned() };
        let price = row.price.as_ref().map_or_else(|| "not on sale".to_owned(), |price| format!("{price} {}", row.currency));
        let (domain, package) = (row.domain.clone(), row.package.clone());
        [row.id.to_string(), row.reseller.to_string(), domain, package, state, price, row.due_at.to_string()]
    })?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Priced {
    package: String,
    currency: String,
    price: String,
}

fn prices(context: &Context) -> Result<Exit, Failure> {
    let on_sale = context.book()?.read(|books| books.packages()).map_err(Failure::failed)?;
    let priced = on_sale.into_iter().flat_map(|package| {
        let name = package.name;
        let priced =
            move |(currency, price): (String, Minor)| Priced { package: name.clone(), currency, price: price.to_string() };
        package.prices.into_iter().map(priced)
    });
    let priced: Vec<Priced> = priced.collect();
    context.output.records(["package", "currency", "per month"], &priced, |row| {
        [row.package.clone(), row.currency.clone(), row.price.clone()]
    })?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Set {
    package: String,
    currency: String,
    /// None: not on sale in this currency.
    price: Option<String>,
}

fn set_price(context: &Context, Price { package, currency, amount, .. }: Price) -> Result<Exit, Failure> {
    check_currency(&currency)?;
    if amount.is_some_and(|amount| amount < Minor::ZERO) {
        return Err(Failure::usage(anyhow!("a package does not cost less than nothing")));
    }
    let store = context.book()?;
    let on_sale = store.read(|books| books.packages()).map_err(Failure::failed)?;
    let Some(package) = on_sale.iter().find(|on_sale| on_sale.name.eq_ignore_ascii_case(&package)).cloned() else {
        let names: Vec<String> = on_sale.into_iter().map(|package| package.name).collect();
        return Err(Failure::usage(anyhow!("there is no package `{package}`; there are: {}", names.join(", "))));
    };
    if package.name == FREE_PACKAGE {
        return Err(Failure::usage(anyhow!("{} is the package that costs nothing", package.name)));
    }
    let set = Set { package: package.name, currency, price: amount.map(|amount| amount.to_string()) };
    let (name, of) = (set.package.clone(), set.currency.clone());
    let is_set = block_on(async move {
        let set = store.transact(move |books| books.set_package_price(&name, &of, amount));
        set.await.map_err(Failure::failed)
    })?;
    if !is_set {
        let Set { package, currency, .. } = set;
        return Err(Failure::failed(anyhow!(
            "resellers who pay in {currency} have the package {package}: nobody could renew it"
        )));
    }
    context.output.record(&set, |set| match &set.price {
        Some(price) => format!("{}: {price} {} a month", set.package, set.currency),
        None => format!("{}: not on sale in {}", set.package, set.currency),
    })?;
    Ok(Exit::Done)
}
