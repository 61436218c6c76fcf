//! Numbered migrations, each run once, each remembered with its checksum.

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
        let checksum = hex::encode(Sha256::digest(text));
        match engine.first("SELECT sha256 FROM migrations WHERE version = $1", &[(*version).into()])? {
            Some(row) if row.text(0)? == checksum => {}
            Some(_) => return Err(Fault(format!("migration {version} of this book is not the one of this program"))),
            None => {
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
