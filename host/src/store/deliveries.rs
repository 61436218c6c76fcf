//! Events on their way to webhooks. Several couriers may ask: each takes what it delivers for a while, and what it did is written
//! only if nobody took the delivery after it.

use jiff::Timestamp;
use provisor_providers::books::{AccountId, Fault, KeyRow, NewEvent};
use secrecy::SecretString;

use super::sql::{self, Row, Sql};
use super::{Transaction, webhooks};

/// Webhooks looked at in one claim.
const ENDPOINTS: i64 = 64;
/// Deliveries at a time to one webhook, over all couriers (our choice, 2.13); to one that is failing.
const PER_ENDPOINT: i64 = 4;
const PER_FAILING_ENDPOINT: i64 = 1;
/// Deliveries that one claim gives up, of one webhook that it finds gone.
const BURIED: i64 = 500;

/// What a courier wants.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// Now.
    pub now: Timestamp,
    /// How long it holds what it is given: longer than any delivery takes.
    pub until: Timestamp,
    /// Webhooks up to this one had their turn.
    pub after: KeyRow,
    /// How many deliveries at most, to webhooks in good health.
    pub healthy: i64,
    /// The same for failing ones, so that they do not hold up the others.
    pub failing: i64,
}

/// What a courier was given.
#[derive(Debug)]
pub struct Claimed {
    /// To be delivered.
    pub deliveries: Vec<Delivery>,
    /// Where the next claim begins; `None` when all webhooks had their turn.
    pub after: Option<KeyRow>,
}

/// One event for one webhook.
#[derive(Debug)]
pub struct Delivery {
    /// The row.
    pub id: i64,
    /// Counts the couriers that took it.
    pub fence: i64,
    /// The key whose webhook it is.
    pub key: KeyRow,
    /// Its public id.
    pub key_id: String,
    /// Which API's.
    pub provider: String,
    /// Where to.
    pub url: String,
    /// To sign with, the newest first.
    pub secrets: Vec<SecretString>,
    /// Whether the webhook is failing.
    pub is_failing: bool,
    /// The event's id.
    pub event_id: String,
    /// Earlier attempts.
    pub attempts: u32,
    /// What is posted.
    pub body: String,
}

/// What an attempt came to.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// When.
    pub at: Timestamp,
    /// The receiver's answer, if there was one.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
    /// What follows.
    pub then: Then,
}

/// What follows an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing: the receiver has it.
    Delivered,
    /// Another attempt.
    Again(Timestamp),
    /// Nothing any more.
    Dead,
}

/// A webhook after a failed attempt.
#[derive(Debug)]
pub struct Failing {
    /// Whose.
    pub account: AccountId,
    /// The first failure after the last success.
    pub since: Timestamp,
}

/// A delivery as it is listed.
#[derive(Debug)]
pub struct DeliverySummary {
    /// The row.
    pub id: i64,
    /// The key's public id.
    pub key_id: String,
    /// The event's id.
    pub event_id: String,
    /// Its type.
    pub kind: String,
    /// When it happened.
    pub created_at: Timestamp,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is tried next.
    pub next_at: Option<Timestamp>,
    /// When the receiver took it.
    pub delivered_at: Option<Timestamp>,
    /// When it was given up.
    pub dead_at: Option<Timestamp>,
    /// The last answer.
    pub last_status: Option<u16>,
    /// What went wrong last.
    pub last_error: Option<String>,
}

