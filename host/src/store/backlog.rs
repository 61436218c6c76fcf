//! What waits in the book, for monitoring. Every count reads a partial index of what waits alone.

use jiff::Timestamp;
use provisor_providers::books::Fault;

use super::{Transaction, orders};

/// What waits.
#[derive(Debug)]
pub(crate) struct Backlog {
    /// Orders that are not paid.
    pub(crate) pending_orders: i64,
    /// Cards that are being charged.
    pub(crate) charges: i64,
    /// For how many seconds the order has been due that the schedule should have taken up first; 0 if none is due.
    pub(crate) orders_overdue_s: i64,
    pub(crate) deliveries: Queue,
    pub(crate) mails: Queue,
}

/// An outbox.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) waiting: i64,
    /// Given up, and not yet swept.
    pub(crate) dead: i64,
    /// For how many seconds the longest has been due that nobody took; 0 if none is due.
    pub(crate) overdue_s: i64,
}

impl Transaction<'_> {
    /// Counts what waits.
    pub(crate) fn backlog(&mut self, now: Timestamp) -> Result<Backlog, Fault> {
        let overdue = |due: Option<Timestamp>| due.map_or(0, |due| now.duration_since(due).as_secs().max(0));
        let mut queue = |waiting, dead| {
            let rows = (self.sql.first(waiting, &[])?, self.sql.first(dead, &[])?);
            let (Some(waiting), Some(dead)) = rows else { return Err(Fault("a count counted nothing".to_owned())) };
            Ok(Queue { waiting: waiting.int(1)?, dead: dead.int(0)?, overdue_s: overdue(waiting.opt_time(0)?) })
        };
        let deliveries = queue(
            "SELECT MIN(next_at), COUNT(*) FROM deliveries WHERE next_at IS NOT NULL",
            "SELECT COUNT(*) FROM deliveries WHERE dead_at IS NOT NULL",
        )?;
        let mails = queue(
            "SELECT MIN(next_at), COUNT(*) FROM mails WHERE next_at IS NOT NULL",
            "SELECT COUNT(*) FROM mails WHERE dead_at IS NOT NULL",
        )?;
        let mut count = |query| self.sql.first(query, &[])?.map_or(Ok(0), |row| row.int(0));
        let pending_orders = count("SELECT COUNT(*) FROM orders WHERE status = 'pending_payment'")?;
        let charges = count("SELECT COUNT(*) FROM payments WHERE status = 'charging'")?;
        let orders_overdue_s = overdue(orders::next_due(self.sql)?);
        Ok(Backlog { pending_orders, charges, orders_overdue_s, deliveries, mails })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::Store;
    use crate::vault::Vault;

    #[tokio::test]
    async fn what_has_been_due_longest_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_sqlite(&folder.path().join("book.db"), Arc::new(Vault::open(folder.path()).unwrap())).unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let overdue = |now| {
            let backlog = store.read(|books| books.backlog(at(now))).unwrap();
            [backlog.deliveries.overdue_s, backlog.mails.overdue_s, backlog.orders_overdue_s]
        };
        assert_eq!(overdue(1000), [0; 3]);
        let filled = store.transact(|books| {
            books.sql.batch(
                "INSERT INTO deliveries (key_id, account_id, event_id, kind, body, created_at, attempts, fence, next_at)
                 VALUES (1, 1, '', '', '', 0, 0, 0, 100000), (2, 1, '', '', '', 0, 0, 0, 70000);
                 INSERT INTO mails (address, kind, subject, body, created_at, attempts, fence, next_at)
                 VALUES ('a@example.com', '', '', '', 0, 0, 0, 90000), ('a@example.com', '', '', '', 0, 0, 0, 80000)",
            )
        });
        filled.await.unwrap();
        assert_eq!(overdue(69), [0; 3]);
        assert_eq!(overdue(1000), [930, 920, 0]);
    }
}
