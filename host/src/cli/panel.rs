//! `provisor panel`: which billing panels may ask the gateway.

use anyhow::anyhow;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::book::block_on;
use super::output::Shown;
use super::{Context, Exit, Failure};
use crate::clock::{Clock, System};

/// Make, list and revoke the panels that may ask the gateway
#[derive(Args)]
#[command(after_help = "\
Examples:
  provisor panel create --name whmcs1                    may use every profile
  provisor panel create --name shop --profile gp-main
  provisor panel rotate whmcs1             another token for the same panel; the old one counts no more
  provisor panel revoke whmcs1

A token is shown once. The book keeps its SHA-256 alone.")]
pub(super) struct Panel {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a panel and show its token
    Create {
        /// The panel's name, 1 to 64 of A-Z a-z 0-9 . _ -
        #[arg(long)]
        name: String,
        /// A profile that it may use; all, unless one is given
        #[arg(long = "profile", value_name = "NAME")]
        profiles: Vec<String>,
    },
    /// List the panels
    List,
    /// Give a panel another token
    Rotate {
        /// The panel's name
        name: String,
    },
    /// Take a panel's token back; what it asked for stays in the journal
    Revoke {
        /// The panel's name
        name: String,
    },
}

pub(super) fn run(command: Panel, context: &Context) -> Result<Exit, Failure> {
    match command.command {
        Command::Create { name, profiles } => create(context, name, profiles),
        Command::List => list(context),
        Command::Rotate { name } => rotate(context, name),
        Command::Revoke { name } => revoke(context, name),
    }
}

/// A token nobody can guess: 32 random bytes.
fn token() -> (SecretString, [u8; 32]) {
    let token = SecretString::from(format!("pvr_{}", URL_SAFE_NO_PAD.encode(System.seed())));
    let hash = Sha256::digest(token.expose_secret()).into();
    (token, hash)
}

#[derive(Serialize)]
struct Made {
    name: String,
    profiles: Vec<String>,
    token: Shown,
}

fn create(context: &Context, name: String, profiles: Vec<String>) -> Result<Exit, Failure> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !(1..=64).contains(&name.len()) || !name.bytes().all(is_plain) {
        return Err(Failure::usage(anyhow!("a panel's name is 1 to 64 of A-Z a-z 0-9 . _ -")));
    }
    let home = context.home()?;
    if let Some(unknown) = profiles.iter().find(|profile| !home.config.profiles.contains_key(*profile)) {
        return Err(Failure::usage(anyhow!("the configuration has no profile `{unknown}`; `provisor profile list` shows them")));
    }
    let (token, hash) = token();
    let store = home.book()?;
    let (new_name, new_profiles, now) = (name.clone(), profiles.clone(), System.now());
    let is_added = block_on(async move {
        store.transact(move |books| books.add_panel(&new_name, &hash, &new_profiles, now)).await.map_err(Failure::failed)
    })?;
    if !is_added {
        return Err(Failure::failed(anyhow!(
            "there is a panel `{name}` already; `provisor panel rotate` gives it another token"
        )));
    }
    context.output.record(&Made { name, profiles, token: Shown(token) }, show)?;
    Ok(Exit::Done)
}

fn show(made: &Made) -> String {
    let profiles = if made.profiles.is_empty() { "every profile".to_owned() } else { made.profiles.join(", ") };
    format!("panel {} may use {profiles}; its token, shown this once:\n{}", made.name, made.token.text())
}

fn rotate(context: &Context, name: String) -> Result<Exit, Failure> {
    let (token, hash) = token();
    let store = context.book()?;
    let known = store.read(|books| books.panels()).map_err(Failure::failed)?;
    let panel = known.into_iter().find(|panel| panel.name == name).ok_or_else(unknown)?;
    let asked = name.clone();
    block_on(async move { store.transact(move |books| books.set_panel_token(&asked, &hash)).await.map_err(Failure::failed) })?;
    context.output.record(&Made { name, profiles: panel.profiles, token: Shown(token) }, show)?;
    Ok(Exit::Done)
}

/// Without the name: somebody may have given the token.
fn unknown() -> Failure {
    Failure::usage(anyhow!("no panel has this name; `provisor panel list` shows them"))
}

#[derive(Serialize)]
struct Revoked {
    name: String,
    revoked: bool,
}

fn revoke(context: &Context, name: String) -> Result<Exit, Failure> {
    let store = context.book()?;
    let (asked, now) = (name.clone(), System.now());
    let revoked =
        block_on(async move { store.transact(move |books| books.revoke_panel(&asked, now)).await.map_err(Failure::failed) })?;
    if !revoked {
        return Err(unknown());
    }
    context.output.record(&Revoked { name, revoked }, |row| format!("panel {} is revoked", row.name))?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Listed {
    name: String,
    /// Empty for all.
    profiles: Vec<String>,
    created_at: String,
    revoked_at: Option<String>,
}

fn list(context: &Context) -> Result<Exit, Failure> {
    let panels = context.book()?.read(|books| books.panels()).map_err(Failure::failed)?;
    let listed: Vec<Listed> = panels
        .into_iter()
        .map(|panel| Listed {
            name: panel.name,
            profiles: panel.profiles,
            created_at: panel.created_at.to_string(),
            revoked_at: panel.revoked_at.map(|at| at.to_string()),
        })
        .collect();
    context.output.records(["name", "profiles", "made", ""], &listed, |row| {
        let profiles = if row.profiles.is_empty() { "all".to_owned() } else { row.profiles.join(" ") };
        let state = row.revoked_at.as_ref().map(|at| format!("revoked {at}")).unwrap_or_default();
        [row.name.clone(), profiles, row.created_at.clone(), state]
    })?;
    Ok(Exit::Done)
}
