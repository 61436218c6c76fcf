//! What falls due: paid orders become services, unpaid ones are cancelled.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;

use super::{cycle, orders, payments, renewals, services};
use crate::books::{
    AccountId, Attempted, Books, Entry, Fault, Keep, Login, NewService, Order, OrderStatus, Power, Service, ServiceStatus,
};
use crate::money::Minor;
use crate::server::Moment;

/// Orders, and services made of them, in one transaction: requests wait for it.
const ORDERS_PER_TICK: u32 = 64;
const SERVICES_PER_TICK: u32 = 256;
/// How long an order whose fulfilment broke is set aside, in seconds.
const SET_ASIDE_S: i64 = 60;
/// Where people log in.
const SSH_PORT: u16 = 22;

/// Fulfils and cancels what has fallen due. Returns when the next order does.
pub(super) fn tick(moment: &Moment, books: &mut dyn Books) -> Result<Option<Timestamp>, Fault> {
    let mut rng = moment.rng();
    let mut made = 0;
    for (account, id) in books.due_orders(moment.now, ORDERS_PER_TICK)? {
        let Some(order) = books.account(account).order(id)? else { continue };
        // A tick's first order is done whatever its size.
        if made > 0 && made + order.new.quantity > SERVICES_PER_TICK {
            break;
        }
        made += order.new.quantity;
        let attempted = books.attempt(&mut |books| settle(moment, account, &order, &mut rng, books).map(|()| Keep::Keep))?;
        if attempted != Attempted::Kept {
            // Else the broken ones would stand before all others for ever.
            let later = moment.now + SignedDuration::from_secs(SET_ASIDE_S);
            books.account(account).set_order(&Order { due_at: Some(later), ..order.clone() }, order.status)?;
        }
    }
    books.next_due_order()
}

fn settle(moment: &Moment, account: AccountId, order: &Order, rng: &mut StdRng, books: &mut dyn Books) -> Result<(), Fault> {
    match order.status {
        OrderStatus::Paid | OrderStatus::Provisioning => fulfil(moment, account, order, rng, books),
        // If it was paid meanwhile, it is left alone.
        OrderStatus::PendingPayment if order.new.expires_at <= moment.now => {
            orders::cancel(moment, account, order, books).map(drop)
        }
        OrderStatus::PendingPayment | OrderStatus::Completed | OrderStatus::Cancelled => Ok(()),
    }
}

/// Makes the services of a paid order that waits for the operator; false if it does not wait.
pub(super) fn by_hand(moment: &Moment, account: AccountId, order: &Order, books: &mut dyn Books) -> Result<bool, Fault> {
    if !waits_for_operator(order) {
        return Ok(false);
    }
    fulfil(moment, account, order, &mut moment.rng(), books)?;
    Ok(true)
}

/// Gives up a paid order that waits for the operator; false if it does not wait. Its services are there as failed ones, and what was
/// paid goes back to the credit, where it pays what waits for it. The invoice stays as it was written, and the stock as the operator
/// counts it.
pub(super) fn give_up(moment: &Moment, account: AccountId, order: &Order, books: &mut dyn Books) -> Result<bool, Fault> {
    if !waits_for_operator(order) {
        return Ok(false);
    }
    make(moment, account, order, &mut moment.rng(), End::GivenUp, books)?;
    let refund = Entry { at: moment.now, kind: "refund", reference: &order.invoice_id.to_string() };
    books.account(account).deposit(order.new.total, &refund)?;
    payments::credited(moment, account, books)?;
    Ok(true)
}

/// How a paid order ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Made,
    GivenUp,
}

impl End {
    fn event(self) -> &'static str {
        match self {
            Self::Made => "service.provisioned",
            Self::GivenUp => "service.failed",
        }
    }

    fn order_status(self) -> OrderStatus {
        match self {
            Self::Made => OrderStatus::Completed,
            Self::GivenUp => OrderStatus::Cancelled,
        }
    }
}

fn waits_for_operator(order: &Order) -> bool {
    order.status == OrderStatus::Paid && order.due_at.is_none()
}

fn fulfil(moment: &Moment, account: AccountId, order: &Order, rng: &mut StdRng, books: &mut dyn Books) -> Result<(), Fault> {
    make(moment, account, order, rng, End::Made, books)
}

