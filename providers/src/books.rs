//! What a provider's server may ask of the store, inside one transaction.
//!
//! The questions that cross tenants are named on [`Books`]; everything that belongs to one reseller goes through
//! [`Books::account`], whose every statement carries the account. A method earns its place by being needed by a server.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::limits::Meter;
use crate::message::Response;
use crate::money::Minor;

/// An enum with one spelling per case, the same in the books and on the wire.
macro_rules! spelled {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$case_doc:meta])* $case:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$case_doc])* $case,)+
        }

        impl $name {
            /// Its spelling.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$case => $text,)+
                }
            }

            /// The case of a spelling.
            pub fn parse(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$case),)+
                    _ => None,
                }
            }
        }
    };
}

/// The store could not do this: full, gone, or in conflict with another transaction. Nothing of the transaction stays.
#[derive(Debug, Clone, thiserror::Error)]
#[error("store: {0}")]
pub struct Fault(pub String);

/// A reseller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AccountId(pub i64);

/// A key's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyRow(pub i64);

/// One transaction on the books.
pub trait Books {
    /// Runs `work` under a savepoint. Its `Undo`, fault or panic takes back all that it wrote and nothing else.
    fn attempt(&mut self, work: &mut dyn FnMut(&mut dyn Books) -> Result<Keep, Fault>) -> Result<Attempted, Fault>;

    /// One reseller's part of the books. Nothing else reaches it.
    fn account(&mut self, id: AccountId) -> Box<dyn AccountBooks + '_>;

    /// How a key stands: one question for what every request asks. `None` when the row is gone.
    fn standing(&mut self, key: KeyRow, now: Timestamp) -> Result<Option<Standing>, Fault>;
    /// The version of a key as it stands now; `None` when the row is gone.
    fn key_version(&mut self, key: KeyRow) -> Result<Option<i64>, Fault>;
    /// When the key was last used with success.
    fn last_used(&mut self, key: KeyRow) -> Result<Option<Timestamp>, Fault>;
    /// Notes a success.
    fn touch_key(&mut self, key: KeyRow, now: Timestamp) -> Result<(), Fault>;

    /// Spends a nonce; false if it is spent already. An expired one may be spent again.
    fn spend_nonce(&mut self, key: KeyRow, nonce: &str, now: Timestamp, expires_at: Timestamp) -> Result<bool, Fault>;
    /// The key's meter; a full one if it was never used.
    fn meter(&mut self, key: KeyRow) -> Result<Option<Meter>, Fault>;
    /// Writes the meter back and, with `used_at`, notes a success.
    fn set_meter(&mut self, key: KeyRow, meter: &Meter, used_at: Option<Timestamp>) -> Result<(), Fault>;

    /// Locks of a key that are in force.
    fn locks(&mut self, key: KeyRow, now: Timestamp) -> Result<Vec<Lock>, Fault>;
    /// Locks a network, or with `None` everybody, out of a key.
    fn add_lock(&mut self, key: KeyRow, lock: &Lock) -> Result<(), Fault>;
    /// Counted failures since a moment, oldest first, at most 1,000.
    fn failures(&mut self, key: KeyRow, since: Timestamp) -> Result<Vec<Failure>, Fault>;
    /// Counts a failure.
    fn add_failure(&mut self, key: KeyRow, failure: &Failure) -> Result<(), Fault>;

