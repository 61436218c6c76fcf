//! `provisor webhook`: where resellers are told of events, and what became of each.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use provisor_providers::books::{AccountId, NewEvent};
use provisor_providers::server::Rules;
use serde::Serialize;

use super::book::block_on;
use super::{Context, Exit, Failure};
use crate::clock::{Clock, System};
use crate::store::DeliverySummary;

/// Look at webhooks and their deliveries, repeat a delivery, try a webhook out
#[derive(Args)]
#[command(after_help = "\
Examples:
  provisor webhook list
  provisor webhook deliveries --dead       what was given up
  provisor webhook redeliver 17 18         send it once more, under the same event id
  provisor webhook test kh_live_...        send an event that tells of nothing

Resellers set their webhooks through the API. Deliveries are made by `provisor serve`: what is put out here, it sends within a second.")]
pub(super) struct Webhook {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the webhooks, never their secrets
    List {
        /// Only this reseller's
        #[arg(long, value_name = "ID")]
        reseller: Option<i64>,
    },
    /// List deliveries, the newest first
    Deliveries {
        /// Only those to the webhook of this key
        #[arg(long, value_name = "ID")]
        key: Option<String>,
        /// Only those that were given up
        #[arg(long)]
        dead: bool,
        /// How many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
    },
    /// Send deliveries once more, with all their attempts
    Redeliver {
        /// Their numbers, as `webhook deliveries` shows them
        #[arg(required = true, value_name = "NUMBER")]
        deliveries: Vec<i64>,
    },
    /// Send an event of the type webhook.test, whatever the webhook listens to
    Test {
        /// The key whose webhook it is, as `webhook list` shows it
        key: String,
    },
}

pub(super) fn run(command: Webhook, context: &Context) -> Result<Exit, Failure> {
    match command.command {
        Command::List { reseller } => list(context, reseller.map(AccountId)),
        Command::Deliveries { key, dead, limit } => deliveries(context, key.as_deref(), dead, limit),
        Command::Redeliver { deliveries } => redeliver(context, deliveries),
        Command::Test { key } => test(context, &key),
    }
}

#[derive(Serialize)]
struct Listed {
    key: String,
    reseller: i64,
    url: String,
    /// Empty for all.
    events: Vec<String>,
    waiting: i64,
    failing_since: Option<String>,
    disabled_at: Option<String>,
}