/// Writes the services of a paid order and ends it; the order names the first.
fn make(
    moment: &Moment,
    account: AccountId,
    order: &Order,
    rng: &mut StdRng,
    end: End,
    books: &mut dyn Books,
) -> Result<(), Fault> {
    // What is no longer on sale is still owed.
    let family = books.product(order.new.product_id)?.map_or_else(|| "kvm".to_owned(), |product| product.family.clone());
    let mut books = books.account(account);
    let profile = books.profile()?;
    let mut first = None;
    for index in 0..order.new.quantity {
        let id = books.add_service(&new_service(moment, order, &family, index, rng)?)?;
        first = first.or(Some(id));
        if end == End::Made && !profile.listens {
            continue;
        }
        let mut service = books.service(id)?.ok_or_else(|| Fault(format!("service {id} is gone")))?;
        if end == End::GivenUp {
            service = Service { status: ServiceStatus::Failed, power: None, bill_at: None, ..service };
            books.set_service(&service)?;
        }
        services::tell(moment, &profile, &mut *books, end.event(), &service)?;
    }
    let ended = Order { status: end.order_status(), service_id: first, due_at: None, ..order.clone() };
    if !books.set_order(&ended, order.status)? {
        return Err(Fault(format!("order {} changed meanwhile", order.id)));
    }
    if end == End::GivenUp { orders::tell(moment, &profile, &mut *books, "order.cancelled", &ended) } else { Ok(()) }
}

fn new_service(moment: &Moment, order: &Order, family: &str, index: u32, rng: &mut StdRng) -> Result<NewService, Fault> {
    let new = &order.new;
    // What the wire shows of a due date is what there is of it.
    let created_at = Timestamp::from_second(moment.now.as_second()).map_err(|error| Fault(error.to_string()))?;
    let next_due_at = cycle::term_end(created_at, created_at, &new.cycle)?;
    let unit = if index == 0 { order.id.to_string() } else { format!("{}-{}", order.id, index + 1) };
    let hostname = new.hostname.clone().filter(|_| index == 0).unwrap_or_else(|| format!("{family}-{unit}.example.net"));
    let username = if family == "webspace" { format!("web{unit}") } else { "root".to_owned() };
    Ok(NewService {
        order_id: order.id,
        product_id: new.product_id,
        power: matches!(family, "kvm" | "dedicated" | "minecraft").then_some(Power::Running),
        hostname,
        addresses: addresses(order.id, index),
        cycle: new.cycle.clone(),
        recurring: Minor(new.recurring.0 / i64::from(new.quantity.max(1))),
        currency: new.currency.clone(),
        next_due_at,
        bill_at: renewals::bill_at(moment, next_due_at),
        created_at,
        login: Login { username, password: services::generate_password(rng), port: SSH_PORT },
    })
}

/// One address of each family from the ranges for documentation (RFC 5737, RFC 3849): simulated services must name nobody's
/// machine. The long ones are unique, the short ones come round again after 762.
fn addresses(order: i64, index: u32) -> Vec<IpAddr> {
    let order = order.unsigned_abs();
    let spread = (order.wrapping_mul(7) + u64::from(index)) % 762;
    let nets = [(192, 0, 2), (198, 51, 100), (203, 0, 113)];
    let (net, host) = (nets[usize::try_from(spread / 254).unwrap_or(0)], u8::try_from(spread % 254 + 1).unwrap_or(1));
    let long = (0x2001_0db8_u128 << 96) | (u128::from(order) << 32) | (u128::from(index) + 1);
    vec![IpAddr::V4(Ipv4Addr::new(net.0, net.1, net.2, host)), IpAddr::V6(Ipv6Addr::from_bits(long))]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn addresses_are_for_documentation_and_each_its_own() {
        let all: Vec<IpAddr> = (1..500).flat_map(|order| (0..100).flat_map(move |index| addresses(order, index))).collect();
        let long: BTreeSet<_> = all.iter().filter(|address| address.is_ipv6()).collect();
        assert_eq!(long.len(), 499 * 100);
        let mut short = all.iter().filter_map(|address| if let IpAddr::V4(short) = address { Some(short) } else { None });
        assert!(short.all(|short| short.is_documentation() && !matches!(short.octets()[3], 0 | 255)));
        let prefix: ipnet::IpNet = "2001:db8::/32".parse().unwrap();
        assert!(long.iter().all(|address| prefix.contains(*address)));
        assert!(addresses(i64::MAX, 99).iter().all(|address| address.is_ipv4() || prefix.contains(address)));
    }
}
