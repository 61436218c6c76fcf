//! The one list of sealed columns, and how their values come under a new master key.

use provisor_providers::books::Fault;

use super::Transaction;
use crate::vault::{Place, sealed_version};

/// A column that holds the vault's ciphertext. Each stands in this list, or its values are lost once an old key is.
struct Column {
    table: &'static str,
    name: &'static str,
    /// The table's integer key.
    key: &'static str,
    /// What names the row to the vault, in SQL.
    row: &'static str,
}

const SEALED: &[Column] = &[
    Column { table: "accounts", name: "sealed_card", key: "id", row: "CAST(id AS TEXT)" },
    Column { table: "api_keys", name: "sealed_secret", key: "id", row: "provider || '/' || public_id" },
    Column { table: "operations", name: "sealed_options", key: "id", row: "ulid" },
    Column { table: "operations", name: "sealed_password", key: "id", row: "ulid" },
    Column { table: "payments", name: "sealed_card", key: "id", row: "CAST(id AS TEXT)" },
    Column { table: "services", name: "sealed_password", key: "id", row: "CAST(id AS TEXT)" },
    Column { table: "webhooks", name: "sealed_secret", key: "key_id", row: "CAST(key_id AS TEXT)" },
    Column { table: "webhooks", name: "sealed_previous_secret", key: "key_id", row: "CAST(key_id AS TEXT)" },
];

/// How many values of a column are sealed under a master key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedValues {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    /// The key's version; 0 for what is no ciphertext.
    pub version: u32,
    /// How many.
    pub values: u64,
}

/// What a batch came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Where the next batch begins; nothing when there is none.
    pub next: Option<(usize, i64)>,
    /// Values that are under the newest key now.
    pub resealed: u64,
    /// Values that do not open: damaged, or under a key that is not at hand. They stay as they are.
    pub unopened: u64,
}

impl Transaction<'_> {
    /// How many values are sealed under which key.
    pub fn sealed_values(&mut self) -> Result<Vec<SealedValues>, Fault> {
        let mut found = Vec::new();
        for Column { table, name: column, .. } in SEALED {
            let query =
                format!("SELECT substr({column}, 1, 4), COUNT(*) FROM {table} WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY 1");
            for row in self.sql.query(&query, &[])? {
                let version = sealed_version(&row.bytes(0)?).unwrap_or(0);
                found.push(SealedValues { table, column, version, values: row.number(1)? });
            }
        }
        Ok(found)
    }

    /// Seals a batch of values anew, from a place that the batch before gave (at first column 0, row 0). What is under the newest key
    /// already stays, so that a job that was cut off is simply begun again.
    pub fn reseal(&mut self, from: (usize, i64), limit: u32) -> Result<Resealed, Fault> {
        let (index, after) = from;
        let Some(Column { table, name: column, key, row }) = SEALED.get(index) else { return Ok(Resealed::default()) };
        let query =
            format!("SELECT {key}, {row}, {column} FROM {table} WHERE {key} > $1 AND {column} IS NOT NULL ORDER BY 1 LIMIT $2");
        let rows = self.sql.query(&query, &[after.into(), limit.into()])?;
        let mut done = Resealed { next: Some((index + 1, 0)), ..Resealed::default() };
        for row in &rows {
            let (id, name, sealed) = (row.int(0)?, row.text(1)?, row.bytes(2)?);
            if rows.len() == limit as usize {
                done.next = Some((index, id));
            }
            if sealed_version(&sealed).is_some_and(|version| version >= self.vault.newest()) {
                continue;
            }
            let place = Place { table, row: &name, column };
            let Ok(secret) = self.vault.open_value(place, &sealed) else {
                done.unopened += 1;
                continue;
            };
            let anew = self.vault.seal(place, &secret).map_err(|error| Fault(error.to_string()))?;
            // Not over a value that somebody wrote meanwhile.
            let update = format!("UPDATE {table} SET {column} = $1 WHERE {key} = $2 AND {column} = $3");
            let values = [anew.as_slice().into(), id.into(), sealed.as_slice().into()];
            done.resealed += u64::try_from(self.sql.execute(&update, &values)?).unwrap_or(0);
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::Store;
    use crate::vault::Vault;

    /// A column that is not in the list would be lost with its key.
    #[test]
    fn every_sealed_column_of_the_schema_is_listed() {
        let directory = tempfile::tempdir().unwrap();
        Vault::create_key(directory.path(), &[7; 32]).unwrap();
        let file = directory.path().join("book.db");
        let store = Store::open_sqlite(&file, Arc::new(Vault::open(directory.path()).unwrap())).unwrap();
        assert_eq!(store.read(|books| books.sealed_values()).unwrap(), []);
        let book = rusqlite::Connection::open(file).unwrap();
        let query = "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c
                     WHERE m.type = 'table' AND c.name LIKE 'sealed%' ORDER BY 1, 2";
        let mut statement = book.prepare(query).unwrap();
        let found = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).unwrap();
        let mut listed: Vec<_> = SEALED.iter().map(|column| (column.table.to_owned(), column.name.to_owned())).collect();
        listed.sort();
        assert_eq!(found.collect::<Result<Vec<_>, _>>().unwrap(), listed);
    }
}
