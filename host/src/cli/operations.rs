//! `provisor operations`: the journal of changes that panels asked for.

use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use super::book::block_on;
use super::serve::stop_signal;
use super::{Context, Exit, Failure};
use crate::clock::{Clock, System};
use crate::gateway::view;
use crate::operations::{AskError, Intervention, intervene};
use crate::store::{ManagedFilter, OperationFilter, OperationState, Store, Unowned, UnownedFilter};

/// Look at the changes that panels asked for, and settle what needs a person
#[derive(Args)]
#[command(after_help = "\
Examples:
  provisor operations list --state dead    what nobody could settle: each waits for a person
  provisor operations show 01K...          every attempt and its cause
  provisor operations resolve 01K... --done --remote-id service/1001 --note 'seen in the provider portal'
  provisor operations resolve 01K... --failed --note 'the provider has no such order'
  provisor operations reconcile            compare every service with its provider; then:
  provisor operations drift
  provisor operations watch                a live view; ctrl-c ends it

States: recorded, running, waiting (for the provider, a payment or the next attempt), unknown (an answer was lost and is being
settled), done, failed, dead (a person is needed).")]
pub(super) struct Operations {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List operations, the newest first
    List {
        /// Only those in this state
        #[arg(long)]
        state: Option<String>,
        /// Only those of this service key
        #[arg(long, value_name = "KEY")]
        service: Option<String>,
        /// How many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
    },
    /// Show an operation with its attempts
    Show {
        /// Its id
        id: String,
    },
    /// Have a waiting, unknown or dead operation tried at once
    Retry {
        /// Its id
        id: String,
    },
    /// End an operation of which nothing was sent
    Cancel {
        /// Its id
        id: String,
    },
    /// Say how an operation came out, once a person has found out
    Resolve {
        /// Its id
        id: String,
        /// The change was made
        #[arg(long, conflicts_with = "failed", required_unless_present = "failed")]
        done: bool,
        /// The change was not made
        #[arg(long)]
        failed: bool,
        /// The provider's id of the service
        #[arg(long, value_name = "ID")]
        remote_id: Option<String>,
        /// What was found out, and by whom
        #[arg(long)]
        note: String,
    },
    /// Have every service compared with its provider, and looked for what no key owns; `serve` does so in the next minutes
    Reconcile {
        /// Only those of this profile
        #[arg(long, value_name = "NAME")]
        profile: Option<String>,
    },
    /// List the services whose provider sees them otherwise than their panel wants, and those there that no key owns
    Drift,
    /// Show what is under way, until ctrl-c
    Watch,
}

pub(super) fn run(command: Operations, context: &Context) -> Result<Exit, Failure> {
    match command.command {
        Command::List { state, service, limit } => list(context, state.as_deref(), service, limit),
        Command::Show { id } => show(context, &id),
        Command::Retry { id } => intervened(context, &id, Intervention::Retry),
        Command::Cancel { id } => intervened(context, &id, Intervention::Cancel),
        Command::Resolve { id, done, remote_id, note, .. } => {
            intervened(context, &id, Intervention::Resolve { done, remote_id, note })
        }
        Command::Reconcile { profile } => reconcile(context, profile),
        Command::Drift => drift(context),
        Command::Watch => watch(context),
    }
}

/// Of a problem's message in a table, in characters.
const MESSAGE_MAX: usize = 80;

