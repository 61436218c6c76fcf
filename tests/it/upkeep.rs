//! What the operator's commands ask of a book: the audit log, keys, sealed values, settings. On both engines.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use provisor::audit::{BadRow, Checkpoint, Verdict, What, verify, verify_against, verify_store};
use provisor::store::{KeyChange, NewKey, Resealed, SealedValues, Store};
use provisor_providers::books::{AccountId, AuditRow, Books, Failure, KeyRow, Lock, Mail};
use provisor_providers::server::KeyLimits;
use provisor_tests::book::{Book, Engine};
use secrecy::ExposeSecret;

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn book() -> (Book, Store) {
    let book = Book::new(Engine::of_module(module_path!()));
    let store = book.open();
    (book, store)
}

async fn account(store: &Store) -> AccountId {
    store.transact(|books| books.create_account("A", "a@example.com", "EUR", now())).await.unwrap()
}

fn row(account: i64, number: i64) -> AuditRow {
    AuditRow {
        account: (account > 0).then_some(AccountId(account)),
        at: now() + SignedDuration::from_secs(number),
        key_id: None,
        peer: "2001:db8::7".parse().unwrap(),
        method: "GET".to_owned(),
        path: format!("/v1/services/{number}"),
        status: 200,
        reason: Some("reason".to_owned()),
        request_id: format!("01HX7Z3K8Q{number:016}"),
        event: "request".to_owned(),
        detail: None,
    }
}

async fn log(store: &Store, rows: i64) {
    let append = store.transact(move |books| {
        for number in 1..=rows {
            books.audit(&row(0, number))?;
            books.audit(&row(1, number))?;
        }
        Ok(())
    });
    append.await.unwrap();
}

fn bad(stream: i64, seq: i64, what: What) -> Verdict {
    Verdict::Broken(vec![BadRow { stream, seq, what }])
}

#[tokio::test]
async fn a_log_is_verified_and_its_first_bad_row_named() {
    let (book, store) = book();
    log(&store, 5000).await;
    let whole = Verdict::Whole { streams: 2, rows: 10_000 };
    assert_eq!(verify_store(&store, &[]).unwrap(), whole);
    assert_eq!(store.read(verify).unwrap(), whole);
    let head = store.read(|books| books.audit_rows(1, 4999, 1)).unwrap()[0].chain_hash;
    let checkpoints = [Checkpoint { stream: 1, size: 5000, head, at: now() }];
    assert_eq!(verify_store(&store, &checkpoints).unwrap(), whole);
    for (forgery, back, seq, what) in [
        (
            "UPDATE audit SET status = 404 WHERE stream = 1 AND seq = 4097",
            "UPDATE audit SET status = 200 WHERE stream = 1 AND seq = 4097",
            4097,
            What::Changed,
        ),
        (
            "UPDATE audit SET detail = '' WHERE stream = 1 AND seq = 1",
            "UPDATE audit SET detail = NULL WHERE stream = 1 AND seq = 1",
            1,
            What::Changed,
        ),
        (
            "UPDATE audit SET seq = 6000 WHERE stream = 1 AND seq = 3",
            "UPDATE audit SET seq = 3 WHERE stream = 1 AND seq = 6000",
            3,
            What::Missing,
        ),
    ] {
        book.execute(forgery);
        assert_eq!(verify_store(&store, &[]).unwrap(), bad(1, seq, what), "{forgery}");
        assert_eq!(store.read(verify).unwrap(), bad(1, seq, what), "{forgery}");
        book.execute(back);
    }
    book.execute(
        "DELETE FROM audit WHERE stream = 1 AND seq = 5000;
         UPDATE chain_heads SET seq = 4999, chain_hash = (SELECT chain_hash FROM audit WHERE stream = 1 AND seq = 4999) WHERE stream = 1",
    );
    assert_eq!(verify_store(&store, &[]).unwrap(), Verdict::Whole { streams: 2, rows: 9999 });
    assert_eq!(verify_store(&store, &checkpoints).unwrap(), bad(1, 5000, What::Missing));
}

#[tokio::test]
async fn archived_rows_leave_a_chain_that_goes_on() {
    let (_book, store) = book();
    log(&store, 30).await;
    let middle = now() + SignedDuration::from_secs(21);
    let parts = store.read(|books| books.archivable(middle)).unwrap();
    let part = *parts.iter().find(|part| part.stream == 1).unwrap();
    assert_eq!((part.first, part.last), (1, 20));
    let remove = |after| store.transact(move |books| books.remove_archived(&HashMap::from([(1, 20), (7, 9)]), after, 7, now()));
    for wanted in [20, 0] {
        let (mut place, mut removed, mut batches) = (i64::MIN, 0, 0);
        while let Some((end, gone)) = remove(place).await.unwrap() {
            assert!(end > place && gone <= 7, "{end}, {gone}");
            (place, removed, batches) = (end, removed + gone, batches + 1);
            assert!(matches!(store.read(verify).unwrap(), Verdict::Whole { streams: 2, .. }), "at every instant");
        }
        assert_eq!(removed, wanted);
        assert!(batches > 5, "{batches}");
    }
    store.transact(|books| books.audit(&row(1, 31))).await.unwrap();
    assert_eq!(store.read(verify).unwrap(), Verdict::Whole { streams: 2, rows: 30 + 11 });
    let rows = store.read(|books| books.audit_rows(1, 0, 1)).unwrap();
    assert_eq!(rows[0].seq, 21);
    // What was signed at the border still holds, or does not.
    let border = |head| [Checkpoint { stream: 1, size: 20, head, at: now() }];
    assert!(matches!(store.read(|books| verify_against(books, &border(part.head))).unwrap(), Verdict::Whole { .. }));
    let forged = store.read(|books| verify_against(books, &border([9; 32]))).unwrap();
    assert_eq!(forged, bad(1, 20, What::Rewritten { until: 20 }));
    assert!(store.read(|books| books.archivable(middle)).unwrap().iter().all(|part| part.stream != 1));
}

