//! The books' store: what a transaction keeps, what it takes back, and what callers see of it. On both engines.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::sync::Mutex;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use provisor::audit::{Verdict, verify_store};
use provisor::store::{NewKey, Store, StoreError, Transaction};
use provisor_providers::books::{AccountId, Attempted, AuditRow, Books, Entry, Fault, Keep, Mail, NewInvoice, Tax};
use provisor_providers::limits::Meter;
use provisor_providers::money::Minor;
use provisor_tests::book::{Book, Engine};
use provisor_tests::resellers::GENEROUS;
use secrecy::SecretString;

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn book() -> (Book, Store) {
    let book = Book::new(Engine::of_module(module_path!()));
    let store = book.open();
    (book, store)
}

const ENTRY: fn() -> Entry<'static> = || Entry { at: now(), kind: "test", reference: "1" };

async fn account(store: &Store) -> AccountId {
    store.transact(|books| books.create_account("A", "a@example.com", "EUR", now())).await.unwrap()
}

async fn balance(store: &Store, id: AccountId) -> Minor {
    store.transact(move |books| Ok(books.account(id).profile()?.balance)).await.unwrap()
}

#[tokio::test]
async fn work_that_fails_or_panics_takes_back_its_own_writes_and_no_neighbours() {
    let (_book, store) = book();
    let id = account(&store).await;
    // Queued while the writer sleeps, so that the three share one commit where commits are shared.
    let slow = store.transact(|_| {
        std::thread::sleep(Duration::from_millis(50));
        Ok(())
    });
    let good = store.transact(move |books| books.credit(id, Minor(100), &ENTRY()));
    let failing = store.transact(move |books| {
        books.credit(id, Minor(1000), &ENTRY())?;
        Err::<(), _>(Fault("on purpose".to_owned()))
    });
    let panicking = store.transact(move |books| {
        books.credit(id, Minor(10_000), &ENTRY())?;
        if books.has_account(id)? { panic!("on purpose") } else { Ok(()) }
    });
    let (_, good, failing, panicking) = tokio::join!(slow, good, failing, panicking);
    assert_eq!(good.unwrap(), Some(Minor(100)));
    assert!(matches!(failing, Err(StoreError::Fault(_))));
    assert!(matches!(panicking, Err(StoreError::NotDone)));
    assert_eq!(balance(&store, id).await, Minor(100));
}

#[tokio::test]
async fn what_broke_inside_an_attempt_is_undone_and_what_stands_outside_stays() {
    let (_book, store) = book();
    let id = account(&store).await;
    let attempts = store.transact(move |books| {
        books.credit(id, Minor(100), &ENTRY())?;
        let undone = books.attempt(&mut |books| {
            books.account(id).charge(Minor(10), &ENTRY())?;
            Ok(Keep::Undo)
        })?;
        let broke = books.attempt(&mut |books| {
            books.account(id).charge(Minor(10), &ENTRY())?;
            panic!("on purpose")
        })?;
        let kept = books.attempt(&mut |books| {
            books.account(id).charge(Minor(1), &ENTRY())?;
            Ok(Keep::Keep)
        })?;
        Ok((undone, broke, kept))
    });
    assert_eq!(attempts.await.unwrap(), (Attempted::Undone, Attempted::Broke, Attempted::Kept));
    assert_eq!(balance(&store, id).await, Minor(99));
}

#[tokio::test]
async fn credit_is_never_overdrawn_and_the_ledger_adds_up() {
    let (book, store) = book();
    let id = account(&store).await;
    store.transact(move |books| books.credit(id, Minor(50), &ENTRY())).await.unwrap();
    let charges = (0..40).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.transact(move |books| books.account(id).charge(Minor(7), &ENTRY())).await })
    });
    let mut taken = 0;
    for charge in charges.collect::<Vec<_>>() {
        taken += i64::from(charge.await.unwrap().unwrap());
    }
    assert_eq!(taken, 7);
    assert_eq!(balance(&store, id).await, Minor(1));
    assert_eq!(store.transact(move |books| books.credit(id, Minor(-2), &ENTRY())).await.unwrap(), None);
    assert_eq!(book.number("SELECT SUM(amount) FROM ledger"), 1);
}

fn mail() -> Mail {
    Mail { kind: "test".to_owned(), subject: String::new(), body: String::new(), at: now() }
}

