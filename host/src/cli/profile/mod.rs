//! `provisor profile`: the providers' accounts that panels may use.

mod webhook;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

use super::book::block_on;
use super::{Context, Exit, Failure};
use crate::plugin::words::to_json;

/// List the profiles of the configuration, try them out, and have their providers tell the gateway of events
#[derive(Args)]
#[command(after_help = "\
Examples:
  provisor profile list
  provisor profile check                   ask every profile's provider whether it lets us in
  provisor profile check kh-main
  provisor profile webhook set kh-main --gateway https://gateway.example.com --secret-file kh-webhook.secret
  provisor profile webhook show kh-main

Profiles stand in the configuration; `provisor config show` has them, never their secrets.")]
pub(super) struct Profile {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the profiles
    List,
    /// Ask providers whether they accept the profiles' credentials
    Check {
        /// Only this one
        name: Option<String>,
    },
    /// Where a profile's provider sends its events
    #[command(subcommand)]
    Webhook(webhook::Webhook),
}

pub(super) fn run(command: Profile, context: &Context) -> Result<Exit, Failure> {
    match command.command {
        Command::List => list(context),
        Command::Check { name } => check(context, name.as_deref()),
        Command::Webhook(command) => webhook::run(command, context),
    }
}

#[derive(Serialize)]
struct Listed {
    name: String,
    provider: String,
    base_url: Option<String>,
    allow_private: bool,
}

fn list(context: &Context) -> Result<Exit, Failure> {
    let config = context.paths.configuration(&context.environment)?;
    let listed: Vec<Listed> = config
        .profiles
        .into_iter()
        .map(|(name, profile)| Listed {
            name,
            provider: profile.provider,
            base_url: profile.base_url.map(|url| url.as_str().to_owned()),
            allow_private: profile.allow_private,
        })
        .collect();
    context.output.records(["name", "provider", "base url", ""], &listed, |row| {
        let url = row.base_url.clone().unwrap_or_else(|| "the provider's own".to_owned());
        let note = if row.allow_private { "allow_private: for development only" } else { "" };
        [row.name.clone(), row.provider.clone(), url, note.to_owned()]
    })?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Checked {
    name: String,
    ok: bool,
    account: Option<Value>,
    problem: Option<Value>,
}

fn check(context: &Context, only: Option<&str>) -> Result<Exit, Failure> {
    let home = context.home()?;
    let names: Vec<String> = match only {
        Some(name) => vec![name.to_owned()],
        None => home.config.profiles.keys().cloned().collect(),
    };
    if names.is_empty() {
        return Err(Failure::usage(anyhow!("the configuration has no profile")));
    }
    let checked = block_on(async {
        let engine = Context::engine(&home)?;
        let plugin = Context::component(&engine, None).await?;
        let mut checked = Vec::new();
        for name in names {
            let told = context.caller(&home, &plugin, &name)?.check().await;
            let (account, problem) = (told.as_ref().ok().map(to_json), told.as_ref().err().map(to_json));
            let account = account.transpose().map_err(Failure::failed)?;
            checked.push(Checked { name, ok: told.is_ok(), account, problem: problem.transpose().map_err(Failure::failed)? });
        }
        Ok(checked)
    })?;
    context.output.records(["name", "", ""], &checked, |row| {
        let text = |value: &Option<Value>, member: &str| {
            value.as_ref().and_then(|value| value[member].as_str()).unwrap_or_default().to_owned()
        };
        let said = if row.ok { text(&row.account, "name") } else { text(&row.problem, "message") };
        [row.name.clone(), if row.ok { "ok" } else { "FAILED" }.to_owned(), said]
    })?;
    Ok(if checked.iter().all(|row| row.ok) { Exit::Done } else { Exit::Failed })
}
