//! Paying invoices: from the credit first, the rest by card, never partly (our choices, 2.5 and 2.11).
//!
//! A charge to a card is a chain of transactions. The first writes the payment under a lease, holds the credit that goes with it
//! and takes the stock; then the gateway is asked under the payment's own key; the last one settles what the gateway said. Whatever
//! a crash leaves in between is found by its lease and taken up again, under the same key, by [`errand`].

use std::time::Duration;

use base16ct::lower as hex;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::problem::{self, Halt};
use super::{Call, invoices, orders, renewals};
use crate::books::{
    Account, AccountId, Books, Entry, Fault, Invoice, InvoiceStatus, NewPayment, Order, Payment, PaymentEnd, PaymentStatus,
};
use crate::money::Minor;
use crate::server::{CardRefusal, Charge, Charged, Errand, Met, Moment, Need};

/// How often, and for how many times, a request waits for another one's payment: 10 s in all.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSES: u32 = 40;
/// Invoices that one arrival of credit may pay; the next one pays on.
const SETTLED_AT_ONCE: u32 = 256;
/// How long a gateway that did not answer is left alone, in seconds.
const GATEWAY_REST_S: i64 = 5;

/// Why something is not paid (spec 12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unpaid {
    NoFunds,
    CardDeclined,
    CardExpired,
    NoClient,
}

impl Unpaid {
    const ALL: [Self; 4] = [Self::NoFunds, Self::CardDeclined, Self::CardExpired, Self::NoClient];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::NoFunds => "insufficient_credit_and_no_card",
            Self::CardDeclined => "card_declined",
            Self::CardExpired => "card_expired",
            Self::NoClient => "client_not_found",
        }
    }

    /// Why the last payment of an invoice failed; without one there was nothing to pay with.
    pub(super) fn of(payment: Option<&Payment>) -> Self {
        let reason = payment.and_then(|payment| payment.reason.as_deref());
        Self::ALL.into_iter().find(|why| Some(why.as_str()) == reason).unwrap_or(Self::NoFunds)
    }
}

/// What may be used to pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum With {
    Credit,
    /// The card too, by whoever has asked, until the lease ends.
    CreditAndCard {
        lease_until: Timestamp,
    },
}

/// What an attempt to pay came to.
#[derive(Debug)]
pub(super) enum Paying {
    Paid,
    Unpaid(Unpaid),
    /// The card has to be charged, outside of the transaction.
    Charge(Charge),
    /// Somebody is charging it already.
    InProgress,
}

/// When the lease of whoever begins to charge a card now ends.
pub(super) fn lease(moment: &Moment) -> Result<Timestamp, Fault> {
    let lease = SignedDuration::try_from(moment.rules.charge_lease).map_err(|error| Fault(error.to_string()))?;
    moment.now.checked_add(lease).map_err(|error| Fault(error.to_string()))
}

/// Pays an invoice in the name of a request, which waits where it must.
pub(super) fn pay(call: &Call<'_>, invoice: &Invoice, is_running: bool, books: &mut dyn Books) -> Result<Paying, Halt> {
    let account = call.key.account;
    let last = books.account(account).last_payment(invoice.id)?;
    if last.as_ref().is_some_and(|payment| payment.status == PaymentStatus::Charging) {
        return Err(wait(call));
    }
    if is_running || matches!(call.met, Some(Met::Charged(..))) {
        // The payment that this request, or the one that it waited for, had begun has ended.
        return Ok(Paying::Unpaid(Unpaid::of(last.as_ref())));
    }
    let lease_until = lease(&call.visit.moment)?;
    match attempt(&call.visit.moment, account, invoice, With::CreditAndCard { lease_until }, books)? {
        Paying::Charge(charge) => Err(Halt::Needs(Need::Charge(charge))),
        Paying::InProgress => Err(wait(call)),
        done => Ok(done),
    }
}

fn wait(call: &Call<'_>) -> Halt {
    // Who charged a card itself has waited for the gateway already.
    let has_charged = matches!(call.met, Some(Met::Charged(..)));
    if has_charged || call.rounds >= PAUSES { problem::request_in_progress().into() } else { Halt::Needs(Need::Pause(PAUSE)) }
}

/// Pays an unpaid invoice, or begins to.
pub(super) fn attempt(
    moment: &Moment,
    account: AccountId,
    invoice: &Invoice,
    with: With,
    books: &mut dyn Books,
) -> Result<Paying, Fault> {
    let profile = books.account(account).profile()?;
    if profile.is_closed {
        return Ok(Paying::Unpaid(Unpaid::NoClient));
    }
    let last = books.account(account).last_payment(invoice.id)?;
    if last.as_ref().is_some_and(|payment| payment.status == PaymentStatus::Charging) {
        return Ok(Paying::InProgress);
    }
    let suffices = profile.balance >= invoice.new.total;
    let may_charge = profile.has_card && matches!(with, With::CreditAndCard { .. });
    if !(suffices || may_charge) || !take_stock(account, invoice, books)? {
        return Ok(Paying::Unpaid(Unpaid::NoFunds));
    }
    if suffices && from_credit(moment, &profile, invoice, books)? {
        return Ok(Paying::Paid);
    }
    if let (false, With::CreditAndCard { lease_until }) = (suffices, with) {
        let attempt = last.map_or(1, |payment| payment.attempt + 1);
        return begin(moment, &profile, invoice, attempt, lease_until, books).map(Paying::Charge);
    }
    return_stock(account, invoice, books)?;
    Ok(Paying::Unpaid(Unpaid::NoFunds))
}

