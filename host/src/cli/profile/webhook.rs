//! `provisor profile webhook`: where a profile's provider sends its events.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde_json::Value;

use crate::cli::book::block_on;
use crate::cli::call::exit_of;
use crate::cli::output::Shown;
use crate::cli::unshown::Unshown;
use crate::cli::{Context, Exit, Failure};
use crate::config::BaseUrl;
use crate::plugin::Caller;
use crate::plugin::contract::Problem;
use crate::plugin::words::to_json;

#[derive(Subcommand)]
pub(super) enum Webhook {
    /// Show where the provider sends events now
    Show {
        /// The profile
        name: String,
    },
    /// Have the provider send events to the gateway; another secret signs them each time
    Set(Set),
    /// Have the provider send events nowhere
    Unset {
        /// The profile
        name: String,
    },
}

#[derive(Args)]
pub(super) struct Set {
    /// The profile
    name: String,
    /// The gateway's address as the provider reaches it, such as <https://gateway.example.com>
    #[arg(long, value_name = "URL", value_parser = Unshown::<BaseUrl>::new())]
    gateway: BaseUrl,
    /// Where the secret is written that signs the events, for the owner's eyes alone
    #[arg(long, value_name = "FILE", required_unless_present = "show_secret")]
    secret_file: Option<PathBuf>,
    /// Write over a file that is there
    #[arg(long, requires = "secret_file")]
    force: bool,
    /// Print the secret instead
    #[arg(long, conflicts_with = "secret_file")]
    show_secret: bool,
}

pub(super) fn run(command: Webhook, context: &Context) -> Result<Exit, Failure> {
    match command {
        Webhook::Show { name } => show(context, &name),
        Webhook::Set(set) => set.run(context),
        Webhook::Unset { name } => unset(context, &name),
    }
}

/// Asks the provider of one profile.
fn ask<T>(context: &Context, name: &str, question: impl AsyncFnOnce(&Caller) -> Result<T, Problem>) -> Result<T, Failure> {
    let home = context.home()?;
    block_on(async {
        let engine = Context::engine(&home)?;
        let plugin = Context::component(&engine, None).await?;
        let caller = context.caller(&home, &plugin, name)?;
        let refused = |problem: Problem| Failure { exit: exit_of(&problem), error: anyhow!(problem.message) };
        question(&caller).await.map_err(refused)
    })
}

#[derive(Serialize)]
struct Told {
    profile: String,
    /// The contract's webhook; null where there is none.
    webhook: Value,
}

fn show(context: &Context, name: &str) -> Result<Exit, Failure> {
    let webhook = ask(context, name, async |caller| caller.get_webhook().await)?;
    let told = Told { profile: name.to_owned(), webhook: to_json(&webhook).map_err(Failure::failed)? };
    context.output.record(&told, |_| match webhook {
        None => "events are sent nowhere".to_owned(),
        Some(webhook) => {
            let properties = webhook.properties.iter().map(|property| format!("{}: {}", property.name, property.value));
            std::iter::once(webhook.url.clone()).chain(properties).collect::<Vec<_>>().join("\n  ")
        }
    })?;
    Ok(Exit::Done)
}

fn unset(context: &Context, name: &str) -> Result<Exit, Failure> {
    ask(context, name, async |caller| caller.set_webhook(None).await)?;
    let told = Told { profile: name.to_owned(), webhook: Value::Null };
    context.output.record(&told, |_| "events are sent nowhere".to_owned())?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Registered<'a> {
    profile: &'a str,
    url: String,
    /// The setting that the secret belongs into.
    setting: Option<String>,
    secret_file: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<Shown>,
}