fn list(context: &Context, account: Option<AccountId>) -> Result<Exit, Failure> {
    let webhooks = context.book()?.read(|books| books.webhooks(account)).map_err(Failure::failed)?;
    let listed: Vec<Listed> = webhooks
        .into_iter()
        .map(|webhook| Listed {
            key: webhook.key_id,
            reseller: webhook.account.0,
            url: webhook.url,
            events: webhook.events,
            waiting: webhook.waiting,
            failing_since: webhook.failing_since.map(|at| at.to_string()),
            disabled_at: webhook.disabled_at.map(|at| at.to_string()),
        })
        .collect();
    context.output.records(["key", "reseller", "url", "events", "waiting", ""], &listed, |row| {
        let events = if row.events.is_empty() { "all".to_owned() } else { row.events.join(" ") };
        let state = match (&row.disabled_at, &row.failing_since) {
            (Some(at), _) => format!("disabled since {at}"),
            (None, Some(since)) => format!("failing since {since}"),
            (None, None) => String::new(),
        };
        [row.key.clone(), row.reseller.to_string(), row.url.clone(), events, row.waiting.to_string(), state]
    })?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Delivery {
    #[serde(rename = "delivery")]
    id: i64,
    key: String,
    event: String,
    #[serde(rename = "type")]
    kind: String,
    /// `waiting`, `delivered` or `dead`.
    state: &'static str,
    created_at: String,
    attempts: u32,
    next_at: Option<String>,
    delivered_at: Option<String>,
    dead_at: Option<String>,
    last_status: Option<u16>,
    last_error: Option<String>,
}

impl From<DeliverySummary> for Delivery {
    fn from(row: DeliverySummary) -> Self {
        Self {
            id: row.id,
            key: row.key_id,
            event: row.event_id,
            kind: row.kind,
            state: match (row.delivered_at, row.dead_at) {
                (Some(_), _) => "delivered",
                (None, Some(_)) => "dead",
                (None, None) => "waiting",
            },
            created_at: row.created_at.to_string(),
            attempts: row.attempts,
            next_at: row.next_at.map(|at| at.to_string()),
            delivered_at: row.delivered_at.map(|at| at.to_string()),
            dead_at: row.dead_at.map(|at| at.to_string()),
            last_status: row.last_status,
            last_error: row.last_error,
        }
    }
}

fn deliveries(context: &Context, key: Option<&str>, dead: bool, limit: u32) -> Result<Exit, Failure> {
    let rows = context.book()?.read(|books| books.deliveries(key, dead, limit)).map_err(Failure::failed)?;
    let listed: Vec<Delivery> = rows.into_iter().map(Delivery::from).collect();
    context.output.records(["number", "event", "type", "state", "attempts", "next", "last answer"], &listed, |row| {
        let next = row.next_at.clone().unwrap_or_default();
        let last = row.last_error.clone().or_else(|| row.last_status.map(|status| format!("status {status}")));
        let (number, attempts) = (row.id.to_string(), row.attempts.to_string());
        [number, row.event.clone(), row.kind.clone(), row.state.to_owned(), attempts, next, last.unwrap_or_default()]
    })?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Redelivered {
    delivery: i64,
    /// False if there is no such delivery, or if it is on its way already.
    queued: bool,
}

fn redeliver(context: &Context, deliveries: Vec<i64>) -> Result<Exit, Failure> {
    let store = context.book()?;
    let done = block_on(async move {
        let now = System.now();
        let queued = store.transact(move |books| {
            let queue = |id: &i64| books.redeliver(*id, now).map(|queued| Redelivered { delivery: *id, queued });
            deliveries.iter().map(queue).collect::<Result<Vec<_>, _>>()
        });
        queued.await.map_err(Failure::failed)
    })?;
    context.output.records(["number", ""], &done, |row| {
        let word = if row.queued { "queued" } else { "not queued: there is none, or it is on its way already" };
        [row.delivery.to_string(), word.to_owned()]
    })?;
    Ok(if done.iter().all(|row| row.queued) { Exit::Done } else { Exit::Failed })
}

#[derive(Serialize)]
struct Tested {
    delivery: i64,
    event: String,
}

fn test(context: &Context, key_id: &str) -> Result<Exit, Failure> {
    let store = context.book()?;
    let webhooks = store.read(|books| books.webhooks(None)).map_err(Failure::failed)?;
    let webhook = webhooks.into_iter().find(|webhook| webhook.key_id == key_id);
    let webhook =
        webhook.ok_or_else(|| Failure::usage(anyhow!("no key of this id has a webhook; `provisor webhook list` shows them")))?;
    if webhook.disabled_at.is_some() {
        return Err(Failure::failed(anyhow!("the webhook is disabled: its owner has to set it again")));
    }
    let keys = store.read(|books| books.keys(Some(webhook.account))).map_err(Failure::failed)?;
    let provider = keys.into_iter().find(|key| key.public_id == key_id).and_then(|key| provisor_providers::find(&key.provider));
    let moment = System.moment(Rules::default());
    let event = provider.and_then(|provider| provider.server.test_event(&moment));
    let event = event.ok_or_else(|| Failure::failed(anyhow!("this API has no event for trying a webhook out")))?;
    let tested = block_on(async move {
        let added = store.transact(move |books| {
            let new = NewEvent { id: &event.id, kind: event.kind, body: &event.body, at: moment.now };
            let delivery = books.add_delivery(webhook.key, webhook.account, &new)?;
            Ok(Tested { delivery, event: event.id.clone() })
        });
        added.await.map_err(Failure::failed)
    })?;
    context.output.record(&tested, |tested| {
        format!("delivery {} is queued; `provisor webhook deliveries --key {key_id}` shows what became of it", tested.delivery)
    })?;
    Ok(Exit::Done)
}
