//! Numbered migrations, each run once, each remembered with its checksum.

use base16ct::lower as hex;
use provisor_providers::books::Fault;
use sha2::{Digest, Sha256};

use super::sql::Sql;

const MIGRATIONS: &[(i64, &str)] = &[
    (1, include_str!("migrations/0001_books.sql")),
    (2, include_str!("migrations/0002_outboxes.sql")),
    (3, include_str!("migrations/0003_leases.sql")),
    (4, include_str!("migrations/0004_billing.sql")),
    (5, include_str!("migrations/0005_audit.sql")),
    (6, include_str!("migrations/0006_use.sql")),
    (7, include_str!("migrations/0007_journal.sql")),
    (8, include_str!("migrations/0008_terms.sql")),
    (9, include_str!("migrations/0009_retention.sql")),
    (10, include_str!("migrations/0010_unowned.sql")),
    (11, include_str!("migrations/0011_summary.sql")),
    (12, include_str!("migrations/0012_sealed_options.sql")),
    (13, include_str!("migrations/0013_nonces.sql")),
    (14, include_str!("migrations/0014_orders.sql")),
    (15, include_str!("migrations/0015_idempotency.sql")),
    (16, include_str!("migrations/0016_ends.sql")),
    (17, include_str!("migrations/0017_fence.sql")),
    (18, include_str!("migrations/0018_sandbox.sql")),
    (19, include_str!("migrations/0019_strict.sql")),
    (20, include_str!("migrations/0020_charges.sql")),
];

/// Brings the schema up to date, inside a transaction. A book written by a newer version, or by one whose migrations differ, is
/// refused untouched.
pub(crate) fn run(engine: &mut dyn Sql) -> Result<(), Fault> {
    engine.batch("CREATE TABLE IF NOT EXISTS migrations (version BIGINT NOT NULL PRIMARY KEY, sha256 TEXT NOT NULL)")?;
    let newest =
        engine.first("SELECT MAX(version) FROM migrations", &[])?.and_then(|row| row.opt_int(0).transpose()).transpose()?;
    if newest.is_some_and(|version| MIGRATIONS.iter().all(|(known, _)| *known < version)) {
        return Err(Fault("the book was written by a newer version of provisor".to_owned()));
    }
    for (version, text) in MIGRATIONS {
        let checksum = hex::encode_string(&Sha256::digest(text));
        match engine.first("SELECT sha256 FROM migrations WHERE version = $1", &[(*version).into()])? {
            Some(row) if row.text(0)? == checksum => {}
            Some(_) => return Err(Fault(format!("migration {version} of this book is not the one of this program"))),
            None => {
                if newest.is_some() {
                    tracing::info!(version, "the book's tables are changed, which takes a while on a large one");
                }
                engine.batch(&engine.dialect().schema(text))?;
                let values = [(*version).into(), checksum.as_str().into()];
                engine.execute("INSERT INTO migrations (version, sha256) VALUES ($1, $2)", &values)?;
            }
        }
    }
    Ok(())
}