impl Transaction<'_> {
    /// Takes deliveries that are due, fairly: webhooks in turn, a few of each. Asked first in its transaction, it waits for other
    /// couriers' claims: what they take counts.
    pub fn claim_deliveries(&mut self, claim: &Claim) -> Result<Claimed, Fault> {
        self.sql.claim(sql::Claim::Outbox);
        let keys = due_endpoints(self.sql, claim)?;
        let is_full = i64::try_from(keys.len()).is_ok_and(|found| found == ENDPOINTS);
        let (mut healthy, mut failing) = (claim.healthy, claim.failing);
        let mut claimed = Claimed { deliveries: Vec::new(), after: keys.last().copied().filter(|_| is_full) };
        for key in keys {
            let Some(endpoint) = webhooks::endpoint(self.sql, self.vault, key, claim.now)? else {
                bury(self.sql, key, claim.now, BURIED)?;
                continue;
            };
            let (room, most) =
                if endpoint.is_failing { (&mut failing, PER_FAILING_ENDPOINT) } else { (&mut healthy, PER_ENDPOINT) };
            let free = (most - leased(self.sql, key, claim.now)?).min(*room);
            if free > 0 {
                let taken = take(self.sql, key, claim, free)?;
                *room -= i64::try_from(taken.len()).unwrap_or(free);
                for row in &taken {
                    claimed.deliveries.push(delivery(row, key, &endpoint)?);
                }
            }
        }
        Ok(claimed)
    }

    /// Writes what an attempt came to, unless another courier took the delivery since. What was given up meanwhile stays so, unless it
    /// was delivered. Returns how its webhook stands if the attempt
    /// failed.
    pub fn settle_delivery(&mut self, id: i64, fence: i64, attempt: &Attempt) -> Result<Option<Failing>, Fault> {
        let (next_at, delivered_at, dead_at) = match attempt.then {
            Then::Delivered => (None, Some(attempt.at), None),
            Then::Again(next_at) => (Some(next_at), None, None),
            Then::Dead => (None, None, Some(attempt.at)),
        };
        let row = self.sql.first(
            "UPDATE deliveries SET attempts = attempts + 1, leased_until = NULL, next_at = $1, delivered_at = $2, dead_at = $3,
                                   last_attempt_at = $4, last_status = $5, last_error = $6
             WHERE id = $7 AND fence = $8 AND (dead_at IS NULL OR CAST($2 AS BIGINT) IS NOT NULL) RETURNING key_id",
            &[
                next_at.into(),
                delivered_at.into(),
                dead_at.into(),
                attempt.at.into(),
                attempt.status.map(i64::from).into(),
                attempt.error.as_deref().into(),
                id.into(),
                fence.into(),
            ],
        )?;
        let Some(row) = row else { return Ok(None) };
        let key = row.int(0)?;
        if attempt.then == Then::Delivered {
            self.sql.execute(
                "UPDATE webhooks SET last_delivery_id = $1, failing_since = NULL WHERE key_id = $2",
                &[id.into(), key.into()],
            )?;
            return Ok(None);
        }
        let row = self.sql.first(
            "UPDATE webhooks SET last_delivery_id = $1, failing_since = COALESCE(failing_since, $2)
             WHERE key_id = $3 AND disabled_at IS NULL RETURNING account_id, failing_since",
            &[id.into(), attempt.at.into(), key.into()],
        )?;
        row.map(|row| Ok(Failing { account: AccountId(row.int(0)?), since: row.time(1)? })).transpose()
    }

    /// Sends nothing more to a webhook until its owner sets it again, and gives up what waits for it.
    pub fn disable_webhook(&mut self, key: KeyRow, now: Timestamp) -> Result<(), Fault> {
        self.sql.execute(
            "UPDATE webhooks SET disabled_at = $1 WHERE key_id = $2 AND disabled_at IS NULL",
            &[now.into(), key.0.into()],
        )?;
        bury(self.sql, key, now, i64::MAX)
    }

    /// The newest deliveries, of one key or of all; only those that were given up, if asked so.
    pub fn deliveries(&mut self, key_id: Option<&str>, only_dead: bool, limit: u32) -> Result<Vec<DeliverySummary>, Fault> {
        let rows = self.sql.query(
            "SELECT d.id, k.public_id, d.event_id, d.kind, d.created_at, d.attempts, d.next_at, d.delivered_at, d.dead_at,
                    d.last_status, d.last_error
             FROM deliveries d JOIN api_keys k ON k.id = d.key_id
             WHERE (CAST($1 AS TEXT) IS NULL OR k.public_id = $1) AND (CAST($2 AS BIGINT) = 0 OR d.dead_at IS NOT NULL)
             ORDER BY d.id DESC LIMIT $3",
            &[key_id.into(), i64::from(only_dead).into(), limit.into()],
        )?;
        rows.iter().map(summary).collect()
    }

    /// Makes a delivery due once more, with all its attempts. False if there is none, or if it is on its way already.
    pub fn redeliver(&mut self, id: i64, now: Timestamp) -> Result<bool, Fault> {
        let changed = self.sql.execute(
            "UPDATE deliveries SET next_at = $1, attempts = 0, delivered_at = NULL, dead_at = NULL, fence = fence + 1
             WHERE id = $2 AND next_at IS NULL",
            &[now.into(), id.into()],
        )?;
        Ok(changed == 1)
    }

    /// Puts an event into the outbox of one webhook, whatever it listens to; the delivery's id.
    pub fn add_delivery(&mut self, key: KeyRow, account: AccountId, event: &NewEvent<'_>) -> Result<i64, Fault> {
        self.sql.insert_one(
            "INSERT INTO deliveries (key_id, account_id, event_id, kind, body, created_at, attempts, next_at, fence)
             VALUES ($1, $2, $3, $4, $5, $6, 0, $6, 0)",
            &[key.0.into(), account.0.into(), event.id.into(), event.kind.into(), event.body.into(), event.at.into()],
        )
    }
}

