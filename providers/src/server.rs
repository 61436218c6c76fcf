//! The answering end: a request is a pure function in two steps, `admit` outside the transaction and a [`Work`] inside it.
//!
//! Time, randomness, the peer's address and the operator's rules come in as arguments, so a request can be run again (a retried
//! transaction), replayed and simulated.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use ulid::Ulid;

use crate::books::{Account, AccountId, AuditRow, Books, Fault, Invoice, KeyRow};
use crate::message::{Headers, Request, Response};
use crate::money::Minor;
use crate::target::TargetRules;

/// Of the request-target in an audit row, in bytes.
const AUDIT_TARGET_MAX: usize = 512;
/// Of the method in an audit row, in bytes.
const AUDIT_METHOD_MAX: usize = 16;

/// One provider's API, as the host serves it to resellers.
pub trait Server: Sync {
    /// The path below which the API is served unless configured otherwise, without a trailing slash. It is not signed.
    fn mount(&self) -> &'static str;

    /// Why this API cannot be served below a prefix, if that is so.
    fn refuses_mount(&self, _prefix: &str) -> Option<&'static str> {
        None
    }

    /// Whether paths of this API begin with this one, which is below its mount: nobody else can be served there.
    fn owns(&self, path: &str) -> bool;

    /// Whether the body is worth reading: false when the head alone decides the answer. `head.body` is empty.
    fn wants_body(&self, head: &Request) -> bool;

    /// Whether admission may take long, since it derives a key: then it must not hold up other requests.
    fn admits_slowly(&self, _request: &Request) -> bool {
        false
    }

    /// The checks that need no transaction: form, signature, source address. Slow work (key derivation) belongs here.
    fn admit(&self, visit: Arc<Visit>, keys: &dyn Keys) -> Result<Admission, Fault>;

    /// What the host answers without asking this API, in its form.
    fn turn_away(&self, why: TurnedAway, request_id: &str) -> Response;

    /// A new key's public id, which is not secret. A sandbox's keys are told from others where the API has two kinds.
    fn new_key_id(&self, rng: &mut StdRng, is_sandbox: bool) -> String;

    /// A new key's secret: at least 40 characters of base62.
    fn new_secret(&self, rng: &mut StdRng) -> SecretString;

    /// Whether requests name no key, so that it is found by the one address it is bound to.
    fn finds_keys_by_address(&self) -> bool {
        false
    }

    /// What keys of this API may be allowed to do; empty where there is only one kind of key.
    fn scopes(&self) -> &'static [Scope] {
        &[]
    }

    /// The headers by which a receiver knows that a webhook is this API's, signed with each of the secrets; none where the API has no
    /// webhooks. `at` is the time of the attempt.
    fn sign_webhook(&self, _secrets: &[&[u8]], _at: Timestamp, _body: &[u8]) -> Headers {
        Headers::new()
    }

    /// An event that tells of nothing, for trying a webhook out.
    fn test_event(&self, _moment: &Moment) -> Option<TestEvent> {
        None
    }

    /// Does what has fallen due, a bounded part of it, in one transaction. Returns when it wants to be called next; sooner than
    /// now means that there is more to do at once.
    fn tick(&self, moment: &Moment, books: &mut dyn Books) -> Result<Option<Timestamp>, Fault>;

    /// Takes up one thing that needs something from outside before it can go on, and that nobody is working on; none where there is
    /// none. Whoever takes it up has it for [`Rules::charge_lease`].
    fn errand(&self, _moment: &Moment, _books: &mut dyn Books) -> Result<Option<Errand>, Fault> {
        Ok(None)
    }

    /// Credit has arrived: pays with it what waits for it, in the transaction that brought it.
    fn credited(&self, _moment: &Moment, _account: AccountId, _books: &mut dyn Books) -> Result<(), Fault> {
        Ok(())
    }

    /// Makes the services of a paid order that waits for the operator; false if there is none of this API, or it does not wait.
    fn fulfil_order(&self, _moment: &Moment, _account: AccountId, _order: i64, _books: &mut dyn Books) -> Result<bool, Fault> {
        Ok(false)
    }

    /// Gives up a paid order that waits for the operator: what was paid goes back to the credit. False if there is none of this API, or
    /// it does not wait.
    fn fail_order(&self, _moment: &Moment, _account: AccountId, _order: i64, _books: &mut dyn Books) -> Result<bool, Fault> {
        Ok(false)
    }

    /// Cancels an order that waits for its payment; false if there is none of this API, or it is paid or cancelled already.
    fn cancel_order(&self, _moment: &Moment, _account: AccountId, _order: i64, _books: &mut dyn Books) -> Result<bool, Fault> {
        Ok(false)
    }
}