fn invoice() -> NewInvoice {
    NewInvoice {
        total: Minor(1),
        tax: Tax { basis_points: 0, amount: Minor(0) },
        currency: "EUR".to_owned(),
        lines: Vec::new(),
        seller: "".into(),
        order_id: None,
        renews: None,
        issued_at: now(),
        due_at: now(),
    }
}

/// Each counts, and adds one where there are few: no two of them write the same row, but for what the store adds.
#[tokio::test]
async fn what_a_transaction_read_of_an_account_is_so_when_it_commits() {
    let (book, store) = book();
    let id = account(&store).await;
    let works = (0..24).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let work = store.transact(move |books| {
                let is_added = books.account(id).mails_since("test", now() - SignedDuration::from_secs(1))? < 5;
                if is_added {
                    books.account(id).queue_mail(&mail())?;
                }
                Ok(is_added)
            });
            work.await.unwrap()
        })
    });
    let mut added = 0;
    for work in works.collect::<Vec<_>>() {
        added += i64::from(work.await.unwrap());
    }
    assert_eq!((added, book.number("SELECT COUNT(*) FROM mails")), (5, 5));
}

/// Two resellers in turn, and one who has a single invoice.
#[tokio::test]
async fn a_resellers_invoices_are_listed_in_pages_from_the_first() {
    let (_book, store) = book();
    let (one, other, third) = (account(&store).await, account(&store).await, account(&store).await);
    let made = store.transact(move |books| {
        let mut made = Vec::new();
        for _ in 0..150 {
            made.push(books.account(one).add_invoice(&invoice())?);
            books.account(other).add_invoice(&invoice())?;
        }
        books.account(third).add_invoice(&invoice())?;
        Ok(made)
    });
    let made = made.await.unwrap();
    let ids = |account: AccountId, offset, limit| {
        let listed = store.transact(move |books| books.account(account).invoices(offset, limit));
        async move { listed.await.unwrap().into_iter().map(|invoice| invoice.id).collect::<Vec<_>>() }
    };
    for offset in [0, 1, 62, 63, 64, 65, 100, 127, 128, 140, 149, 150, 151, u64::MAX] {
        for limit in [0, 1, 2, 25, 64, 100, 200] {
            let wanted: Vec<i64> = made.iter().copied().skip(offset.try_into().unwrap()).take(limit as usize).collect();
            assert_eq!(ids(one, offset, limit).await, wanted, "{limit} after {offset}");
        }
    }
    assert_eq!((ids(third, 0, 25).await.len(), ids(third, 1, 25).await.len()), (1, 0));
    let counts = store.transact(move |books| Ok([one, third].map(|id| books.account(id).count_invoices().unwrap())));
    assert_eq!(counts.await.unwrap(), [150, 1]);
    let newest = store.read(|books| books.newest_invoices(Some(one), 3)).unwrap();
    assert!(newest.iter().map(|(_, invoice)| invoice.id).eq(made.iter().rev().take(3).copied()));
    assert_eq!(store.read(|books| books.newest_invoices(Some(third), 3)).unwrap().len(), 1);
    let all = store.read(|books| books.newest_invoices(None, 1)).unwrap();
    assert_eq!(all[0].0, third);
}

/// Before the renewals of years.
#[tokio::test]
async fn an_order_is_found_behind_many_renewals() {
    let (book, store) = book();
    let id = account(&store).await;
    let first = store.transact(move |books| {
        let first = books.account(id).add_invoice(&NewInvoice { order_id: Some(77), ..invoice() })?;
        for renewal in 0..300 {
            let renews = Some((1, now() + SignedDuration::from_hours(renewal)));
            books.account(id).add_invoice(&NewInvoice { order_id: Some(77), renews, ..invoice() })?;
        }
        Ok(first)
    });
    let first = first.await.unwrap();
    book.execute(&format!(
        "INSERT INTO orders (id, account_id, product_id, cycle, quantity, config_options, total, recurring, currency, invoice_id,
                             created_at, expires_at, status)
         VALUES (77, {}, 42, 'monthly', 1, '{{}}', 1, 1, 'EUR', {first}, 0, 0, 'completed')",
        id.0
    ));
    for limit in [1, 2, 50, 1000] {
        let found = store.read(|books| books.newest_orders(Some(id), limit)).unwrap();
        assert_eq!(found.iter().map(|(_, order)| order.id).collect::<Vec<_>>(), [77], "{limit}");
    }
    assert!(store.read(|books| books.newest_orders(Some(id), 0)).unwrap().is_empty());
}

