//! Terms: what one costs, how long it lasts, and what becomes of a package whose next one nobody pays (our choices 2.8 and 2.9).

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

use super::guard::Stop;
use super::wire::{self, text};
use crate::books::{Account, AccountId, Attempted, Books, Fault, Keep, License, LicenseState, Mail, Package};
use crate::money::Minor;
use crate::server::Moment;

/// Packages in one transaction: requests wait for it.
const LICENSES_PER_TICK: u32 = 64;
/// How long a package is set aside whose term could not be looked after.
const SET_ASIDE: SignedDuration = SignedDuration::from_mins(1);
/// The kind of the mails that tell of a suspension.
const SUSPENSION_MAIL: &str = "gp.suspended";
/// A reseller with thousands of packages must not get as many mails at once; `list` shows the rest.
const SUSPENSION_MAILS_PER_DAY: u64 = 20;

/// The packages as one reseller sees them.
pub(super) struct Catalogue {
    packages: Vec<Package>,
    reseller: Account,
}

impl Catalogue {
    pub(super) fn read(account: AccountId, books: &mut dyn Books) -> Result<Self, Fault> {
        let reseller = books.account(account).profile()?;
        Ok(Self { packages: books.packages()?, reseller })
    }

    /// Whether the operator sells nothing more to the reseller.
    pub(super) fn is_closed(&self) -> bool {
        self.reseller.is_closed
    }

    /// A package, named in any case, and its price for one term. One without a price in the reseller's currency is not on sale.
    pub(super) fn find(&self, name: &str) -> Result<(&Package, Minor), Stop> {
        let package =
            self.packages.iter().find(|package| package.name.eq_ignore_ascii_case(name)).ok_or(text::INVALID_PACKAGE)?;
        if package.name == wire::FREE {
            return Ok((package, Minor::ZERO));
        }
        let mut prices = package.prices.iter();
        let price = prices.find(|(currency, _)| *currency == self.reseller.currency).ok_or(text::INVALID_PACKAGE)?;
        Ok((package, price.1))
    }

    /// Whether a term of a package costs nothing. One that is not on sale any more does not.
    fn is_free(&self, name: &str) -> bool {
        self.find(name).is_ok_and(|(_, price)| price == Minor::ZERO)
    }

    /// Whether a package has run on unpaid for as long as the operator allows: then it is suspended, and stays so until it is renewed.
    pub(super) fn is_unpaid(&self, license: &License, now: Timestamp, suspend_days: u32) -> bool {
        now >= suspend_at(license.due_at, suspend_days) && !self.is_free(&license.package)
    }
}

/// When the scheduler has to look at a package in this state; one that is not active has nothing to be suspended.
pub(super) fn look_at(state: LicenseState, due_at: Timestamp) -> Option<Timestamp> {
    (state == LicenseState::Active).then_some(due_at)
}

/// The end of the term that follows: from the due date, or from now if that is over.
pub(super) fn next_due(due_at: Timestamp, now: Timestamp) -> Result<Timestamp, Fault> {
    months_from(due_at.max(now), 1)
}

/// Calendar months in UTC; the last day of a shorter month stands for a missing one.
pub(super) fn months_from(from: Timestamp, months: i64) -> Result<Timestamp, Fault> {
    let moved = from.to_zoned(TimeZone::UTC).checked_add(months.months()).map_err(|error| Fault(error.to_string()))?;
    Ok(moved.timestamp())
}

/// The part of a month's amount that the rest of the term costs, rounded up to the cent. Terms paid ahead count in full.
pub(super) fn pro_rata(monthly: Minor, now: Timestamp, due_at: Timestamp) -> Result<Minor, Fault> {
    let term_ms = i128::from((due_at.as_millisecond() - months_from(due_at, -1)?.as_millisecond()).max(1));
    let rest_ms = i128::from((due_at.as_millisecond() - now.as_millisecond()).max(0));
    let amount = (i128::from(monthly.0) * rest_ms + term_ms - 1) / term_ms;
    i64::try_from(amount).map(Minor).map_err(|error| Fault(error.to_string()))
}

/// Looks after the terms that are over. Returns when the next one is.
pub(super) fn tick(moment: &Moment, books: &mut dyn Books) -> Result<Option<Timestamp>, Fault> {
    for (account, domain) in books.due_licenses(moment.now, LICENSES_PER_TICK)? {
        let attempted = books.attempt(&mut |books| look_after(moment, account, &domain, books).map(|()| Keep::Keep))?;
        if attempted != Attempted::Kept {
            // Else the broken ones would stand before all others for ever.
            set_aside(account, &domain, moment.now + SET_ASIDE, books)?;
        }
    }
    books.next_due_license()
}