/// Scheduled work that needs something outside of its transaction.
pub struct Errand {
    /// What is needed.
    pub need: Need,
    /// Makes the work that follows, to be run in a transaction. It may be run more than once; only the last run's writes stay.
    pub then: Box<dyn FnOnce(Met) -> Chore + Send>,
}

/// Work without an answer.
pub type Chore = Box<dyn Fn(&mut dyn Books) -> Result<(), Fault> + Send>;

/// An event that tells of nothing.
pub struct TestEvent {
    /// As the receiver will find it in the body.
    pub id: String,
    /// Its type.
    pub kind: &'static str,
    /// What is posted.
    pub body: String,
}

/// Something a key may be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// As the API's documentation spells it.
    pub name: &'static str,
    /// Whether a new key has it unless asked otherwise.
    pub by_default: bool,
}

/// A request and all that its answer may depend on, the books aside.
pub struct Visit {
    /// As received, the mount's prefix cut off.
    pub request: Request,
    /// What was cut off. It is not signed.
    pub prefix: Arc<str>,
    /// The caller's address: the socket's, or the one a trusted proxy vouches for.
    pub peer: IpAddr,
    /// A ULID; goes into the answer, the audit row and the log.
    pub request_id: String,
    /// When, with what randomness, under which rules.
    pub moment: Moment,
}

impl Visit {
    /// The audit row of this request, which belongs to nobody so far. Method and target are the caller's words: they are cut.
    pub fn audit_row(&self, target: &str, status: u16, event: &str) -> AuditRow {
        AuditRow {
            method: cut(&self.request.method, AUDIT_METHOD_MAX),
            path: cut(target, AUDIT_TARGET_MAX),
            status,
            ..AuditRow::of_event(event, self.moment.now, self.peer, self.request_id.clone())
        }
    }
}

fn cut(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

/// When, with what randomness, under which rules.
#[derive(Clone)]
pub struct Moment {
    /// The wall clock.
    pub now: Timestamp,
    /// Fresh for every request or tick; the only source of randomness.
    pub seed: [u8; 32],
    /// The operator's choices.
    pub rules: Rules,
}

/// A ULID of a moment's seed: the same each time for the same thing, another for every other. It tells nothing of the seed.
pub fn ulid(at: Timestamp, seed: &[u8; 32], of: &[&[u8]]) -> Ulid {
    let digest = of.iter().fold(Sha256::new_with_prefix(seed), |hash, part| hash.chain_update(part)).finalize();
    let random = digest.iter().take(10).fold(0_u128, |random, byte| (random << 8) | u128::from(*byte));
    Ulid::from_parts(u64::try_from(at.as_millisecond()).unwrap_or(0), random)
}

impl Moment {
    /// A generator that gives the same values each time a transaction is run again.
    pub fn rng(&self) -> StdRng {
        StdRng::from_seed(self.seed)
    }
}

/// The operator's choices, from the configuration.
#[derive(Debug, Clone)]
pub struct Rules {
    /// When failed signatures lock a key.
    pub lock: LockRule,
    /// How long a paid order takes to become a service under simulated fulfilment.
    pub fulfilment_delay: Duration,
    /// Whether paid orders wait for the operator, who makes their services by hand.
    pub is_fulfilled_by_hand: bool,
    /// What invoices say.
    pub invoices: InvoiceRule,
    /// When renewals are billed, and what happens to a service whose renewal is not paid.
    pub billing: BillingRule,
    /// How long whoever charges a card is left alone with it: longer than the gateway may take.
    pub charge_lease: Duration,
    /// GP: refuse timestamps whose digits fit no second within 300 s (`gp.freshness`).
    pub freshness: bool,
    /// GP: a second renew of a package within 10 minutes is answered without a charge (`gp.renew_dedupe`).
    pub renew_dedupe: bool,
    /// Where webhooks may be sent.
    pub webhooks: TargetRules,
    /// Until when a restored book may have accepted requests that it has forgotten: what could be one of them is refused.
    pub fence: Option<Timestamp>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            lock: LockRule::default(),
            fulfilment_delay: Duration::from_secs(1),
            is_fulfilled_by_hand: false,
            invoices: InvoiceRule::default(),
            billing: BillingRule::default(),
            charge_lease: Duration::from_secs(60),
            freshness: true,
            renew_dedupe: true,
            webhooks: TargetRules::default(),
            fence: None,
        }
    }
}