    /// The answer recorded under an idempotency key that has not expired.
    fn idempotent(&mut self, scope: &IdempotencyScope<'_>, now: Timestamp) -> Result<Option<Recorded>, Fault>;
    /// Records an answer, over an older or unfinished one.
    fn record_idempotent(&mut self, scope: &IdempotencyScope<'_>, recorded: &Recorded) -> Result<(), Fault>;

    /// Appends a row to the audit chain of its stream. Without it there is no answer.
    fn audit(&mut self, row: &AuditRow) -> Result<(), Fault>;

    /// All products on sale, by id.
    fn products(&mut self) -> Result<Vec<Product>, Fault>;
    /// One product on sale.
    fn product(&mut self, id: i64) -> Result<Option<Arc<Product>>, Fault>;
    /// Takes `quantity` from a product's stock; false if there is not enough. Products without stock always have enough.
    fn take_stock(&mut self, product: i64, quantity: u32) -> Result<bool, Fault>;
    /// Puts back what was taken and not sold.
    fn return_stock(&mut self, product: i64, quantity: u32) -> Result<(), Fault>;
    /// Paid orders whose fulfilment is due, oldest first, and pending ones past their expiry.
    fn due_orders(&mut self, now: Timestamp, limit: u32) -> Result<Vec<(AccountId, i64)>, Fault>;
    /// When the next order falls due.
    fn next_due_order(&mut self) -> Result<Option<Timestamp>, Fault>;
    /// Services whose billing has something to do, longest due first.
    fn due_services(&mut self, now: Timestamp, limit: u32) -> Result<Vec<(AccountId, i64)>, Fault>;
    /// When the next service's billing has.
    fn next_due_service(&mut self) -> Result<Option<Timestamp>, Fault>;
    /// Card payments that nobody is working on: begun, and their lease is over. Longest first.
    fn abandoned_payments(&mut self, now: Timestamp, limit: u32) -> Result<Vec<(AccountId, i64)>, Fault>;

    /// How an accepted GP hash was used before under this key.
    fn hash_use(&mut self, key: KeyRow, hash: &str) -> Result<Option<HashUse>, Fault>;
    /// Notes an accepted hash; kept until the key is rotated.
    fn record_hash(&mut self, key: KeyRow, hash: &str, used: &HashUse) -> Result<(), Fault>;
    /// The initialisation vector under which a ciphertext was seen before.
    fn envelope_iv(&mut self, key: KeyRow, ciphertext_sha256: &[u8; 32]) -> Result<Option<[u8; 16]>, Fault>;
    /// Notes a ciphertext.
    fn record_envelope(&mut self, key: KeyRow, ciphertext_sha256: &[u8; 32], iv: &[u8; 16], now: Timestamp) -> Result<(), Fault>;
    /// The firewall packages on sale, lowest first, with prices.
    fn packages(&mut self) -> Result<Vec<Package>, Fault>;
    /// Whose live firewall license a domain has. The one thing a reseller can learn of others.
    fn licensee(&mut self, domain: &str) -> Result<Option<AccountId>, Fault>;
    /// The domains of live licenses that the scheduler has to look at, longest due first.
    fn due_licenses(&mut self, now: Timestamp, limit: u32) -> Result<Vec<(AccountId, String)>, Fault>;
    /// When it has to look at the next one.
    fn next_due_license(&mut self) -> Result<Option<Timestamp>, Fault>;
}

/// One reseller's part of the books.
pub trait AccountBooks {
    /// The reseller.
    fn profile(&mut self) -> Result<Account, Fault>;
    /// Takes an amount from the credit, if there is enough: false, and nothing taken, if not. `entry` says what for.
    fn charge(&mut self, amount: Minor, entry: &Entry<'_>) -> Result<bool, Fault>;

    /// Adds an amount to the credit. `entry` says why.
    fn deposit(&mut self, amount: Minor, entry: &Entry<'_>) -> Result<(), Fault>;

    /// Writes an order and the invoice that bills it, both unpaid.
    fn place(&mut self, order: &NewOrder, invoice: &NewInvoice) -> Result<Order, Fault>;
    /// Writes an order and the invoice that bills it, both paid from the credit and due for fulfilment at `due_at`, if ever by
    /// itself; nothing at all when the credit does not suffice.
    fn buy(&mut self, order: &NewOrder, invoice: &NewInvoice, due_at: Option<Timestamp>) -> Result<Option<Order>, Fault>;
    /// An order.
    fn order(&mut self, id: i64) -> Result<Option<Order>, Fault>;
    /// Orders that wait for their payment, oldest first.
    fn pending_orders(&mut self, limit: u32) -> Result<Vec<i64>, Fault>;
    /// Writes an order's status and what goes with it, if its status still is `from`; whether it was.
    fn set_order(&mut self, order: &Order, from: OrderStatus) -> Result<bool, Fault>;

    /// A new unpaid invoice; returns its id.
    fn add_invoice(&mut self, invoice: &NewInvoice) -> Result<i64, Fault>;
    /// An invoice.
    fn invoice(&mut self, id: i64) -> Result<Option<Invoice>, Fault>;
    /// Invoices by id, `limit` of them after `offset`.
    fn invoices(&mut self, offset: u64, limit: u32) -> Result<Vec<Invoice>, Fault>;
    /// How many invoices there are.
    fn count_invoices(&mut self) -> Result<u64, Fault>;
    /// The invoice that renews a service from this due date, if there is one that is not cancelled.
    fn renewal_invoice(&mut self, service: i64, term_from: Timestamp) -> Result<Option<Invoice>, Fault>;
    /// Unpaid invoices that renew services and are due, oldest first.
    fn unpaid_renewals(&mut self, now: Timestamp, limit: u32) -> Result<Vec<i64>, Fault>;
    /// Marks an unpaid invoice paid; false if it is not unpaid any more.
    fn pay_invoice(&mut self, id: i64, now: Timestamp) -> Result<bool, Fault>;
    /// Marks an unpaid invoice cancelled; false if it is not unpaid any more.
    fn cancel_invoice(&mut self, id: i64) -> Result<bool, Fault>;

    /// A new payment by card, begun. An invoice has one at a time.
    fn add_payment(&mut self, payment: &NewPayment<'_>) -> Result<Payment, Fault>;
    /// A payment.
    fn payment(&mut self, id: i64) -> Result<Option<Payment>, Fault>;
    /// The newest payment of an invoice.
    fn last_payment(&mut self, invoice: i64) -> Result<Option<Payment>, Fault>;
    /// Takes over a payment that is still being charged under this fencing number: it counts up, and the lease begins anew. False
    /// if somebody else was first.
    fn claim_payment(&mut self, id: i64, fence: i64, lease_until: Timestamp) -> Result<bool, Fault>;
    /// Writes how a payment ended, if it is still being charged under this fencing number; whether it was.
    fn finish_payment(&mut self, id: i64, fence: i64, end: &PaymentEnd<'_>) -> Result<bool, Fault>;

    /// A new service with its login, active; returns its id.
    fn add_service(&mut self, service: &NewService) -> Result<i64, Fault>;
    /// A service.
    fn service(&mut self, id: i64) -> Result<Option<Service>, Fault>;
    /// Services by id, `limit` of them after `offset`.
    fn services(&mut self, offset: u64, limit: u32) -> Result<Vec<Service>, Fault>;
    /// How many services there are.
    fn count_services(&mut self) -> Result<u64, Fault>;
    /// Writes a service's status, power, due date and what its billing does next.
    fn set_service(&mut self, service: &Service) -> Result<(), Fault>;
    /// A service's login, opened.
    fn login(&mut self, service: i64) -> Result<Option<Login>, Fault>;
    /// A service's new password.
    fn set_password(&mut self, service: i64, password: &SecretString) -> Result<(), Fault>;

    /// A key's webhook, if one is set.
    fn webhook(&mut self, key: KeyRow) -> Result<Option<Webhook>, Fault>;
    /// Sets a key's webhook, or changes it; one that was disabled is enabled again.
    fn set_webhook(&mut self, key: KeyRow, webhook: &NewWebhook<'_>) -> Result<(), Fault>;
    /// Unsets a key's webhook. What was not delivered yet never will be.
    fn unset_webhook(&mut self, key: KeyRow, now: Timestamp) -> Result<(), Fault>;
    /// Puts an event into the outbox of every webhook of this reseller that listens to its kind. Writes nothing where none does.
    fn add_event(&mut self, event: &NewEvent<'_>) -> Result<(), Fault>;
    /// Puts a mail to this reseller's address into the outbox.
    fn queue_mail(&mut self, mail: &Mail) -> Result<(), Fault>;
    /// How many mails of a kind were queued for this reseller after a moment.
    fn mails_since(&mut self, kind: &str, since: Timestamp) -> Result<u64, Fault>;
    /// Whether the reseller wants a mail each time credentials are read.
    fn notifies_credentials(&mut self) -> Result<bool, Fault>;

    /// The live (not cancelled) firewall license of a domain.
    fn license(&mut self, domain: &str) -> Result<Option<License>, Fault>;
    /// A new license; returns its id. A domain has one live license at most, over all accounts.
    fn add_license(&mut self, license: &License) -> Result<i64, Fault>;
    /// Writes a license's package, state, password hash, dates and what the scheduler does next.
    fn set_license(&mut self, license: &License) -> Result<(), Fault>;
}

/// Whether what was written stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It does.
    Keep,
    /// It does not.
    Undo,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempted {
    /// What it wrote stays.
    Kept,
    /// It asked for it to be undone.
    Undone,
    /// It failed or panicked, and what it wrote was undone. The cause is in the log.
    Broke,
}

/// How a key stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// As it stands now.
    pub version: i64,
    /// None if it was never used.
    pub meter: Option<Meter>,
    /// Those in force.
    pub locks: Vec<Lock>,
}

/// A lock in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// The network kept out (see [`crate::limits::network`]); `None` for everybody.
    pub network: Option<String>,
    /// The first moment it no longer holds.
    pub until: Timestamp,
}

/// A counted failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Where it came from.
    pub network: String,
    /// When.
    pub at: Timestamp,
}

/// What an idempotency key belongs to.
#[derive(Debug, Clone, Copy)]
pub struct IdempotencyScope<'a> {
    /// Whose key.
    pub key: KeyRow,
    /// Upper case.
    pub method: &'a str,
    /// The path from `/v1` on.
    pub path: &'a str,
    /// The header's value.
    pub idempotency_key: &'a str,
}

/// What was answered under an idempotency key.
#[derive(Clone)]
pub struct Recorded {
    /// Of the request's raw body.
    pub body_sha256: [u8; 32],
    /// As it was sent.
    pub response: Response,
    /// The order that waits for its payment: the same request again tries to pay this one.
    pub unfinished_order: Option<i64>,
    /// When the first answer was given.
    pub at: Timestamp,
    /// The first moment it no longer counts.
    pub expires_at: Timestamp,
}

/// A row of the audit log; stream, sequence and hash are the books' own.
#[derive(Debug, Clone)]
pub struct AuditRow {
    /// Whose stream; `None` for requests that belong to nobody.
    pub account: Option<AccountId>,
    /// When.
    pub at: Timestamp,
    /// The key's public id, as claimed.
    pub key_id: Option<String>,
    /// The caller's address.
    pub peer: IpAddr,
    /// The request's method.
    pub method: String,
    /// The request-target, cut at 512 bytes.
    pub path: String,
    /// The answer's status.
    pub status: u16,
    /// Why it was refused.
    pub reason: Option<String>,
    /// As in `X-Request-Id`.
    pub request_id: String,
    /// What happened, such as `request`, `credentials.read`, `key.locked`.
    pub event: String,
    /// For the operator only. Never a secret.
    pub detail: Option<String>,
}

impl AuditRow {
    /// Something that happened, of nobody and without a request.
    pub fn of_event(event: &str, at: Timestamp, peer: IpAddr, request_id: String) -> Self {
        Self {
            account: None,
            at,
            key_id: None,
            peer,
            method: String::new(),
            path: String::new(),
            status: 200,
            reason: None,
            request_id,
            event: event.to_owned(),
            detail: None,
        }
    }
}

/// A reseller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The row.
    pub id: AccountId,
    /// Where mail goes.
    pub email: String,
    /// As the operator wrote it.
    pub name: String,
    /// ISO 4217.
    pub currency: String,
    /// The credit left.
    pub balance: Minor,
    /// Whether a card can be charged.
    pub has_card: bool,
    /// Closed by the operator: nothing is sold to it any more.
    pub is_closed: bool,
    /// Whether a webhook listens: where none does, no event needs to be made.
    pub listens: bool,
}

/// Why money moved: a line of the ledger.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// When.
    pub at: Timestamp,
    /// Such as `order`, `renewal`, `gp.autoregister`.
    pub kind: &'a str,
    /// What it paid: an invoice's id, a license's domain.
    pub reference: &'a str,
}

/// Something that can be ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// The id that orders name.
    pub id: i64,
    /// For people.
    pub name: String,
    /// `kvm`, `dedicated`, `webspace`, `minecraft`, `vpn` or `traffic`.
    pub family: String,
    /// For people.
    pub description: String,
    /// By currency and billing cycle.
    pub prices: Vec<Price>,
    /// What may or must be chosen with it.
    pub config_options: Vec<ConfigOption>,
    /// How many are left; `None` for no limit.
    pub stock: Option<u32>,
}

/// What a product costs for one cycle in one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// ISO 4217.
    pub currency: String,
    /// Such as `monthly`.
    pub cycle: String,
    /// Per cycle.
    pub price: Minor,
    /// Once.
    pub setup_fee: Minor,
}