async fn key(store: &Store, account: AccountId) -> KeyRow {
    let key = NewKey {
        account,
        provider: "kernelhost".to_owned(),
        public_id: "kh_live_A".to_owned(),
        label: "panel".to_owned(),
        secret: "secret".into(),
        scopes: vec!["read:orders".to_owned()],
        allowed: vec!["203.0.113.0/24".parse().unwrap()],
        addresses: Vec::new(),
        limits: KeyLimits::default(),
        expires_at: None,
    };
    store.transact(move |books| books.create_key(&key, now())).await.unwrap()
}

#[tokio::test]
async fn a_key_is_changed_part_by_part_and_unlocked() {
    let (_book, store) = book();
    let row = key(&store, account(&store).await).await;
    let version = |store: &Store| store.read(|books| books.find_key("kernelhost", "kh_live_A")).unwrap().unwrap().version;
    let before = version(&store);
    let change =
        KeyChange { per_minute: Some(7), expires_at: Some(Some(now())), allowed: Some(Vec::new()), ..KeyChange::default() };
    assert!(store.transact(move |books| books.change_key("kernelhost", "kh_live_A", &change)).await.unwrap());
    let shown = store.read(|books| books.key("kh_live_A")).unwrap().unwrap();
    assert_eq!(
        (shown.label.as_str(), shown.limits.per_minute, shown.limits.burst, shown.expires_at),
        ("panel", 7, 20, Some(now()))
    );
    assert!(shown.allowed.is_empty() && shown.scopes == ["read:orders"] && version(&store) > before);
    assert_eq!(store.read(|books| books.key("kh_live_B")).unwrap().map(|key| key.public_id), None);

    let lock = Lock { network: None, until: now() + SignedDuration::from_mins(15) };
    let noted = lock.clone();
    store.transact(move |books| books.add_lock(row, &noted)).await.unwrap();
    let failure = Failure { network: "203.0.113.0/24".to_owned(), at: now() };
    store.transact(move |books| books.add_failure(row, &failure)).await.unwrap();
    assert_eq!(store.read(|books| books.key("kh_live_A")).unwrap().unwrap().locks, [lock]);
    assert_eq!(store.transact(|books| books.unlock_key("kernelhost", "kh_live_A", now())).await.unwrap(), 1);
    assert_eq!(store.transact(|books| books.unlock_key("kernelhost", "kh_live_A", now())).await.unwrap(), 0);
    assert!(store.transact(move |books| books.failures(row, Timestamp::UNIX_EPOCH)).await.unwrap().is_empty());
}

#[tokio::test]
async fn mails_are_counted_by_kind_and_moment_and_wishes_kept() {
    let (_book, store) = book();
    let id = account(&store).await;
    for (kind, second) in [("a", 0), ("a", 10), ("b", 10)] {
        let at = now() + SignedDuration::from_secs(second);
        let mail = Mail { kind: kind.to_owned(), subject: "s".to_owned(), body: "b".to_owned(), at };
        store.transact(move |books| books.account(id).queue_mail(&mail)).await.unwrap();
    }
    let count = |since| store.read(|books| books.account(id).mails_since("a", since)).unwrap();
    assert_eq!((count(Timestamp::UNIX_EPOCH), count(now()), count(now() + SignedDuration::from_secs(10))), (2, 1, 0));
    for since in [Some(now()), None] {
        assert!(store.transact(move |books| books.notify_credentials(id, since)).await.unwrap());
        assert_eq!(store.read(|books| books.account(id).notifies_credentials()).unwrap(), since.is_some());
    }
    assert!(!store.transact(|books| books.notify_credentials(AccountId(99), None)).await.unwrap());
}

#[tokio::test]
async fn sealed_values_come_under_the_newest_key_once() {
    let (book, store) = book();
    key(&store, account(&store).await).await;
    let sealed = |version| vec![SealedValues { table: "api_keys", column: "sealed_secret", version, values: 1 }];
    assert_eq!(store.read(|books| books.sealed_values()).unwrap(), sealed(1));
    store.vault().create_next_key(&[8; 32]).unwrap();
    assert!(store.refresh_keys().await.unwrap());
    for resealed in [1, 0] {
        let mut total = Resealed { next: Some((0, 0)), ..Resealed::default() };
        while let Some(from) = total.next {
            let batch = store.transact(move |books| books.reseal(from, 1)).await.unwrap();
            total = Resealed {
                next: batch.next,
                resealed: total.resealed + batch.resealed,
                unopened: total.unopened + batch.unopened,
            };
        }
        assert_eq!((total.resealed, total.unopened), (resealed, 0));
    }
    assert_eq!(store.read(|books| books.sealed_values()).unwrap(), sealed(2));
    let opened = book.open().read(|books| books.find_key("kernelhost", "kh_live_A")).unwrap().unwrap();
    assert_eq!(opened.secret.expose_secret(), "secret");
    assert!(store.transact(|books| books.forget_master_key(1)).await.unwrap());
    let settings = store.transact(|books| books.settings()).await.unwrap();
    assert!(settings.iter().all(|(_, value)| !value.is_empty()), "{settings:?}");
}
