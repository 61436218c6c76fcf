//! The outboxes of webhooks and mail as couriers see them: who is given what, for how long, and whose word counts. On both engines.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::sync::Mutex;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use jiff::Timestamp;
use provisor::store::{Attempt, Claim, Claimed, NewKey, Sent, Store, Then};
use provisor_providers::books::{AccountId, Books, KeyRow, Mail, NewEvent, NewWebhook};
use provisor_providers::server::KeyLimits;
use provisor_tests::book::{Book, Engine};
use secrecy::{ExposeSecret, SecretString};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn book() -> (Book, Store) {
    let book = Book::new(Engine::of_module(module_path!()));
    let store = book.open();
    (book, store)
}

/// A reseller with a key.
async fn key(store: &Store, number: i64) -> (AccountId, KeyRow) {
    let made = store.transact(move |books| {
        let account = books.create_account("A", "a@example.com", "EUR", at(0))?;
        let key = NewKey {
            account,
            provider: "kernelhost".to_owned(),
            public_id: format!("kh_live_{number:032}"),
            label: String::new(),
            secret: "x".into(),
            scopes: Vec::new(),
            allowed: Vec::new(),
            addresses: Vec::new(),
            limits: KeyLimits::default(),
            expires_at: None,
        };
        Ok((account, books.create_key(&key, at(0))?))
    });
    made.await.unwrap()
}

async fn set(store: &Store, account: AccountId, key: KeyRow, secret: Option<&'static str>, now: i64) {
    let work = store.transact(move |books| {
        let secret = secret.map(SecretString::from);
        let webhook = NewWebhook {
            url: "https://hooks.example.com/",
            events: &[],
            secret: secret.as_ref(),
            previous_until: at(now + 86_400),
            at: at(now),
        };
        books.account(account).set_webhook(key, &webhook)
    });
    work.await.unwrap();
}

/// A reseller with a key that has a webhook.
async fn listener(store: &Store, number: i64) -> (AccountId, KeyRow) {
    let (account, key) = key(store, number).await;
    set(store, account, key, Some("whsec_first"), 0).await;
    (account, key)
}

async fn happen(store: &Store, account: AccountId, count: usize) {
    happen_at(store, account, count, 0).await;
}

async fn happen_at(store: &Store, account: AccountId, count: usize, second: i64) {
    let work = store.transact(move |books| {
        for number in 0..count {
            let id = format!("evt_{second}_{number}");
            books.account(account).add_event(&NewEvent { id: &id, kind: "order.paid", body: "{}", at: at(second) })?;
        }
        Ok(())
    });
    work.await.unwrap();
}

async fn claim(store: &Store, now: i64, after: KeyRow) -> Claimed {
    let claim = Claim { now: at(now), until: at(now + 60), after, healthy: 100, failing: 100 };
    store.transact(move |books| books.claim_deliveries(&claim)).await.unwrap()
}

async fn settle(store: &Store, id: i64, fence: i64, now: i64, then: Then) -> bool {
    let attempt = Attempt { at: at(now), status: None, error: Some("x".to_owned()), then };
    store.transact(move |books| books.settle_delivery(id, fence, &attempt)).await.unwrap().is_some()
}

fn shares(claimed: &Claimed, keys: &[(AccountId, KeyRow)]) -> Vec<usize> {
    let of = |key: KeyRow| claimed.deliveries.iter().filter(|delivery| delivery.key == key).count();
    keys.iter().map(|(_, key)| of(*key)).collect()
}

#[tokio::test]
async fn a_backlog_does_not_hide_the_next_webhook() {
    let (_book, store) = book();
    let mut keys = Vec::new();
    for number in 0..3 {
        keys.push(listener(&store, number).await);
    }
    happen(&store, keys[0].0, 2000).await;
    happen(&store, keys[1].0, 1).await;
    happen(&store, keys[2].0, 6).await;
    assert_eq!(shares(&claim(&store, 1, KeyRow(0)).await, &keys), [4, 1, 4], "a few of each");
    assert_eq!(shares(&claim(&store, 1, KeyRow(0)).await, &keys), [0, 0, 0], "four at a time, over all couriers");
    assert_eq!(shares(&claim(&store, 61, KeyRow(0)).await, &keys), [4, 1, 4], "until their leases are over");
    assert_eq!(shares(&claim(&store, 122, keys[0].1).await, &keys), [0, 1, 4], "in turn");
}