/// Something to choose with a product, as a catalogue's file and the books spell it.
///
/// ```json
/// {"name": "ram", "type": "select", "required": true,
///  "choices": [{"value": "4", "label": "4 GB"}, {"value": "8", "label": "8 GB", "prices": {"EUR": "2.00", "USD": "2.20"}}]}
/// ```
///
/// A price is added to each cycle's price of each service. A choice without prices is free; one that has prices, but none in the
/// reseller's currency, cannot be ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigOption {
    /// What orders name.
    pub name: String,
    /// What values it takes.
    #[serde(rename = "type")]
    pub kind: OptionKind,
    /// Whether an order must name it.
    #[serde(default)]
    pub required: bool,
    /// For `select`, the values; for `quantity`, at most one, with the price of a unit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Choice>,
}

/// What values a config option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptionKind {
    /// One of the choices' values.
    Select,
    /// A number of units.
    Quantity,
    /// Free text.
    Text,
}

/// A choice of a config option.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// What orders name.
    pub value: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What it adds per cycle, by currency.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prices: BTreeMap<String, Minor>,
}

spelled! {
    /// Where an order stands.
    pub enum OrderStatus {
        /// Waits for credit until it expires.
        PendingPayment = "pending_payment",
        /// Paid, to be fulfilled.
        Paid = "paid",
        /// Being fulfilled.
        Provisioning = "provisioning",
        /// Its service exists.
        Completed = "completed",
        /// Not paid in time.
        Cancelled = "cancelled",
    }
}

