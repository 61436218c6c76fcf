//! The courier: takes events from the outbox and posts them, at least once each (our choice, 2.13).
//!
//! A delivery is taken in one transaction, posted outside of any, and settled in another. A courier that dies in between holds it
//! until its lease is over; then it is posted again, under the same event id.

mod post;
mod retry;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use provisor_providers::books::{Books as _, KeyRow, Mail};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use secrecy::ExposeSecret as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use self::post::Letter;
pub(super) use self::post::Postman;
use super::State;
use crate::store::{Attempt, Claim, Delivery, Then};

/// How late an event may be noticed; other processes write events too, so the books are asked rather than told.
const TICK: Duration = Duration::from_millis(250);
/// How long a courier holds a delivery: well past what one takes, the store's waits included.
const LEASE: SignedDuration = SignedDuration::from_secs(60);
/// Deliveries at a time to webhooks in good health, and to failing ones: a hundred dead webhooks hold up nobody but each other.
const HEALTHY: usize = 384;
const FAILING: usize = 128;
/// How long a webhook may fail before it is disabled (our choice).
const DISABLED_AFTER: SignedDuration = SignedDuration::from_hours(120);
/// How long a stopping courier waits for what is under way.
const GRACE: Duration = Duration::from_secs(5);
/// Tries to write what a delivery came to; after them, its lease runs out and it is made again.
const SETTLE_TRIES: u32 = 4;
/// "Gone": the receiver wants nothing more.
const GONE: u16 = 410;

pub(super) async fn run(state: Arc<State>, postman: Postman, mut stopped: watch::Receiver<bool>) {
    let postman = Arc::new(postman);
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut healthy, mut failing) = (JoinSet::new(), JoinSet::new());
    let mut after = KeyRow(0);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            Some(_) = healthy.join_next() => {}
            Some(_) = failing.join_next() => {}
            _ = stopped.changed() => break,
        }
        while healthy.try_join_next().is_some() || failing.try_join_next().is_some() {}
        for delivery in claim(&state, &mut after, HEALTHY - healthy.len(), FAILING - failing.len()).await {
            let tasks = if delivery.is_failing { &mut failing } else { &mut healthy };
            tasks.spawn(deliver(Arc::clone(&state), Arc::clone(&postman), delivery));
        }
    }
    let under_way = async { while healthy.join_next().await.is_some() || failing.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, under_way).await.is_err() {
        tracing::warn!("some webhooks had not answered yet: they are told again");
    }
}

async fn claim(state: &State, after: &mut KeyRow, healthy: usize, failing: usize) -> Vec<Delivery> {
    let now = state.clock.now();
    let room = |free: usize| i64::try_from(free).unwrap_or(i64::MAX);
    let claim = Claim { now, until: now + LEASE, after: *after, healthy: room(healthy), failing: room(failing) };
    match state.store.transact(move |books| books.claim_deliveries(&claim)).await {
        Ok(claimed) => {
            *after = claimed.after.unwrap_or(KeyRow(0));
            claimed.deliveries
        }
        Err(error) => {
            tracing::error!(%error, "webhooks have to wait");
            Vec::new()
        }
    }
}

async fn deliver(state: Arc<State>, postman: Arc<Postman>, delivery: Delivery) {
    let Some(api) = provisor_providers::find(&delivery.provider).map(|provider| provider.server) else {
        tracing::error!(provider = delivery.provider, "a webhook of an unknown API");
        return;
    };
    let at = state.clock.now();
    let secrets: Vec<&[u8]> = delivery.secrets.iter().map(|secret| secret.expose_secret().as_bytes()).collect();
    let headers = api.sign_webhook(&secrets, at, delivery.body.as_bytes());
    let letter = Letter { url: &delivery.url, headers, body: &delivery.body };
    let answer = postman.post(letter).await;
    let now = state.clock.now();
    let mut rng = StdRng::from_seed(state.clock.seed());
    let attempt = match answer {
        Ok(answer) if (200..300).contains(&answer.status) => {
            Attempt { at: now, status: Some(answer.status), error: None, then: Then::Delivered }
        }
        Ok(answer) => {
            let retry_after = answer.retry_after.as_deref().and_then(|value| retry::asked(value, now));
            let then = retry::next(delivery.attempts, now, retry_after, &mut rng);
            let then = if answer.status == GONE { Then::Dead } else { then };
            Attempt { at: now, status: Some(answer.status), error: Some(format!("status {}", answer.status)), then }
        }
        Err(error) => {
            let then = retry::next(delivery.attempts, now, None, &mut rng);
            Attempt { at: now, status: None, error: Some(error.to_string()), then }
        }
    };
    let event_id = &delivery.event_id;
    tracing::debug!(event_id, id = delivery.id, status = attempt.status, error = attempt.error, then = ?attempt.then, "webhook");
    settle(&state, &delivery, attempt).await;
}

async fn settle(state: &State, delivery: &Delivery, attempt: Attempt) {
    let (id, fence, key) = (delivery.id, delivery.fence, delivery.key);
    let mail = disabled_mail(delivery, &attempt);
    let is_gone = attempt.status == Some(GONE);
    let work = move |books: &mut crate::store::Transaction<'_>| {
        let Some(failing) = books.settle_delivery(id, fence, &attempt)? else { return Ok(false) };
        let is_over = is_gone || attempt.at.duration_since(failing.since) >= DISABLED_AFTER;
        if is_over {
            books.disable_webhook(key, attempt.at)?;
            books.account(failing.account).queue_mail(&mail)?;
        }
        Ok(is_over)
    };
    for pause_ms in (0..SETTLE_TRIES).map(|tries| 100 << tries) {
        match state.store.transact(work.clone()).await {
            Ok(true) => return tracing::warn!(key_id = delivery.key_id, "a webhook was disabled, and its owner told"),
            Ok(false) => return,
            Err(error) => tracing::error!(%error, id, "what a delivery came to could not be written"),
        }
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
}

fn disabled_mail(delivery: &Delivery, attempt: &Attempt) -> Mail {
    let host = post::host(&delivery.url);
    let why = attempt.error.as_deref().unwrap_or_default();
    Mail {
        kind: "webhook.disabled".to_owned(),
        subject: "A webhook was disabled".to_owned(),
        body: format!(
            "The webhook of the key {} at {host} was disabled at {}.\n\n{} Nothing more is sent there, and what \
             was waiting is given up.\n\nSet the webhook's address again to enable it.\n",
            delivery.key_id,
            seconds(attempt.at),
            if attempt.status == Some(GONE) {
                "It answered 410 Gone.".to_owned()
            } else {
                format!("Every delivery for {} hours has failed; the last one with: {why}.", DISABLED_AFTER.as_hours())
            }
        ),
        at: attempt.at,
    }
}

fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}