fn set_aside(account: AccountId, domain: &str, until: Timestamp, books: &mut dyn Books) -> Result<(), Fault> {
    let mut books = books.account(account);
    let Some(license) = books.license(domain)? else { return Ok(()) };
    books.set_license(&License { look_at: Some(until), ..license })
}

/// What a term that is over comes to: a package that costs nothing has the next one, others wait to be renewed and are then suspended.
fn look_after(moment: &Moment, account: AccountId, domain: &str, books: &mut dyn Books) -> Result<(), Fault> {
    let Some(license) = books.account(account).license(domain)? else { return Ok(()) };
    let catalogue = Catalogue::read(account, books)?;
    let now = moment.now;
    let suspend_days = moment.rules.billing.suspend_days;
    let changed = if license.state != LicenseState::Active || now < license.due_at {
        License { look_at: look_at(license.state, license.due_at), ..license }
    } else if catalogue.is_free(&license.package) {
        let due_at = next_due(license.due_at, now)?;
        License { due_at, look_at: Some(due_at), ..license }
    } else if catalogue.is_unpaid(&license, now, suspend_days) {
        tell(&license, now, books.account(account).as_mut())?;
        License { state: LicenseState::Suspended, unpaid_since: Some(now), look_at: None, ..license }
    } else {
        License { look_at: Some(suspend_at(license.due_at, suspend_days)), ..license }
    };
    books.account(account).set_license(&changed)
}

fn suspend_at(due_at: Timestamp, suspend_days: u32) -> Timestamp {
    due_at.checked_add(SignedDuration::from_hours(24 * i64::from(suspend_days))).unwrap_or(Timestamp::MAX)
}

/// The API has no events, and nobody asks `list` every day.
fn tell(license: &License, now: Timestamp, account: &mut dyn crate::books::AccountBooks) -> Result<(), Fault> {
    if account.mails_since(SUSPENSION_MAIL, now - SignedDuration::from_hours(24))? >= SUSPENSION_MAILS_PER_DAY {
        return Ok(());
    }
    let License { package, domain, due_at, .. } = license;
    let due_at = due_at.strftime("%Y-%m-%d %H:%M:%S UTC");
    account.queue_mail(&Mail {
        kind: SUSPENSION_MAIL.to_owned(),
        subject: format!("The firewall of {domain} is suspended"),
        body: format!(
            "The term of the package {package} for {domain} ended on {due_at} and was not renewed.\n\n\
             The package is suspended since now. Renew it, and it is active again. The new term begins when you do.\n"
        ),
        at: now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn terms_end_on_days_that_exist() {
        for (from, to) in [
            ("2027-01-31T08:00:00Z", "2027-02-28T08:00:00Z"),
            ("2028-01-31T08:00:00Z", "2028-02-29T08:00:00Z"),
            ("2026-12-15T23:59:59Z", "2027-01-15T23:59:59Z"),
            ("2037-12-31T00:00:00Z", "2038-01-31T00:00:00Z"),
        ] {
            assert_eq!(months_from(at(from), 1).unwrap(), at(to));
        }
        assert!(months_from(Timestamp::MAX, 1).is_err());
        let (early, late) = (at("2027-01-01T00:00:00Z"), at("2027-01-10T00:00:00Z"));
        assert_eq!(next_due(late, early).unwrap(), at("2027-02-10T00:00:00Z"));
        assert_eq!(next_due(early, late).unwrap(), at("2027-02-10T00:00:00Z"));
        assert_eq!(suspend_at(at("2028-02-27T00:00:00Z"), 3), at("2028-03-01T00:00:00Z"));
        assert_eq!(suspend_at(Timestamp::MAX, 3), Timestamp::MAX);
    }

    #[test]
    fn the_rest_of_a_term_is_rounded_up_to_the_cent() {
        let due_at = at("2027-04-30T00:00:00Z");
        for (now, monthly, cents) in [
            ("2027-03-30T00:00:00Z", 300, 300),
            // 31 days: a day is 9.67 cents.
            ("2027-04-29T00:00:00Z", 300, 10),
            ("2027-04-29T23:59:59.999Z", 300, 1),
            ("2027-04-30T00:00:00Z", 300, 0),
            ("2027-06-01T00:00:00Z", 300, 0),
            // Two terms paid ahead.
            ("2027-02-27T00:00:00Z", 300, 600),
            ("2027-04-15T00:00:00Z", 0, 0),
        ] {
            assert_eq!(pro_rata(Minor(monthly), at(now), due_at).unwrap(), Minor(cents), "{now}");
        }
        assert!(pro_rata(Minor(i64::MAX), at("2020-01-01T00:00:00Z"), due_at).is_err());
    }
}