/// Two couriers claim at the same time, and no row that the one takes is one that the other takes: events of a host whose clock is
/// behind have come in between.
#[tokio::test]
async fn four_at_a_time_are_four_over_couriers_that_claim_at_once() {
    let (_book, store) = book();
    let (account, _) = listener(&store, 1).await;
    happen(&store, account, 4).await;
    let (taken, is_taken) = sync_channel(16);
    let (release, released) = sync_channel::<()>(1);
    let released = Mutex::new(released);
    let first = store.clone();
    let first = tokio::spawn(async move {
        let work = first.transact(move |books| {
            let claim = Claim { now: at(1), until: at(61), after: KeyRow(0), healthy: 100, failing: 100 };
            let claimed = books.claim_deliveries(&claim)?.deliveries.len();
            // Whoever must wait for this one's commit is waited for in vain.
            let _heard = taken.try_send(());
            let _came = released.lock().unwrap().recv_timeout(Duration::from_millis(300));
            Ok(claimed)
        });
        work.await.unwrap()
    });
    tokio::task::spawn_blocking(move || is_taken.recv().unwrap()).await.unwrap();
    happen_at(&store, account, 4, -1).await;
    let second = claim(&store, 1, KeyRow(0)).await.deliveries.len();
    let _late = release.try_send(());
    assert_eq!((first.await.unwrap(), second), (4, 0));
}

#[tokio::test]
async fn many_webhooks_are_looked_at_in_turn() {
    let (_book, store) = book();
    let mut keys = Vec::new();
    for number in 0..70 {
        keys.push(listener(&store, number).await);
        happen(&store, keys.last().unwrap().0, 1).await;
    }
    let first = claim(&store, 1, KeyRow(0)).await;
    let second = claim(&store, 1, first.after.unwrap()).await;
    assert_eq!((first.deliveries.len(), second.deliveries.len(), second.after), (64, 6, None));
}

#[tokio::test]
async fn only_the_last_courier_is_believed() {
    let (_book, store) = book();
    let (account, key) = listener(&store, 1).await;
    happen(&store, account, 1).await;
    let first = claim(&store, 0, KeyRow(0)).await.deliveries.remove(0);
    assert!(claim(&store, 59, KeyRow(0)).await.deliveries.is_empty());
    let second = claim(&store, 60, KeyRow(0)).await.deliveries.remove(0);
    assert_eq!((first.id, first.key, second.fence), (second.id, key, first.fence + 1));
    assert!(!settle(&store, first.id, first.fence, 61, Then::Dead).await, "the first one's word counts no more");
    assert!(settle(&store, second.id, second.fence, 62, Then::Again(at(100))).await);
    let row = store.read(|books| books.deliveries(None, false, 10)).unwrap().remove(0);
    assert_eq!((row.attempts, row.next_at, row.last_error.as_deref(), row.dead_at), (1, Some(at(100)), Some("x"), None));
    let third = claim(&store, 100, KeyRow(0)).await.deliveries.remove(0);
    assert!(third.is_failing && third.attempts == 1);
    assert!(!settle(&store, third.id, third.fence, 101, Then::Delivered).await);
    let row = store.read(|books| books.deliveries(None, false, 10)).unwrap().remove(0);
    assert_eq!((row.delivered_at, row.next_at), (Some(at(101)), None));
    let last = store.read(|books| Ok(books.account(account).webhook(key)?.unwrap().last_delivery.unwrap())).unwrap();
    assert_eq!((last.event_id.as_str(), last.attempts, last.is_delivered), ("evt_0_0", 2, true));
}

#[tokio::test]
async fn a_failing_webhook_is_tried_one_at_a_time() {
    let (_book, store) = book();
    let keys = [listener(&store, 1).await, listener(&store, 2).await];
    happen(&store, keys[0].0, 10).await;
    happen(&store, keys[1].0, 10).await;
    let one = claim(&store, 0, KeyRow(0)).await.deliveries.remove(0);
    assert!(settle(&store, one.id, one.fence, 1, Then::Again(at(1000))).await);
    assert_eq!(shares(&claim(&store, 61, KeyRow(0)).await, &keys), [1, 4]);
    let none = Claim { now: at(122), until: at(200), after: KeyRow(0), healthy: 3, failing: 0 };
    let claimed = store.transact(move |books| books.claim_deliveries(&none)).await.unwrap();
    assert_eq!(shares(&claimed, &keys), [0, 3], "each kind has its own room");
}