impl Set {
    fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let url = format!("{}/v1/profiles/{}/events", self.gateway.as_str(), self.name);
        // Whole: the configuration that will name it counts from its own folder.
        let path = self.secret_file.as_deref().map(std::path::absolute).transpose().map_err(Failure::usage)?;
        let (file, secret, setting) = ask(context, &self.name, async |caller| {
            // Made first: a secret that could not be kept is told by nobody again.
            let file = path.as_deref().map(|path| SecretFile::open(path, self.force)).transpose();
            let file = match file {
                Ok(file) => file,
                Err(failure) => return Ok(Err(failure)),
            };
            let secret = caller.set_webhook(Some(url.clone())).await;
            Ok(match secret {
                Ok(secret) => Ok((file, secret, setting(caller))),
                Err(problem) => {
                    file.into_iter().for_each(SecretFile::give_up);
                    return Err(problem);
                }
            })
        })??;
        let kept = match (file, &secret) {
            (Some(file), Some(secret)) => Some(file.keep(secret)?),
            (Some(file), None) => {
                file.give_up();
                None
            }
            (None, _) => None,
        };
        let registered = Registered {
            profile: &self.name,
            url,
            setting,
            secret_file: kept.and(path.as_deref()),
            secret: secret.filter(|_| self.show_secret).map(Shown),
        };
        context.output.record(&registered, Registered::text)?;
        Ok(Exit::Done)
    }
}

impl Registered<'_> {
    fn text(&self) -> String {
        let place = match (&self.secret, self.secret_file) {
            (Some(secret), _) => format!("The secret, shown this once: {}\nkept in a file of its own,", secret.text()),
            (None, Some(file)) => format!("The secret is in {}", file.display()),
            (None, None) => return format!("events are sent to {}; the provider told no secret", self.url),
        };
        let (Some(setting), file) = (&self.setting, self.secret_file.unwrap_or(Path::new("FILE"))) else {
            return format!("events are sent to {}\n{place}", self.url);
        };
        let line = format!("settings = {{ {setting} = {{ file = \"{}\" }} }}", file.display());
        format!(
            "events are sent to {}\n{place}\nand counts once the configuration names it under [profiles.{}]:\n\n  {line}\n\n\
             A running gateway reads it at SIGHUP.",
            self.url, self.profile
        )
    }
}

/// The setting without which the provider's events cannot be verified.
fn setting(caller: &Caller) -> Option<String> {
    let receive = caller.provider()?.capabilities.iter().find(|capability| capability.operation == "receive")?;
    receive.properties.iter().find(|property| property.name == "needs-setting").map(|property| property.value.clone())
}

/// A file for a secret that is yet to come.
struct SecretFile<'a> {
    path: &'a Path,
    file: File,
    is_new: bool,
}

impl<'a> SecretFile<'a> {
    /// Makes it, or takes the one that is there. What that holds stays until another secret is kept.
    fn open(path: &'a Path, force: bool) -> Result<Self, Failure> {
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600);
        let opened = match options.clone().create_new(true).open(path) {
            Err(error) if force && error.kind() == io::ErrorKind::AlreadyExists => options.open(path).map(|file| (file, false)),
            made => made.map(|file| (file, true)),
        };
        let (file, is_new) = opened
            .with_context(|| format!("cannot write the secret into {}; nothing was sent", path.display()))
            .map_err(Failure::usage)?;
        Ok(Self { path, file, is_new })
    }

    fn keep(mut self, secret: &SecretString) -> Result<(), Failure> {
        let mut write = || {
            self.file.set_permissions(Permissions::from_mode(0o600))?;
            self.file.set_len(0)?;
            self.file.write_all(secret.expose_secret().as_bytes())?;
            self.file.sync_all()
        };
        let lost = || format!("the secret is lost: {} could not be written. Set the webhook again", self.path.display());
        write().with_context(lost).map_err(Failure::failed)
    }

    fn give_up(self) {
        if self.is_new {
            // An empty file is left at worst.
            let _removed = fs::remove_file(self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_s_file_is_its_owner_s_and_none_is_written_over_unasked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        SecretFile::open(&path, false).unwrap().give_up();
        assert!(!path.exists());
        fs::write(&path, "a longer one from before").unwrap();
        assert!(SecretFile::open(&path, false).is_err());
        SecretFile::open(&path, true).unwrap().give_up();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a longer one from before");
        SecretFile::open(&path, true).unwrap().keep(&"new".into()).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode & 0o777), ("new", 0o600));
    }
}