/// The tables that the migrations make, in their order. One that a later migration makes anew keeps its place.
pub(crate) fn tables() -> Vec<&'static str> {
    let lines = || MIGRATIONS.iter().flat_map(|(_, text)| text.lines());
    let renamed = |name: &str| lines().any(|line| line.starts_with(&format!("ALTER TABLE {name} RENAME TO ")));
    let made = lines().filter_map(|line| line.strip_prefix("CREATE TABLE ")?.split([' ', '(']).next());
    made.filter(|name| !renamed(name)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use provisor_providers::books::{AccountId, AuditRow, Books, IdempotencyScope, KeyRow};
    use rusqlite::Connection;

    use super::*;
    use crate::audit::{Verdict, verify_store};
    use crate::store::Store;
    use crate::store::sql::Dialect;
    use crate::store::sqlite::Sqlite;
    use crate::vault::Vault;

    /// Such a page is written for each row that is added, wherever in the index it is.
    #[test]
    fn what_requests_add_to_stands_in_no_index_led_by_an_account_or_a_key() {
        let book = Connection::open_in_memory().unwrap();
        run(&mut Sqlite::new(&book)).unwrap();
        let query = "SELECT l.name FROM sqlite_master t, pragma_index_list(t.name) l
                     WHERE t.name IN ('audit', 'idempotency', 'invoices', 'ledger', 'nonces', 'orders') AND l.partial = 0";
        let names: Vec<String> =
            book.prepare(query).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(names, ["audit_blocks"]);
    }

    #[test]
    fn no_column_takes_what_is_not_of_its_type() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("book.db");
        // Two processes open a new book at once: the other one's connection knows the tables as they were.
        let other = Connection::open(&file).unwrap();
        let count = |query: &str| other.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap();
        count("SELECT COUNT(*) FROM sqlite_schema");
        Store::open_sqlite(&file, Arc::new(Vault::open(folder.path()).unwrap())).unwrap();
        let loose = "SELECT COUNT(*) FROM pragma_table_list WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND NOT strict";
        assert_eq!(count(loose), 0);
        assert!(count("SELECT COUNT(*) FROM pragma_table_list WHERE strict") > 30);
        let wrong = "INSERT INTO ledger (account_id, at, amount, kind, reference) VALUES (1, 0, 'nine', '', '')";
        let refused = other.execute(wrong, []).unwrap_err().to_string();
        assert!(refused.contains("cannot store TEXT value in INT column ledger.amount"), "{refused}");
        assert_eq!(other.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
    }

    /// A book as it was before requests wrote to the ends of its tables alone: two resellers with invoices in turn, a record, and the
    /// log of a book of today.
    #[tokio::test]
    async fn a_book_with_indexes_by_account_keeps_its_rows_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Arc::new(Vault::open(folder.path()).unwrap());
        let today = folder.path().join("today.db");
        let store = Store::open_sqlite(&today, Arc::clone(&vault)).unwrap();
        let log = store.transact(|books| {
            (0..300_i64).try_for_each(|number| {
                let at = Timestamp::from_millisecond(number).unwrap();
                let row = AuditRow::of_event("request", at, [127, 0, 0, 1].into(), String::new());
                books.audit(&AuditRow { account: Some(AccountId(1 + number % 2)), ..row })
            })
        });
        log.await.unwrap();
        drop(store);

        let old = folder.path().join("old.db");
        let book = Connection::open(&old).unwrap();
        book.execute_batch("CREATE TABLE migrations (version BIGINT NOT NULL PRIMARY KEY, sha256 TEXT NOT NULL)").unwrap();
        for (version, text) in MIGRATIONS.iter().filter(|(version, _)| *version < 16) {
            book.execute_batch(&Dialect::Sqlite.schema(text)).unwrap();
            let checksum = hex::encode_string(&Sha256::digest(text));
            book.execute("INSERT INTO migrations VALUES (?1, ?2)", (version, checksum)).unwrap();
        }
        let columns =
            "stream, seq, at, account_id, key_id, peer, method, path, status, reason, request_id, event, detail, chain_hash";
        book.execute_batch(&format!(
            "ATTACH '{}' AS today;
             INSERT INTO audit ({columns}) SELECT {columns} FROM today.audit ORDER BY id;
             INSERT INTO chain_heads SELECT * FROM today.chain_heads;
             INSERT INTO accounts (id, name, email, currency, balance, created_at) VALUES (1, '', '', 'EUR', 0, 0), (2, '', '', 'EUR', 0, 0);
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
               INSERT INTO invoices (id, account_id, status, total, currency, issued_at, due_at)
               SELECT i, 1 + i % 2, 'unpaid', 1, 'EUR', 0, 0 FROM n;
             INSERT INTO idempotency VALUES (7, 'POST', '/v1/orders', 'name', zeroblob(32), 201, '', CAST('body' AS BLOB), NULL, 0, 1000);
             DETACH today",
            today.display(),
        ))
        .unwrap();
        drop(book);

        let store = Store::open_sqlite(&old, vault).unwrap();
        assert_eq!(verify_store(&store, &[]).unwrap(), Verdict::Whole { streams: 2, rows: 300 });
        assert_eq!(store.read(|books| books.audit_rows(2, 100, 9)).unwrap().last().unwrap().seq, 109);
        let found = store.transact(|books| {
            let scope = IdempotencyScope { key: KeyRow(7), method: "POST", path: "/v1/orders", idempotency_key: "name" };
            let recorded = books.idempotent(&scope, Timestamp::UNIX_EPOCH)?.map(|recorded| recorded.response.body);
            let mut account = books.account(AccountId(1));
            Ok((recorded, account.count_invoices()?, account.invoices(70, 2)?))
        });
        let (recorded, count, listed) = found.await.unwrap();
        assert_eq!((recorded.as_deref(), count), (Some(&b"body"[..]), 100));
        assert_eq!(listed.iter().map(|invoice| invoice.id).collect::<Vec<_>>(), [142, 144]);
    }
}