/// Takes the total from the credit and marks everything paid. False, and nothing taken, if the credit does not suffice or the
/// invoice cannot be paid any more.
fn from_credit(moment: &Moment, profile: &Account, invoice: &Invoice, books: &mut dyn Books) -> Result<bool, Fault> {
    let reference = invoice.id.to_string();
    let kind = if invoice.new.renews.is_some() { "renewal" } else { "order" };
    let entry = |kind| Entry { at: moment.now, kind, reference: &reference };
    let total = invoice.new.total;
    if !books.account(profile.id).charge(total, &entry(kind))? {
        return Ok(false);
    }
    if mark_paid(moment, profile, invoice, books)? {
        return Ok(true);
    }
    books.account(profile.id).deposit(total, &entry("refund"))?;
    Ok(false)
}

/// Marks an invoice and what it bills as paid; false if it cannot be paid any more, since it or what it bills is cancelled.
fn mark_paid(moment: &Moment, profile: &Account, invoice: &Invoice, books: &mut dyn Books) -> Result<bool, Fault> {
    let is_done = match (invoice.new.renews, invoice.new.order_id) {
        (Some((service, term_from)), _) => renewals::renew(moment, profile, service, term_from, books)?,
        (None, Some(order)) => orders::mark_paid(moment, profile, order, books)?,
        (None, None) => false,
    };
    let mut account = books.account(profile.id);
    if !is_done || !account.pay_invoice(invoice.id, moment.now)? {
        return if is_done { Err(Fault(format!("invoice {} was not unpaid", invoice.id))) } else { Ok(false) };
    }
    let paid = Invoice { status: InvoiceStatus::Paid, paid_at: Some(moment.now), ..invoice.clone() };
    invoices::tell(moment, profile, &mut *account, "invoice.paid", &paid)?;
    Ok(true)
}

/// Writes a payment by card and holds the credit that goes with it.
fn begin(
    moment: &Moment,
    profile: &Account,
    invoice: &Invoice,
    attempt: u32,
    lease_until: Timestamp,
    books: &mut dyn Books,
) -> Result<Charge, Fault> {
    let mut account = books.account(profile.id);
    let held = profile.balance.max(Minor::ZERO);
    let entry = Entry { at: moment.now, kind: "hold", reference: &invoice.id.to_string() };
    if held > Minor::ZERO && !account.charge(held, &entry)? {
        return Err(Fault("the credit changed meanwhile".to_owned()));
    }
    let payment = account.add_payment(&NewPayment {
        invoice_id: invoice.id,
        attempt,
        gateway_key: &gateway_key(profile.id, invoice, attempt),
        amount: Minor(invoice.new.total.0 - held.0),
        held,
        currency: &invoice.new.currency,
        at: moment.now,
        lease_until,
    })?;
    Ok(charge(profile.id, invoice, &payment))
}

fn charge(account: AccountId, invoice: &Invoice, payment: &Payment) -> Charge {
    Charge {
        account,
        payment: payment.id,
        fence: payment.fence,
        order: invoice.new.order_id.filter(|_| invoice.new.renews.is_none()),
        gateway_key: payment.gateway_key.clone(),
        amount: payment.amount,
        currency: payment.currency.clone(),
    }
}

/// The same for each try at an invoice, and another for every other one, of other books too.
fn gateway_key(account: AccountId, invoice: &Invoice, attempt: u32) -> String {
    let parts = [account.0, invoice.id, invoice.new.issued_at.as_millisecond(), i64::from(attempt)];
    let hash = parts.iter().fold(Sha256::new_with_prefix("charge"), |hash, part| hash.chain_update(part.to_be_bytes()));
    hex::encode_string(&hash.finalize())
}

