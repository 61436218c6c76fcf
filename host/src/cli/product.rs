//! `provisor product`: what this server sells.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use provisor_providers::books::Books;
use serde::Serialize;

use super::book::block_on;
use super::{Context, Exit, Failure};
use crate::store::Catalogue;

/// A catalogue larger than this is not one, in bytes.
const FILE_MAX: u64 = 4 * 1024 * 1024;

/// List what is on sale, or put a catalogue on sale
#[derive(Args)]
#[command(after_help = "\
Examples:
  provisor product list
  provisor product import catalogue.toml   products are added or replaced by id, packages as a whole list")]
pub(super) struct Product {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List products and packages with their prices
    List,
    /// Put the products and packages of a TOML file on sale
    Import {
        /// The file; `provisor product import --help` says what happens to what is on sale already
        file: PathBuf,
    },
}

pub(super) fn run(command: Product, context: &Context) -> Result<Exit, Failure> {
    match command.command {
        Command::List => list(context),
        Command::Import { file } => import(context, &file),
    }
}

#[derive(Serialize)]
struct Listed {
    id: String,
    name: String,
    family: String,
    prices: Vec<String>,
}

fn list(context: &Context) -> Result<Exit, Failure> {
    let (products, packages) =
        context.book()?.read(|books| Ok((books.products()?, books.packages()?))).map_err(Failure::failed)?;
    let products = products.into_iter().map(|product| Listed {
        id: product.id.to_string(),
        name: product.name,
        family: product.family,
        prices: product.prices.iter().map(|price| format!("{} {} {}", price.price, price.currency, price.cycle)).collect(),
    });
    let packages = packages.into_iter().map(|package| Listed {
        id: package.name.clone(),
        name: package.name,
        family: "firewall".to_owned(),
        prices: package.prices.iter().map(|(currency, price)| format!("{price} {currency} monthly")).collect(),
    });
    let listed: Vec<Listed> = products.chain(packages).collect();
    context.output.records(["id", "name", "family", "prices"], &listed, |row| {
        [row.id.clone(), row.name.clone(), row.family.clone(), row.prices.join(", ")]
    })?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Imported {
    products: usize,
    packages: usize,
}

fn import(context: &Context, file: &Path) -> Result<Exit, Failure> {
    let catalogue = read(file).with_context(|| format!("{}: nothing was imported", file.display())).map_err(Failure::usage)?;
    let imported = Imported { products: catalogue.products.len(), packages: catalogue.packages.len() };
    let store = context.book()?;
    block_on(async move { store.transact(move |books| books.import(&catalogue)).await.map_err(Failure::failed) })?;
    context.output.record(&imported, |done| format!("{} products, {} packages", done.products, done.packages))?;
    Ok(Exit::Done)
}

fn read(file: &Path) -> anyhow::Result<Catalogue> {
    if file.metadata()?.len() > FILE_MAX {
        return Err(anyhow!("a catalogue is at most {FILE_MAX} bytes"));
    }
    Ok(Catalogue::parse(&std::fs::read_to_string(file)?)?)
}