/// An order to be written.
#[derive(Debug, Clone)]
pub struct NewOrder {
    /// The product's id.
    pub product_id: i64,
    /// The billing cycle.
    pub cycle: String,
    /// At least 1.
    pub quantity: u32,
    /// The chosen options, a JSON object.
    pub config_options: String,
    /// The wished host name.
    pub hostname: Option<String>,
    /// The caller's remark.
    pub note: Option<String>,
    /// Everything due now.
    pub total: Minor,
    /// Due again each cycle.
    pub recurring: Minor,
    /// ISO 4217.
    pub currency: String,
    /// When.
    pub created_at: Timestamp,
    /// When it is cancelled unless paid.
    pub expires_at: Timestamp,
}

/// An order.
#[derive(Debug, Clone)]
pub struct Order {
    /// The row.
    pub id: i64,
    /// As it was written.
    pub new: NewOrder,
    /// The invoice that bills it.
    pub invoice_id: i64,
    /// Where it stands.
    pub status: OrderStatus,
    /// The first service made from it.
    pub service_id: Option<i64>,
    /// When it was paid.
    pub paid_at: Option<Timestamp>,
    /// When it falls due: its fulfilment once paid, its expiry before; `None` when nothing is left to do.
    pub due_at: Option<Timestamp>,
}

