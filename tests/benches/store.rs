//! Durable transactions of the books: one caller at a time, and many at once, whose work shares commits.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on says so and ends")]

use std::sync::Arc;

use jiff::Timestamp;
use provisor::store::Store;
use provisor::vault::Vault;
use provisor_providers::books::{AccountId, Entry};
use provisor_providers::money::Minor;
use provisor_tests::rounds::{in_turn, per_second};

const CALLERS: usize = 64;
/// Of one caller, in a round.
const ALONE: usize = 400;
/// Of each of many, in a round.
const TOGETHER: usize = 100;

#[tokio::main]
async fn main() {
    let directory = tempfile::tempdir().unwrap();
    Vault::create_key(directory.path(), &[7; 32]).unwrap();
    let vault = Arc::new(Vault::open(directory.path()).unwrap());
    let store = Store::open_sqlite(&directory.path().join("provisor.db"), vault).unwrap();
    let account = store.transact(|books| books.create_account("A", "a@example.com", "EUR", Timestamp::now())).await.unwrap();
    let pair = in_turn(
        async || caller(store.clone(), account, ALONE).await,
        async || {
            let callers: Vec<_> = (0..CALLERS).map(|_| tokio::spawn(caller(store.clone(), account, TOGETHER))).collect();
            for caller in callers {
                caller.await.unwrap();
            }
        },
    );
    let pair = pair.await;
    let (alone, together) = (per_second(ALONE, pair.first), per_second(CALLERS * TOGETHER, pair.second));
    println!("transactions, 1 caller: {alone:.0}/s");
    println!("transactions, {CALLERS} callers: {together:.0}/s");
    // The rounds differ in length: the ratio is that of the rates.
    println!("ratio, {CALLERS} callers to 1: {:.2}", pair.ratio * per_caller());
}

/// How much more work the many do in a round than the one.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn per_caller() -> f64 {
    (CALLERS * TOGETHER) as f64 / ALONE as f64
}

/// Each transaction writes two rows: an entry and the balance it moves.
async fn caller(store: Store, account: AccountId, times: usize) {
    for _ in 0..times {
        let credit = store.transact(move |books| {
            books.credit(account, Minor(1), &Entry { at: Timestamp::now(), kind: "bench", reference: "bench" })
        });
        credit.await.unwrap();
    }
}