/// What invoices say.
#[derive(Debug, Clone)]
pub struct InvoiceRule {
    /// Who bills, with line breaks.
    pub seller: Arc<str>,
    /// The tax that prices include, in hundredths of a percent of the net amount.
    pub tax_basis_points: u32,
}

impl Default for InvoiceRule {
    fn default() -> Self {
        Self { seller: "The operator of this server".into(), tax_basis_points: 0 }
    }
}

/// When renewals are billed (our choice, 2.20), in days from a service's due date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BillingRule {
    /// Before it: the invoice is written.
    pub invoice_days: u32,
    /// After it, unpaid: the service is suspended.
    pub suspend_days: u32,
    /// After it, unpaid: the service is terminated.
    pub terminate_days: u32,
}

impl Default for BillingRule {
    fn default() -> Self {
        Self { invoice_days: 7, suspend_days: 3, terminate_days: 14 }
    }
}

/// When failed signatures lock a key (spec: 5 in 10 minutes, for 15 minutes).
#[derive(Debug, Clone)]
pub struct LockRule {
    /// Whom a lock keeps out.
    pub mode: LockMode,
    /// How many failures within `window`; 0 turns the lock off.
    pub failures: u32,
    /// Seconds in which failures add up.
    pub window_s: i64,
    /// Seconds a lock lasts.
    pub duration_s: i64,
}

impl Default for LockRule {
    fn default() -> Self {
        Self { mode: LockMode::Scoped, failures: 5, window_s: 600, duration_s: 900 }
    }
}

/// Whom a lock keeps out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// The failing network first: key ids are public, and a stranger must not be able to lock an owner out.
    Scoped,
    /// Everybody, as KernelHost publishes it.
    Faithful,
}

/// What admission found.
pub enum Admission {
    /// Needs no transaction (health, a redirect).
    Answered(Response),
    /// To be judged in a transaction: an admitted request, or a refused one that leaves an audit row and perhaps a counted failure.
    Work(Work),
}

/// The second step, inside a transaction. It may be run more than once; only the last run's writes stay.
pub type Work = Box<dyn Fn(&mut dyn Books) -> Result<Step, Fault> + Send>;

/// What a transaction came to.
pub enum Step {
    /// To be sent once the transaction has committed.
    Answer {
        /// The answer.
        response: Response,
        /// Not before this long after the whole request was received, so that what failed cannot be told from when.
        floor: Duration,
    },
    /// The key changed after admission: undo, admit once more with the store's key. A second time in a row is answered as busy.
    Stale,
    /// Committed so far. Something slow comes next, outside any transaction; what it came to goes into the work that follows.
    Between {
        /// What is needed.
        need: Need,
        /// Makes the work that follows.
        then: Resume,
    },
}

/// Makes a request's next work of what was needed for it.
pub type Resume = Box<dyn FnOnce(Met) -> Work + Send>;

/// What must happen between two transactions of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// A short wait: another request under the same idempotency key is still being worked on.
    Pause(Duration),
    /// The addresses of a host name.
    Resolve(String),
    /// A card to be charged.
    Charge(Charge),
    /// An invoice as PDF.
    Print(Box<Paper>),
}

/// What it came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Met {
    /// The wait is over.
    Paused,
    /// All addresses of the name; empty when it has none or cannot be resolved now.
    Resolved(Vec<IpAddr>),
    /// What became of the charge.
    Charged(Charge, Charged),
    /// The PDF's bytes.
    Printed(Vec<u8>),
}

/// A charge to the card that a reseller has on file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// Whose card.
    pub account: AccountId,
    /// The payment's row.
    pub payment: i64,
    /// Who works on it: see [`crate::books::Payment::fence`].
    pub fence: i64,
    /// The order that waits for it, if it is one.
    pub order: Option<i64>,
    /// However often the gateway is asked under it, it charges once and answers the same.
    pub gateway_key: String,
    /// How much.
    pub amount: Minor,
    /// ISO 4217.
    pub currency: String,
}