/// An invoice to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewInvoice {
    /// What it bills, tax included.
    pub total: Minor,
    /// The tax in it.
    pub tax: Tax,
    /// ISO 4217.
    pub currency: String,
    /// What for: their sum is the total.
    pub lines: Vec<InvoiceLine>,
    /// Who bills, as the operator writes it, with line breaks.
    pub seller: Arc<str>,
    /// The order it belongs to, where that is written already: a renewal's.
    pub order_id: Option<i64>,
    /// The service that it renews, and from which due date on.
    pub renews: Option<(i64, Timestamp)>,
    /// When.
    pub issued_at: Timestamp,
    /// Payable until.
    pub due_at: Timestamp,
}

/// The tax in a total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tax {
    /// Hundredths of a percent of the net amount.
    pub basis_points: u32,
    /// The part of the total that is tax; the rest is net.
    pub amount: Minor,
}

/// A line of an invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoiceLine {
    /// For people.
    pub text: String,
    /// How many.
    pub quantity: u32,
    /// For each, tax included.
    pub each: Minor,
}

spelled! {
    /// Where an invoice stands.
    pub enum InvoiceStatus {
        /// To be paid.
        Unpaid = "unpaid",
        /// Paid.
        Paid = "paid",
        /// Will never be paid.
        Cancelled = "cancelled",
    }
}

/// An invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    /// The row.
    pub id: i64,
    /// As it was written.
    pub new: NewInvoice,
    /// Where it stands.
    pub status: InvoiceStatus,
    /// When it was paid.
    pub paid_at: Option<Timestamp>,
}

impl Invoice {
    /// The number that people know it by, such as `KH-2027-000123`: the year of its issue (UTC), and its place in the book's
    /// one row of invoices, which goes on over the years. A number that was given is never given again; the cancelled keep theirs.
    pub fn number(&self) -> String {
        format!("KH-{}-{:06}", self.new.issued_at.to_zoned(TimeZone::UTC).year(), self.id)
    }

