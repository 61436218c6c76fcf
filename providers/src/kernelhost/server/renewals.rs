//! Renewal billing (our choice, 2.20): a service renews by itself. It is billed some days before its due date, charged on it, and
//! suspended and then terminated when it stays unpaid.

use jiff::{SignedDuration, Timestamp};

use super::payments::{self, Paying, With};
use super::{cycle, invoices, services, time};
use crate::books::{
    Account, AccountId, Attempted, Books, Fault, Invoice, InvoiceLine, InvoiceStatus, Keep, PaymentStatus, Power, Service,
    ServiceStatus,
};
use crate::kernelhost::wire::DAY_S;
use crate::server::Moment;

/// Services in one transaction: requests wait for it.
const SERVICES_PER_TICK: u32 = 64;
/// How long a service is set aside whose billing broke or whose card is being charged, in seconds.
const SET_ASIDE_S: i64 = 60;

/// Bills what has fallen due. Returns when the next service does.
pub(super) fn tick(moment: &Moment, books: &mut dyn Books) -> Result<Option<Timestamp>, Fault> {
    for (account, id) in books.due_services(moment.now, SERVICES_PER_TICK)? {
        let attempted = books.attempt(&mut |books| bill(moment, account, id, books).map(|()| Keep::Keep))?;
        if attempted != Attempted::Kept {
            // Else the broken ones would stand before all others for ever.
            set_bill_at(account, id, Some(moment.now + SignedDuration::from_secs(SET_ASIDE_S)), books)?;
        }
    }
    books.next_due_service()
}