/// What became of a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charged {
    /// The money is ours.
    Captured,
    /// Nothing was taken, and nothing will be under this key.
    Refused(CardRefusal),
    /// The gateway did not say in time: it must be asked again, under the same key.
    Unknown,
}

/// Why a card gives nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CardRefusal {
    /// The bank or the gateway said no, or wants to hear from the card's owner (3-D Secure), who is not there.
    Declined,
    /// Its time is over.
    Expired,
    /// It is not on file any more.
    NoCard,
}

/// An invoice and whom it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paper {
    /// The invoice.
    pub invoice: Invoice,
    /// The reseller.
    pub buyer: Account,
}

impl Step {
    /// An answer without a floor.
    pub fn answer(response: Response) -> Self {
        Self::Answer { response, floor: Duration::ZERO }
    }
}

/// Why the host answers by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnedAway {
    /// Over the per-address limit; try again after so many seconds.
    RateLimited {
        /// Whole seconds, at least 1.
        retry_after_s: u64,
    },
    /// The body is over 64 KiB.
    BodyTooLarge,
    /// The body did not arrive within 10 s.
    BodyTimeout,
    /// The message is not one this API could understand: a target in absolute form, a body that breaks off.
    Malformed,
    /// The store cannot take the request now, or could not write its audit row. Nothing was executed.
    Busy,
    /// A defect of ours, and nothing was executed; or the store cannot say whether it was.
    Internal,
}

impl TurnedAway {
    /// In an audit row.
    pub fn reason(self) -> &'static str {
        match self {
            Self::RateLimited { .. } => "per_ip_limit",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::Malformed => "malformed",
            Self::Busy => "busy",
            Self::Internal => "internal_error",
        }
    }
}

/// The keys, as admission may ask for them: from a cache, or (rarely, limited per address) from the store.
pub trait Keys {
    /// The key of this provider with this public id.
    fn find(&self, provider: &str, public_id: &str, from: From) -> Result<Option<Arc<Key>>, Fault>;

    /// The keys of this provider that are bound to exactly this address, at most 16.
    fn at_address(&self, provider: &str, address: IpAddr, from: From) -> Result<Vec<Arc<Key>>, Fault>;
}

/// How fresh a key must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// A cached one will do.
    Cache,
    /// The store's, because the cached one is missing or did not match: another process may have made or rotated it.
    Store,
}

/// A reseller's key, opened.
#[derive(Debug)]
pub struct Key {
    /// The row it stands in.
    pub row: KeyRow,
    /// Counts up with each rotation, revocation and change of limits: the transaction compares it.
    pub version: i64,
    /// Whose it is.
    pub account: AccountId,
    /// Not secret.
    pub public_id: String,
    /// The owner's name for it.
    pub label: String,
    /// The HMAC key, or GP's API key.
    pub secret: SecretString,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Where it may be used from; empty for everywhere.
    pub allowed: Vec<IpNet>,
    /// How often it may be used.
    pub limits: KeyLimits,
    /// Since when.
    pub created_at: Timestamp,
    /// Until when, if ever.
    pub expires_at: Option<Timestamp>,
    /// Revoked keys are unknown to every caller.
    pub revoked: bool,
}

impl Key {
    /// Neither revoked nor expired.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        !self.revoked && self.expires_at.is_none_or(|end| now < end)
    }

    /// Whether the allow-list admits an address.
    pub fn allows(&self, peer: IpAddr) -> bool {
        self.allowed.is_empty() || self.allowed.iter().any(|net| net.contains(&peer))
    }
}

/// How often a key may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyLimits {
    /// Tokens that come back per minute.
    pub per_minute: u32,
    /// How many may be spent at once.
    pub burst: u32,
    /// Requests per UTC day.
    pub per_day: u32,
}

impl Default for KeyLimits {
    fn default() -> Self {
        Self { per_minute: 60, burst: 20, per_day: 5000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_targets_are_cut_between_characters() {
        assert_eq!(cut("/v1/me", 512), "/v1/me");
        assert_eq!(cut(&"é".repeat(300), 511).len(), 510);
    }
}