    /// The total without tax.
    pub fn net(&self) -> Minor {
        Minor(self.new.total.0 - self.new.tax.amount.0)
    }
}

/// A payment by card to be begun.
#[derive(Debug, Clone, Copy)]
pub struct NewPayment<'a> {
    /// The invoice it pays.
    pub invoice_id: i64,
    /// Counts the tries at this invoice, from 1.
    pub attempt: u32,
    /// The gateway charges once for each.
    pub gateway_key: &'a str,
    /// What the card is to give.
    pub amount: Minor,
    /// What was taken from the credit for the rest, to be given back when the card refuses.
    pub held: Minor,
    /// ISO 4217.
    pub currency: &'a str,
    /// When.
    pub at: Timestamp,
    /// Until when whoever began it is left alone with it.
    pub lease_until: Timestamp,
}

spelled! {
    /// Where a payment by card stands.
    pub enum PaymentStatus {
        /// The gateway is being asked, or has to be asked again: what it did is not known yet.
        Charging = "charging",
        /// The card was charged, the invoice is paid.
        Done = "done",
        /// The card was not charged.
        Failed = "failed",
        /// The card was charged when the invoice could not be paid any more: the money became credit.
        Refunded = "refunded",
    }
}

/// A payment by card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// The row.
    pub id: i64,
    /// The invoice it pays.
    pub invoice_id: i64,
    /// Counts the tries at this invoice, from 1.
    pub attempt: u32,
    /// The gateway charges once for each.
    pub gateway_key: String,
    /// What the card is to give.
    pub amount: Minor,
    /// What was taken from the credit for the rest.
    pub held: Minor,
    /// ISO 4217.
    pub currency: String,
    /// Where it stands.
    pub status: PaymentStatus,
    /// Counts those who worked on it.
    pub fence: i64,
    /// When it was begun.
    pub at: Timestamp,
    /// Until when whoever works on it is left alone; `None` once it ended.
    pub lease_until: Option<Timestamp>,
    /// Why it failed.
    pub reason: Option<String>,
}

/// How a payment ended.
#[derive(Debug, Clone, Copy)]
pub struct PaymentEnd<'a> {
    /// Not [`PaymentStatus::Charging`].
    pub status: PaymentStatus,
    /// Why it failed.
    pub reason: Option<&'a str>,
    /// When.
    pub at: Timestamp,
}

spelled! {
    /// Where a service stands.
    pub enum ServiceStatus {
        /// Being made.
        Provisioning = "provisioning",
        /// In use.
        Active = "active",
        /// Switched off, kept.
        Suspended = "suspended",
        /// Gone.
        Terminated = "terminated",
        /// Could not be made.
        Failed = "failed",
    }
}

spelled! {
    /// Whether a machine runs.
    pub enum Power {
        /// It does.
        Running = "running",
        /// It does not.
        Stopped = "stopped",
    }
}

/// A service to be written.
#[derive(Debug)]
pub struct NewService {
    /// The order it was made from.
    pub order_id: i64,
    /// The product's id.
    pub product_id: i64,
    /// Whether it runs; `None` where there is nothing to switch.
    pub power: Option<Power>,
    /// Its host name.
    pub hostname: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The billing cycle.
    pub cycle: String,
    /// Due each cycle.
    pub recurring: Minor,
    /// ISO 4217.
    pub currency: String,
    /// Paid until.
    pub next_due_at: Timestamp,
    /// When its billing has something to do.
    pub bill_at: Timestamp,
    /// When.
    pub created_at: Timestamp,
    /// How to log in.
    pub login: Login,
}

/// A service.
#[derive(Debug, Clone)]
pub struct Service {
    /// The row.
    pub id: i64,
    /// The order it was made from.
    pub order_id: i64,
    /// The product's id.
    pub product_id: i64,
    /// Where it stands.
    pub status: ServiceStatus,
    /// Whether it runs; `None` where there is nothing to switch.
    pub power: Option<Power>,
    /// Its host name.
    pub hostname: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The billing cycle.
    pub cycle: String,
    /// Due each cycle.
    pub recurring: Minor,
    /// ISO 4217.
    pub currency: String,
    /// Paid until.
    pub next_due_at: Timestamp,
    /// When its billing next has something to do; `None` once it is gone.
    pub bill_at: Option<Timestamp>,
    /// Since when it is suspended because its renewal is not paid; `None` if it is not, or somebody else suspended it.
    pub unpaid_since: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// How to log in to a service. The password is sealed in the books.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user.
    pub username: String,
    /// Never stored in clear.
    pub password: SecretString,
    /// The port.
    pub port: u16,
}