/// So many days from a moment.
fn days(from: Timestamp, days: i64) -> Timestamp {
    from.checked_add(SignedDuration::from_secs(days * DAY_S)).unwrap_or(if days < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// When a service that is due at a moment is billed for the term from then on.
pub(super) fn bill_at(moment: &Moment, due_at: Timestamp) -> Timestamp {
    days(due_at, -i64::from(moment.rules.billing.invoice_days))
}

fn set_bill_at(account: AccountId, id: i64, bill_at: Option<Timestamp>, books: &mut dyn Books) -> Result<(), Fault> {
    let mut books = books.account(account);
    let Some(service) = books.service(id)? else { return Ok(()) };
    books.set_service(&Service { bill_at, ..service })
}

/// What a service's billing has to do now.
fn bill(moment: &Moment, account: AccountId, id: i64, books: &mut dyn Books) -> Result<(), Fault> {
    let Some(service) = books.account(account).service(id)? else { return Ok(()) };
    if !matches!(service.status, ServiceStatus::Active | ServiceStatus::Suspended) {
        return set_bill_at(account, id, None, books);
    }
    let due_at = service.next_due_at;
    if moment.now < bill_at(moment, due_at) {
        return set_bill_at(account, id, Some(bill_at(moment, due_at)), books);
    }
    let invoice = invoice(moment, account, &service, books)?;
    if moment.now < due_at {
        return set_bill_at(account, id, Some(due_at), books);
    }
    // One try at the card a day; the credit is tried whenever there is something to do.
    let last = books.account(account).last_payment(invoice.id)?;
    let was_refused_today = last
        .as_ref()
        .is_some_and(|last| last.status != PaymentStatus::Charging && moment.now < last.at + SignedDuration::from_secs(DAY_S));
    // Nobody waits for it: the next errand takes it up.
    let with = if was_refused_today { With::Credit } else { With::CreditAndCard { lease_until: moment.now } };
    match payments::attempt(moment, account, &invoice, with, books)? {
        Paying::Paid => Ok(()),
        Paying::Charge(_) | Paying::InProgress => {
            set_bill_at(account, id, Some(moment.now + SignedDuration::from_secs(SET_ASIDE_S)), books)
        }
        Paying::Unpaid(_) => press(moment, account, &service, &invoice, books),
    }
}

/// The invoice for a service's next term; written now if it is not there yet.
pub(super) fn invoice(moment: &Moment, account: AccountId, service: &Service, books: &mut dyn Books) -> Result<Invoice, Fault> {
    let term_from = service.next_due_at;
    if let Some(written) = books.account(account).renewal_invoice(service.id, term_from)? {
        return Ok(written);
    }
    let product = books.product(service.product_id)?;
    let product = product.map_or_else(|| format!("Product {}", service.product_id), |product| product.name.clone());
    let term_to = cycle::term_end(service.created_at, term_from, &service.cycle)?;
    let day = |at: Timestamp| time(at)[..10].to_owned();
    let text = format!("{product}, {}, service {}, {} to {}", service.cycle, service.id, day(term_from), day(term_to));
    let new = invoices::draw_up(
        &moment.rules.invoices,
        invoices::Draft {
            lines: vec![InvoiceLine { text, quantity: 1, each: service.recurring }],
            total: service.recurring,
            currency: service.currency.clone(),
            order_id: Some(service.order_id),
            renews: Some((service.id, term_from)),
            issued_at: moment.now,
            due_at: term_from,
        },
    );
    let mut books = books.account(account);
    let profile = books.profile()?;
    let invoice = Invoice { id: books.add_invoice(&new)?, new, status: InvoiceStatus::Unpaid, paid_at: None };
    invoices::tell_new(moment, &profile, &mut *books, &invoice)?;
    Ok(invoice)
}

/// What becomes of a service whose renewal is due and unpaid.
fn press(moment: &Moment, account: AccountId, service: &Service, invoice: &Invoice, books: &mut dyn Books) -> Result<(), Fault> {
    let rule = moment.rules.billing;
    let suspend_at = days(service.next_due_at, rule.suspend_days.into());
    let terminate_at = days(service.next_due_at, rule.terminate_days.into());
    let mut books = books.account(account);
    let profile = books.profile()?;
    if moment.now >= terminate_at {
        books.cancel_invoice(invoice.id)?;
        let gone =
            Service { status: ServiceStatus::Terminated, power: None, bill_at: None, unpaid_since: None, ..service.clone() };
        books.set_service(&gone)?;
        return services::tell(moment, &profile, &mut *books, "service.terminated", &gone);
    }
    let next = [suspend_at, terminate_at, days(moment.now, 1)].into_iter().filter(|at| *at > moment.now).min();
    if moment.now < suspend_at || service.status == ServiceStatus::Suspended {
        return books.set_service(&Service { bill_at: next, ..service.clone() });
    }
    let power = service.power.map(|_| Power::Stopped);
    let (status, unpaid_since) = (ServiceStatus::Suspended, Some(moment.now));
    let suspended = Service { status, power, bill_at: next, unpaid_since, ..service.clone() };
    books.set_service(&suspended)?;
    services::tell(moment, &profile, &mut *books, "service.suspended", &suspended)
}

/// Gives a service the term after `term_from`, which was just paid, and takes back a suspension for want of payment, but no other.
/// False if the service is gone or due at another time.
pub(super) fn renew(
    moment: &Moment,
    profile: &Account,
    id: i64,
    term_from: Timestamp,
    books: &mut dyn Books,
) -> Result<bool, Fault> {
    let mut books = books.account(profile.id);
    let Some(service) = books.service(id)? else { return Ok(false) };
    let is_alive = matches!(service.status, ServiceStatus::Active | ServiceStatus::Suspended);
    if !is_alive || service.next_due_at != term_from {
        return Ok(false);
    }
    let next_due_at = cycle::term_end(service.created_at, term_from, &service.cycle)?;
    let mut renewed = Service { next_due_at, bill_at: Some(bill_at(moment, next_due_at)), unpaid_since: None, ..service };
    let was_unpaid = service.unpaid_since.is_some();
    if was_unpaid {
        renewed.status = ServiceStatus::Active;
        renewed.power = renewed.power.map(|_| Power::Running);
    }
    books.set_service(&renewed)?;
    if was_unpaid {
        services::tell(moment, profile, &mut *books, "service.unsuspended", &renewed)?;
    }
    Ok(true)
}

/// A service that was terminated is not billed any more.
pub(super) fn stop(account: AccountId, service: &Service, books: &mut dyn Books) -> Result<(), Fault> {
    let mut books = books.account(account);
    if let Some(open) = books.renewal_invoice(service.id, service.next_due_at)? {
        books.cancel_invoice(open.id)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Rules;

    #[test]
    fn days_are_counted_over_leap_days_and_past_2038() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(days(at("2028-02-28T12:00:00Z"), 3), at("2028-03-02T12:00:00Z"));
        assert_eq!(days(at("2027-02-28T12:00:00Z"), 3), at("2027-03-03T12:00:00Z"));
        assert_eq!(days(at("2038-01-19T03:14:07Z"), 14), at("2038-02-02T03:14:07Z"));
        assert_eq!(days(Timestamp::MAX, 1), Timestamp::MAX);
        assert_eq!(days(Timestamp::MIN, -1), Timestamp::MIN);
        let moment = Moment { now: at("2028-03-01T00:00:00Z"), seed: [0; 32], rules: Rules::default() };
        assert_eq!(bill_at(&moment, at("2028-03-05T00:00:00Z")), at("2028-02-27T00:00:00Z"));
    }
}