/// A member of a shown operation, for a table.
fn cell(row: &Value, member: &str) -> String {
    match &row[member] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn message(row: &Value) -> String {
    row["problem"]["message"].as_str().unwrap_or_default().chars().take(MESSAGE_MAX).collect()
}

fn find(store: &Store, filter: &OperationFilter) -> Result<Vec<Value>, Failure> {
    let found = store.read(|books| books.operations(filter)).map_err(Failure::failed)?;
    Ok(found.iter().map(|(operation, key)| view::operation(operation, key)).collect())
}

fn list(context: &Context, state: Option<&str>, service: Option<String>, limit: u32) -> Result<Exit, Failure> {
    let state = state.map(|word| {
        let words = OperationState::ALL.map(OperationState::as_str).join(", ");
        OperationState::parse(word).ok_or_else(|| Failure::usage(anyhow!("`{word}` is no state; there are: {words}")))
    });
    let filter = OperationFilter { state: state.transpose()?, service, limit, ..OperationFilter::default() };
    let listed = find(&context.book()?, &filter)?;
    context.output.records(["id", "service", "operation", "profile", "state", "attempts", "problem"], &listed, |row| {
        let [id, service, operation, profile, state, attempts] =
            ["id", "service", "operation", "profile", "state", "attempts"].map(|member| cell(row, member));
        [id, service, operation, profile, state, attempts, message(row)]
    })?;
    Ok(Exit::Done)
}

fn show(context: &Context, id: &str) -> Result<Exit, Failure> {
    let store = context.book()?;
    let found = store.read(|books| {
        let Some((operation, key)) = books.operation_of(id)? else { return Ok(None) };
        let attempts = books.operation_attempts(operation.id)?;
        Ok(Some((operation, key, attempts)))
    });
    let (operation, key, attempts) = found.map_err(Failure::failed)?.ok_or_else(|| unknown(id))?;
    let mut shown = view::with_history(&operation, &key, &attempts);
    shown["request"] = serde_json::from_str(&operation.change).unwrap_or_default();
    context.output.record(&shown, |shown| serde_json::to_string_pretty(shown).unwrap_or_default())?;
    Ok(Exit::Done)
}

fn unknown(id: &str) -> Failure {
    Failure::usage(anyhow!("the journal has no operation `{id}`"))
}

fn intervened(context: &Context, id: &str, what: Intervention) -> Result<Exit, Failure> {
    let store = context.book()?;
    let done = block_on(async {
        match intervene(&store, None, id, what, System.now()).await {
            Ok(operation) => operation.ok_or_else(|| unknown(id)),
            Err(AskError::Refused(problem)) => Err(Failure::failed(anyhow!(problem.message))),
            Err(AskError::Store(error)) => Err(Failure::failed(error)),
        }
    })?;
    let shown = json!({"id": done.ulid, "operation": done.kind, "state": done.state.as_str()});
    context.output.record(&shown, |_| format!("operation {} ({}) is {}", done.ulid, done.kind, done.state.as_str()))?;
    Ok(Exit::Done)
}

fn reconcile(context: &Context, profile: Option<String>) -> Result<Exit, Failure> {
    let store = context.book()?;
    let now = System.now();
    let (services, inventories) = block_on(async move {
        let asked = store.transact(move |books| {
            let profile = profile.as_deref();
            Ok((books.check_all(profile, now)?, books.take_inventories(profile, now)?))
        });
        asked.await.map_err(Failure::failed)
    })?;
    context.output.record(&json!({ "services": services, "inventories": inventories }), |_| {
        format!(
            "{services} services will be compared, two a second, and {inventories} profiles looked through for what no key owns; \
             `provisor operations drift` shows what differs"
        )
    })?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Drifted {
    /// None where no key owns it.
    service: Option<String>,
    profile: String,
    remote_id: Option<String>,
    wanted: Option<String>,
    state: String,
    drift: String,
    since: String,
}

impl From<Unowned> for Drifted {
    fn from(found: Unowned) -> Self {
        Self {
            service: None,
            profile: found.profile,
            remote_id: Some(found.remote_id),
            wanted: None,
            state: found.state,
            drift: "unowned".to_owned(),
            since: found.since.to_string(),
        }
    }
}

fn drift(context: &Context) -> Result<Exit, Failure> {
    let filter = ManagedFilter { is_drifted: true, limit: DRIFTED_MAX, ..ManagedFilter::default() };
    let unowned = UnownedFilter { limit: DRIFTED_MAX, ..UnownedFilter::default() };
    let found = context.book()?.read(|books| Ok((books.managed_services(&filter)?, books.unowned_services(&unowned)?)));
    let (found, unowned) = found.map_err(Failure::failed)?;
    let drifted: Vec<Drifted> = found
        .into_iter()
        .filter_map(|service| {
            let (drift, since) = service.drift?;
            Some(Drifted {
                service: Some(service.key),
                profile: service.profile,
                remote_id: service.remote_id,
                wanted: Some(service.wanted),
                state: service.state,
                drift,
                since: since.to_string(),
            })
        })
        .chain(unowned.into_iter().map(Drifted::from))
        .collect();
    context.output.records(["service", "profile", "at the provider", "wanted", "is", "since"], &drifted, |row| {
        let [service, remote_id, wanted] =
            [&row.service, &row.remote_id, &row.wanted].map(|text| text.clone().unwrap_or_default());
        [service, row.profile.clone(), remote_id, wanted, row.drift.clone(), row.since.clone()]
    })?;
    Ok(if drifted.is_empty() { Exit::Done } else { Exit::Failed })
}

/// Services with drift that are listed.
const DRIFTED_MAX: u32 = 1000;
/// How often the live view looks.
const LOOK: Duration = Duration::from_secs(1);
/// Lines of the live view.
const WATCHED: u32 = 20;

fn watch(context: &Context) -> Result<Exit, Failure> {
    let store = context.book()?;
    block_on(async {
        let mut stop = std::pin::pin!(stop_signal()?);
        let mut shown = String::new();
        loop {
            let view = view(context, &store)?;
            if view != shown {
                draw(&view);
                shown = view;
            }
            tokio::select! {
                () = &mut stop => return Ok(Exit::Done),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    })
}

fn draw(view: &str) {
    let mut stdout = std::io::stdout().lock();
    let clear = if stdout.is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    // A closed stdout ends the view at the next signal.
    let _closed = writeln!(stdout, "{clear}{view}").and_then(|()| stdout.flush());
}

fn view(context: &Context, store: &Store) -> Result<String, Failure> {
    let newest = find(store, &OperationFilter { limit: WATCHED, ..OperationFilter::default() })?;
    if context.output.is_json() {
        return serde_json::to_string(&newest).map_err(Failure::failed);
    }
    let open = store.read(|books| books.open_operation_counts()).map_err(Failure::failed)?;
    let counts: Vec<String> = open.iter().map(|(state, count)| format!("{count} {}", state.as_str())).collect();
    let counts = if counts.is_empty() { "nothing is under way".to_owned() } else { counts.join("   ") };
    let lines = newest.iter().map(|row| {
        let [service, operation, profile, state] = ["service", "operation", "profile", "state"].map(|member| cell(row, member));
        let mark = match state.as_str() {
            "done" => "✓",
            "failed" | "dead" => "✗",
            "unknown" => "?",
            _ => "…",
        };
        let when = cell(row, "created_at").get(11..19).unwrap_or_default().to_owned();
        format!("{mark} {when}  {service:<24} {operation:<14} {profile:<12} {state:<8} {}", message(row))
    });
    Ok(std::iter::once(format!("{counts}\n")).chain(lines).collect::<Vec<_>>().join("\n"))
}
