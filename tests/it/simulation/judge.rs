//! The books against what the world saw.

use std::collections::BTreeSet;

use jiff::{Span, Timestamp, tz::TimeZone};
use provisor::audit::{Verdict, verify};

use super::Tally;
use super::place::ACCOUNT;
use super::world::World;

const DAY_MS: i64 = 24 * 3_600_000;
/// While the world's last events are delivered, time goes on and the schedule does not.
const MEANWHILE_MS: i64 = 600_000;

impl World<'_> {
    /// Returns the story's hash, and how often what happened.
    pub(super) fn judge(mut self) -> (String, Tally) {
        let Verdict::Whole { rows, .. } = self.store().read(verify).unwrap() else { panic!("the audit chain is broken") };
        self.each_answer_is_audited();
        let paid = self.money_adds_up();
        self.each_intent_has_one_order();
        let renewals = self.each_term_is_paid_once();
        self.each_event_was_delivered();
        for (what, often) in renewals {
            self.noted(what, often);
        }
        self.end(&format!("{rows} rows, {paid} paid"))
    }

    fn each_answer_is_audited(&mut self) {
        for stream in [0, ACCOUNT.0] {
            let rows = self.store().read(|books| books.audit_rows(stream, 0, 100_000)).unwrap();
            for row in rows.iter().filter(|row| row.row.event == "request") {
                assert!(self.committed.remove(&row.row.request_id), "an audit row without a request: {}", row.row.request_id);
            }
        }
        assert!(self.committed.is_empty(), "answers without an audit row");
    }

    /// Returns what was paid.
    fn money_adds_up(&self) -> i64 {
        let count = |query: &str| self.place.number(query);
        let paid = count("SELECT COALESCE(SUM(total), 0) FROM invoices WHERE status = 'paid'");
        let left = self.credited + self.bank.captured() - paid;
        assert_eq!(count("SELECT COALESCE(SUM(amount), 0) FROM ledger"), left, "credits + cards - paid invoices");
        assert_eq!(count("SELECT balance FROM accounts WHERE id = 1"), left, "the balance");
        assert_eq!(count("SELECT COUNT(*) FROM payments WHERE status = 'charging'"), 0, "charges under way");
        assert_eq!(count("SELECT COUNT(*) FROM orders WHERE status NOT IN ('completed', 'cancelled')"), 0, "unsettled orders");
        for (order, invoice) in [("completed", "paid"), ("cancelled", "cancelled")] {
            let other = format!(
                "SELECT COUNT(*) FROM orders o JOIN invoices i ON i.id = o.invoice_id
                 WHERE o.status = '{order}' AND i.status <> '{invoice}'"
            );
            assert_eq!(count(&other), 0, "{order} orders whose invoice is not {invoice}");
        }
        paid
    }

    fn each_intent_has_one_order(&self) {
        let count = |query: &str| self.place.number(query);
        assert_eq!(count("SELECT COUNT(*) - COUNT(DISTINCT note) FROM orders"), 0, "two orders for one intent");
        let services = count("SELECT COALESCE(SUM(quantity), 0) FROM orders WHERE status = 'completed'");
        assert_eq!(count("SELECT COUNT(*) FROM services"), services, "services");
        let mut ids = BTreeSet::new();
        for intent in self.clients.iter().flatten() {
            let Some(id) = intent.order() else { continue };
            assert!(ids.insert(id), "two intents share an order");
            let state = self.place.ask(&format!("SELECT status FROM orders WHERE id = {id}"));
            let is_paid = intent.answer.as_ref().is_some_and(|(status, _)| *status == 201);
            assert!(!is_paid || state == ["completed"], "an order that was paid is {state:?}");
        }
    }

    /// A service is due as many terms later as were paid, and stays as long as it is.
    fn each_term_is_paid_once(&self) -> [(&'static str, u64); 3] {
        let renewals = "SELECT COUNT(*) FROM invoices WHERE renews_service = s.id AND status = 'paid'";
        let services =
            format!("SELECT s.created_at || ' ' || s.next_due_at || ' ' || ({renewals}) || ' ' || s.status FROM services s");
        let (now, mut seen) = (self.now.as_millisecond() - MEANWHILE_MS, [0, 0, 0]);
        for service in self.place.ask(&services) {
            let [created, due, renewed, status] = service.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let [created, due, renewed] = [created, due, renewed].map(|number: &str| number.parse::<i64>().unwrap());
            let begin = Timestamp::from_millisecond(created).unwrap().to_zoned(TimeZone::UTC);
            let paid_until = begin.checked_add(Span::new().months(renewed + 1)).unwrap();
            assert_eq!(due, paid_until.timestamp().as_millisecond(), "{service}");
            match status {
                "active" => assert!(now < due + 3 * DAY_MS, "unpaid and not suspended: {service}"),
                "suspended" => assert!(now < due + 14 * DAY_MS, "unpaid and not terminated: {service}"),
                "terminated" => {}
                _ => panic!("{service}"),
            }
            seen[0] += u64::from(renewed > 0);
            seen[1] += u64::from(status == "suspended");
            seen[2] += u64::from(status == "terminated");
        }
        [("a renewal", seen[0]), ("a suspension", seen[1]), ("a termination", seen[2])]
    }

    /// One for each thing that happened, and every one of them was seen.
    fn each_event_was_delivered(&self) {
        for (kind, what) in [
            ("order.created", "orders"),
            ("order.paid", "orders WHERE paid_at IS NOT NULL"),
            ("order.cancelled", "orders WHERE status = 'cancelled'"),
            ("invoice.created", "invoices"),
            ("invoice.paid", "invoices WHERE status = 'paid'"),
            ("service.provisioned", "services"),
            ("service.terminated", "services WHERE status = 'terminated'"),
        ] {
            let told = self.place.number(&format!("SELECT COUNT(*) FROM deliveries WHERE kind = '{kind}'"));
            assert_eq!(told, self.place.number(&format!("SELECT COUNT(*) FROM {what}")), "{kind}");
        }
        assert_eq!(self.place.number("SELECT COUNT(*) FROM deliveries WHERE delivered_at IS NULL"), 0, "undelivered events");
        let told: BTreeSet<String> = self.place.ask("SELECT event_id FROM deliveries").into_iter().collect();
        assert_eq!(told, self.events, "what the receiver saw");
    }
}