/// Writes down what became of a charge, once: whoever comes under an older fencing number changes nothing.
pub(super) fn settle(moment: &Moment, charge: &Charge, came_to: Charged, books: &mut dyn Books) -> Result<(), Fault> {
    let mut account = books.account(charge.account);
    let rest = moment.now + SignedDuration::from_secs(GATEWAY_REST_S);
    if !account.claim_payment(charge.payment, charge.fence, rest)? || came_to == Charged::Unknown {
        return Ok(());
    }
    let gone = || Fault(format!("payment {} is gone", charge.payment));
    let payment = account.payment(charge.payment)?.ok_or_else(gone)?;
    let invoice = account.invoice(payment.invoice_id)?.ok_or_else(gone)?;
    let reference = invoice.id.to_string();
    let entry = |kind| Entry { at: moment.now, kind, reference: &reference };
    if payment.held > Minor::ZERO {
        account.deposit(payment.held, &entry("release"))?;
    }
    if came_to == Charged::Captured {
        account.deposit(payment.amount, &entry("card"))?;
    }
    let profile = account.profile()?;
    drop(account);
    let is_paid = came_to == Charged::Captured
        && invoice.status == InvoiceStatus::Unpaid
        && from_credit(moment, &profile, &invoice, books)?;
    let (status, reason) = match came_to {
        Charged::Captured if is_paid => (PaymentStatus::Done, None),
        Charged::Captured => (PaymentStatus::Refunded, None),
        Charged::Refused(CardRefusal::Declined) => (PaymentStatus::Failed, Some(Unpaid::CardDeclined.as_str())),
        Charged::Refused(CardRefusal::Expired) => (PaymentStatus::Failed, Some(Unpaid::CardExpired.as_str())),
        Charged::Refused(CardRefusal::NoCard) => (PaymentStatus::Failed, Some(Unpaid::NoFunds.as_str())),
        Charged::Unknown => return Ok(()),
    };
    let end = PaymentEnd { status, reason, at: moment.now };
    if !books.account(charge.account).finish_payment(payment.id, payment.fence, &end)? {
        return Err(Fault(format!("payment {} ended twice", payment.id)));
    }
    if !is_paid {
        return_stock(charge.account, &invoice, books)?;
        // What was held or refunded may be what another order waits for.
        credited(moment, charge.account, books)?;
    }
    Ok(())
}

/// Takes up one payment that nobody works on.
pub(super) fn errand(moment: &Moment, books: &mut dyn Books) -> Result<Option<Errand>, Fault> {
    let Some((account, id)) = books.abandoned_payments(moment.now, 1)?.pop() else { return Ok(None) };
    let mut books = books.account(account);
    let Some(payment) = books.payment(id)? else { return Ok(None) };
    if !books.claim_payment(id, payment.fence, lease(moment)?)? {
        return Ok(None);
    }
    let invoice = books.invoice(payment.invoice_id)?.ok_or_else(|| Fault(format!("invoice {} is gone", payment.invoice_id)))?;
    let charge = charge(account, &invoice, &Payment { fence: payment.fence + 1, ..payment });
    let moment = moment.clone();
    Ok(Some(Errand {
        need: Need::Charge(charge),
        then: Box::new(move |met| {
            Box::new(move |books| match &met {
                Met::Charged(charge, came_to) => settle(&moment, charge, *came_to, books),
                _ => Ok(()),
            })
        }),
    }))
}

/// Pays what waits for credit, oldest first, as far as the credit goes: orders that are pending, and renewals that are due. What it
/// does not suffice for does not hold up what it suffices for.
pub(super) fn credited(moment: &Moment, account: AccountId, books: &mut dyn Books) -> Result<(), Fault> {
    let mut books_of = books.account(account);
    let mut waiting = books_of.unpaid_renewals(moment.now, SETTLED_AT_ONCE)?;
    for id in books_of.pending_orders(SETTLED_AT_ONCE)? {
        let order = books_of.order(id)?.filter(|order: &Order| moment.now < order.new.expires_at);
        waiting.extend(order.map(|order| order.invoice_id));
    }
    drop(books_of);
    waiting.sort_unstable();
    for id in waiting {
        let invoice = books.account(account).invoice(id)?;
        if let Some(invoice) = invoice.filter(|invoice| invoice.status == InvoiceStatus::Unpaid) {
            attempt(moment, account, &invoice, With::Credit, books)?;
        }
    }
    Ok(())
}

/// Stock goes with an order's payment, and comes back with it.
fn take_stock(account: AccountId, invoice: &Invoice, books: &mut dyn Books) -> Result<bool, Fault> {
    let Some(order) = ordered(account, invoice, books)? else { return Ok(true) };
    books.take_stock(order.new.product_id, order.new.quantity)
}

fn return_stock(account: AccountId, invoice: &Invoice, books: &mut dyn Books) -> Result<(), Fault> {
    let Some(order) = ordered(account, invoice, books)? else { return Ok(()) };
    books.return_stock(order.new.product_id, order.new.quantity)
}

/// The order that an invoice bills, unless it renews a service of it.
fn ordered(account: AccountId, invoice: &Invoice, books: &mut dyn Books) -> Result<Option<Order>, Fault> {
    match invoice.new.order_id.filter(|_| invoice.new.renews.is_none()) {
        Some(id) => books.account(account).order(id),
        None => Ok(None),
    }
}