#[tokio::test]
async fn what_waits_for_a_webhook_that_is_gone_is_given_up() {
    let (_book, store) = book();
    let (account, key) = listener(&store, 1).await;
    happen(&store, account, 3).await;
    let under_way = claim(&store, 0, KeyRow(0)).await.deliveries;
    store.transact(move |books| books.account(account).unset_webhook(key, at(1))).await.unwrap();
    let dead = || store.read(|books| books.deliveries(None, true, 10)).unwrap().len();
    assert_eq!(dead(), 3);
    // What was under way meanwhile: a failure changes nothing, a success does.
    settle(&store, under_way[0].id, under_way[0].fence, 2, Then::Again(at(3))).await;
    settle(&store, under_way[1].id, under_way[1].fence, 2, Then::Delivered).await;
    assert_eq!(dead(), 2);
    set(&store, account, key, Some("whsec_second"), 3).await;
    assert!(claim(&store, 1000, KeyRow(0)).await.deliveries.is_empty());

    happen(&store, account, 2).await;
    store.transact(|books| books.revoke_key("kernelhost", &format!("kh_live_{:032}", 1), at(4))).await.unwrap();
    assert!(claim(&store, 1000, KeyRow(0)).await.deliveries.is_empty());
    assert_eq!(dead(), 4, "of a revoked key too");
}

#[tokio::test]
async fn secrets_overlap_for_a_day_and_lie_sealed() {
    let (book, store) = book();
    let (account, key) = listener(&store, 1).await;
    set(&store, account, key, Some("whsec_second"), 10).await;
    set(&store, account, key, None, 20).await;
    happen(&store, account, 2).await;
    for (now, secrets) in
        [(30, &["whsec_second", "whsec_first"][..]), (86_409, &["whsec_second", "whsec_first"]), (86_470, &["whsec_second"])]
    {
        let claimed = claim(&store, now, KeyRow(0)).await.deliveries;
        let found: Vec<&str> = claimed[0].secrets.iter().map(ExposeSecret::expose_secret).collect();
        assert_eq!(found, secrets, "{now}");
    }
    assert_eq!(book.number("SELECT COUNT(*) FROM webhooks WHERE sealed_previous_secret IS NOT NULL"), 1);
    drop(store);
    if book.cluster().is_none() {
        for file in book.directory().read_dir().unwrap().map(|entry| entry.unwrap().path()) {
            let bytes = std::fs::read(&file).unwrap();
            assert!(!bytes.windows(6).any(|window| window == b"whsec_"), "{}", file.display());
        }
    }
}

#[tokio::test]
async fn mail_is_given_to_one_postman_at_a_time() {
    let (_book, store) = book();
    let (account, _) = key(&store, 1).await;
    let mail = Mail { kind: "key.locked".to_owned(), subject: "S".to_owned(), body: "B".to_owned(), at: at(0) };
    store.transact(move |books| books.account(account).queue_mail(&mail)).await.unwrap();
    let claim = async |now| store.transact(move |books| books.claim_mails(at(now), at(now + 60), 5)).await.unwrap();
    let first = claim(0).await.remove(0);
    assert_eq!((first.address.as_str(), first.subject.as_str(), first.attempts), ("a@example.com", "S", 0));
    assert!(claim(59).await.is_empty());
    let second = claim(60).await.remove(0);
    let failed = Sent::Failed { error: "x".to_owned(), again_at: Some(at(200)) };
    for (mail, sent, now) in [(&second, failed, 61), (&first, Sent::Sent, 62)] {
        let (id, fence) = (mail.id, mail.fence);
        store.transact(move |books| books.settle_mail(id, fence, &sent, at(now))).await.unwrap();
    }
    assert!(claim(199).await.is_empty());
    let third = claim(200).await.remove(0);
    store.transact(move |books| books.settle_mail(third.id, third.fence, &Sent::Sent, at(201))).await.unwrap();
    let listed = store.read(|books| books.mails(10)).unwrap().remove(0);
    assert_eq!((listed.attempts, listed.sent_at, listed.dead_at, listed.last_error), (2, Some(at(201)), None, None));
    assert!(claim(1_000_000).await.is_empty());
}

#[tokio::test]
async fn what_is_told_twice_is_one_event() {
    let (_book, store) = book();
    let (account, _) = listener(&store, 1).await;
    happen(&store, account, 1).await;
    let again = async |id, now| store.transact(move |books| books.redeliver(id, at(now))).await.unwrap();
    let one = claim(&store, 0, KeyRow(0)).await.deliveries.remove(0);
    assert!(!again(one.id, 1).await, "it is on its way");
    settle(&store, one.id, one.fence, 2, Then::Delivered).await;
    assert!(again(one.id, 3).await && !again(one.id + 1, 3).await);
    let other = claim(&store, 4, KeyRow(0)).await.deliveries.remove(0);
    assert_eq!((other.event_id, other.attempts), (one.event_id, 0));
    assert!(store.read(|books| books.webhooks(Some(account))).unwrap()[0].waiting == 1);
    assert!(store.read(|books| books.webhooks(Some(AccountId(account.0 + 1)))).unwrap().is_empty());
}