#[tokio::test]
async fn a_book_is_reopened_with_what_was_committed_and_a_foreign_one_is_refused() {
    let (book, store) = book();
    let id = account(&store).await;
    drop(store);
    let store = book.open();
    assert!(store.read(|books| books.has_account(id)).unwrap());
    drop(store);
    book.execute("UPDATE migrations SET sha256 = 'x' WHERE version = 1");
    let refused = book.try_open().err().unwrap();
    assert!(refused.to_string().contains("migration 1"), "{refused}");
    book.execute("INSERT INTO migrations (version, sha256) VALUES (1000000, 'y')");
    let refused = book.try_open().err().unwrap();
    assert!(refused.to_string().contains("newer version"), "{refused}");
}

/// What one of them remembers is no secret of its own: each learns what the other wrote before it writes itself.
#[tokio::test]
async fn two_processes_on_one_book_spend_a_nonce_once_and_keep_one_chain() {
    let (book, one) = book();
    let other = book.open();
    let id = account(&one).await;
    let key = one.transact(move |books| books.create_key(&new_key(id), now())).await.unwrap();
    let spend = async |store: &Store, nonce: &'static str| {
        let work = move |books: &mut Transaction<'_>| {
            books.audit(&row(id))?;
            let meter = books.standing(key, now())?.unwrap().meter.unwrap_or_else(|| Meter::full(GENEROUS, now()));
            books.set_meter(key, &Meter { day_count: meter.day_count + 1, ..meter }, Some(now()))?;
            books.spend_nonce(key, nonce, now(), now() + SignedDuration::from_secs(600))
        };
        store.transact(work).await.unwrap()
    };
    for (store, nonce, is_fresh) in [
        (&one, "a", true),
        (&other, "a", false),
        (&other, "b", true),
        (&one, "b", false),
        (&one, "c", true),
        (&one, "c", false),
        (&other, "c", false),
    ] {
        assert_eq!(spend(store, nonce).await, is_fresh, "{nonce}");
    }
    let secret = SecretString::from("S".repeat(40));
    other.transact(move |books| books.rotate_key("kernelhost", "kh_live_1", &secret)).await.unwrap();
    let standing = one.transact(move |books| books.standing(key, now())).await.unwrap().unwrap();
    assert_eq!((standing.version, standing.meter.unwrap().day_count), (2, 7));
    drop((one, other));
    assert!(!spend(&book.open(), "b").await, "a new process knows them too");
    assert_eq!(book.number("SELECT day_count FROM meters"), 8);
    assert!(matches!(verify_store(&book.open(), &[]).unwrap(), Verdict::Whole { .. }));
}

fn new_key(account: AccountId) -> NewKey {
    NewKey {
        account,
        provider: "kernelhost".to_owned(),
        public_id: "kh_live_1".to_owned(),
        label: String::new(),
        secret: SecretString::from("s".repeat(40)),
        scopes: Vec::new(),
        allowed: Vec::new(),
        addresses: Vec::new(),
        limits: GENEROUS,
        expires_at: None,
    }
}

fn row(account: AccountId) -> AuditRow {
    AuditRow {
        account: Some(account),
        at: now(),
        key_id: None,
        peer: [127, 0, 0, 1].into(),
        method: "GET".to_owned(),
        path: "/v1/me".to_owned(),
        status: 200,
        reason: None,
        request_id: "r".to_owned(),
        event: "request".to_owned(),
        detail: None,
    }
}

#[tokio::test]
async fn a_full_queue_says_so_at_once() {
    let (_book, store) = book();
    // Enough to keep every writer from taking more.
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Arc::new(Mutex::new(gate));
    let mut waiting = Vec::new();
    let busy = loop {
        let gate = std::sync::Arc::clone(&gate);
        let mut work = Box::pin(store.transact(move |_| {
            let _released = gate.lock().unwrap().recv();
            Ok(())
        }));
        match tokio::time::timeout(Duration::ZERO, &mut work).await {
            Ok(result) => break result,
            Err(_) => waiting.push(work),
        }
        assert!(waiting.len() < 2048, "the queue has no end");
    };
    assert!(matches!(busy, Err(StoreError::Busy)));
    assert!(waiting.len() >= 1024, "{} were taken", waiting.len());
    drop(release);
    for work in waiting {
        work.await.unwrap();
    }
}
