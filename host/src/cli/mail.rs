//! `provisor mail`: what was written to resellers, and to the operator.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Context, Exit, Failure};

/// Look at the mail to resellers and to the operator
#[derive(Args)]
#[command(after_help = "\
Examples:
  provisor mail list

Mail is sent by `provisor serve`: to the server of [mail.smtp], or without one into files in `mail` below the data directory.")]
pub(super) struct Mail {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List mails, the newest first
    List {
        /// How many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
    },
}

#[derive(Serialize)]
struct Listed {
    mail: i64,
    to: String,
    kind: String,
    subject: String,
    /// `waiting`, `sent` or `dead`.
    state: &'static str,
    created_at: String,
    attempts: u32,
    sent_at: Option<String>,
    dead_at: Option<String>,
    last_error: Option<String>,
}

pub(super) fn run(command: &Mail, context: &Context) -> Result<Exit, Failure> {
    let Command::List { limit } = command.command;
    let mails = context.book()?.read(|books| books.mails(limit)).map_err(Failure::failed)?;
    let listed: Vec<Listed> = mails
        .into_iter()
        .map(|mail| Listed {
            mail: mail.id,
            to: mail.address,
            kind: mail.kind,
            subject: mail.subject,
            state: match (mail.sent_at, mail.dead_at) {
                (Some(_), _) => "sent",
                (None, Some(_)) => "dead",
                (None, None) => "waiting",
            },
            created_at: mail.created_at.to_string(),
            attempts: mail.attempts,
            sent_at: mail.sent_at.map(|at| at.to_string()),
            dead_at: mail.dead_at.map(|at| at.to_string()),
            last_error: mail.last_error,
        })
        .collect();
    context.output.records(["number", "to", "subject", "state", "written", "last error"], &listed, |row| {
        let error = row.last_error.clone().unwrap_or_default();
        [row.mail.to_string(), row.to.clone(), row.subject.clone(), row.state.to_owned(), row.created_at.clone(), error]
    })?;
    Ok(Exit::Done)
}