/// Webhooks with something due, in their order from where the last claim ended. The recursion leaps from key to key: a webhook with a
/// million events waiting costs as much as one with a single one.
fn due_endpoints(sql: &mut dyn Sql, claim: &Claim) -> Result<Vec<KeyRow>, Fault> {
    let rows = sql.query(
        "WITH RECURSIVE endpoints (key_id) AS (
           SELECT MIN(key_id) FROM deliveries WHERE next_at IS NOT NULL AND key_id > $1
           UNION ALL
           SELECT (SELECT MIN(d.key_id) FROM deliveries d WHERE d.next_at IS NOT NULL AND d.key_id > endpoints.key_id)
           FROM endpoints WHERE endpoints.key_id IS NOT NULL
         )
         SELECT key_id FROM endpoints
         WHERE key_id IS NOT NULL
           AND EXISTS (SELECT 1 FROM deliveries d WHERE d.key_id = endpoints.key_id AND d.next_at IS NOT NULL AND d.next_at <= $2)
         LIMIT $3",
        &[claim.after.0.into(), claim.now.into(), ENDPOINTS.into()],
    )?;
    rows.iter().map(|row| row.int(0).map(KeyRow)).collect()
}

fn leased(sql: &mut dyn Sql, key: KeyRow, now: Timestamp) -> Result<i64, Fault> {
    let row = sql.first(
        "SELECT COUNT(*) FROM deliveries WHERE key_id = $1 AND leased_until IS NOT NULL AND leased_until > $2",
        &[key.0.into(), now.into()],
    )?;
    row.map_or(Ok(0), |row| row.int(0))
}

fn take(sql: &mut dyn Sql, key: KeyRow, claim: &Claim, most: i64) -> Result<Vec<Row>, Fault> {
    sql.query(
        "UPDATE deliveries SET fence = fence + 1, leased_until = $1, next_at = $1 WHERE id IN
           (SELECT id FROM deliveries WHERE key_id = $2 AND next_at IS NOT NULL AND next_at <= $3 ORDER BY next_at, id LIMIT $4)
         RETURNING id, fence, event_id, attempts, body",
        &[claim.until.into(), key.0.into(), claim.now.into(), most.into()],
    )
}

fn delivery(row: &Row, key: KeyRow, endpoint: &webhooks::Endpoint) -> Result<Delivery, Fault> {
    Ok(Delivery {
        id: row.int(0)?,
        fence: row.int(1)?,
        key,
        key_id: endpoint.key_id.clone(),
        provider: endpoint.provider.clone(),
        url: endpoint.url.clone(),
        secrets: endpoint.secrets.clone(),
        is_failing: endpoint.is_failing,
        event_id: row.text(2)?,
        attempts: row.number(3)?,
        body: row.text(4)?,
    })
}

/// Gives up what waits for a webhook that is gone, so many of it.
pub(super) fn bury(sql: &mut dyn Sql, key: KeyRow, now: Timestamp, most: i64) -> Result<(), Fault> {
    sql.execute(
        "UPDATE deliveries SET next_at = NULL, leased_until = NULL, dead_at = $1, last_error = $2 WHERE id IN
           (SELECT id FROM deliveries WHERE key_id = $3 AND next_at IS NOT NULL ORDER BY next_at LIMIT $4)",
        &[now.into(), "the webhook is unset or disabled".into(), key.0.into(), most.into()],
    )?;
    Ok(())
}

fn summary(row: &Row) -> Result<DeliverySummary, Fault> {
    Ok(DeliverySummary {
        id: row.int(0)?,
        key_id: row.text(1)?,
        event_id: row.text(2)?,
        kind: row.text(3)?,
        created_at: row.time(4)?,
        attempts: row.number(5)?,
        next_at: row.opt_time(6)?,
        delivered_at: row.opt_time(7)?,
        dead_at: row.opt_time(8)?,
        last_status: webhooks::status(row, 9)?,
        last_error: row.opt_text(10)?,
    })
}