/// Something that happened to a reseller's orders, services or invoices.
#[derive(Debug, Clone, Copy)]
pub struct NewEvent<'a> {
    /// Names the event in every delivery of it.
    pub id: &'a str,
    /// Such as `order.paid`.
    pub kind: &'a str,
    /// What is posted: JSON, at most 64 KiB.
    pub body: &'a str,
    /// When.
    pub at: Timestamp,
}

/// A key's webhook.
#[derive(Debug)]
pub struct Webhook {
    /// Where events are sent.
    pub url: String,
    /// The types it listens to; empty for all.
    pub events: Vec<String>,
    /// What deliveries are signed with.
    pub secret: SecretString,
    /// Since when nothing is sent, because too much failed.
    pub disabled_at: Option<Timestamp>,
    /// The last attempt.
    pub last_delivery: Option<LastDelivery>,
}

/// The last attempt at telling a webhook something.
#[derive(Debug)]
pub struct LastDelivery {
    /// The event's id.
    pub event_id: String,
    /// Its type.
    pub kind: String,
    /// When.
    pub at: Timestamp,
    /// How often it was tried so far.
    pub attempts: u32,
    /// Whether it is with the receiver.
    pub is_delivered: bool,
    /// The receiver's answer, if there was one.
    pub status: Option<u16>,
}

/// A webhook to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewWebhook<'a> {
    /// Where events are sent.
    pub url: &'a str,
    /// The types it listens to; empty for all.
    pub events: &'a [String],
    /// A new secret. The one before signs too until `previous_until`.
    pub secret: Option<&'a SecretString>,
    /// When the secret before no longer signs.
    pub previous_until: Timestamp,
    /// Now.
    pub at: Timestamp,
}

/// A mail to be sent. It never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// What it is about, such as `key.locked`: the rules of how often count by it.
    pub kind: String,
    /// One line.
    pub subject: String,
    /// Plain text.
    pub body: String,
    /// When.
    pub at: Timestamp,
}

/// How a GP hash was used.
#[derive(Clone)]
pub struct HashUse {
    /// The endpoint's name.
    pub endpoint: String,
    /// SHA-256 of all the request's parameters in their canonical form.
    pub parameters_sha256: [u8; 32],
    /// Where it came from.
    pub peer: IpAddr,
    /// When.
    pub at: Timestamp,
    /// What was answered.
    pub answer: String,
}

/// The name of the package that costs nothing, whatever its price says.
pub const FREE_PACKAGE: &str = "Free";

/// A firewall package on sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Such as `10k`.
    pub name: String,
    /// Its place in the order: a lower one is a downgrade.
    pub rank: u32,
    /// By currency, for one month.
    pub prices: Vec<(String, Minor)>,
}

spelled! {
    /// Where a license stands.
    pub enum LicenseState {
        /// In use.
        Active = "active",
        /// Switched off, kept.
        Suspended = "suspended",
        /// Gone: the domain is free again.
        Cancelled = "cancelled",
    }
}

/// A firewall license of one domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct License {
    /// The row; 0 before it is written.
    pub id: i64,
    /// Lower case.
    pub domain: String,
    /// The package's name as the catalogue spells it.
    pub package: String,
    /// 40 lower-case hex digits.
    pub token: String,
    /// Where it stands.
    pub state: LicenseState,
    /// Where notifications go.
    pub email: String,
    /// Argon2id, in PHC form.
    pub password_hash: String,
    /// Paid until.
    pub due_at: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last renewed.
    pub renewed_at: Option<Timestamp>,
    /// When the scheduler has to look at it.
    pub look_at: Option<Timestamp>,
    /// Since when it is suspended for want of payment, if it is.
    pub unpaid_since: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_config_option_is_none() {
        let read = |text: &str| serde_json::from_str::<Vec<ConfigOption>>(text);
        assert!(read(r#"[{"name":"a","type":"select","choices":[{"value":"1","prices":{"EUR":"2.00"}}]}]"#).is_ok());
        for text in [
            "",
            "{}",
            r#"[{"name":"a","type":"list"}]"#,
            r#"[{"name":"a","type":"text","requird":true}]"#,
            r#"[{"name":"a","type":"select","choices":[{"value":"1","prices":{"EUR":2}}]}]"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
