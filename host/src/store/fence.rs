//! The fence behind a restore (spec/kernelhost 2.3): a book that comes back from its backup has forgotten which nonces were spent since.

use jiff::Timestamp;
use provisor_providers::books::Fault;

use super::Transaction;
use super::sql::Sql;

/// The row.
const ID: i64 = 1;

/// Marks a copy of a book: whoever serves it has restored it. A book whose tables are of an earlier version cannot be marked.
pub(super) fn mark(copy: &mut dyn Sql) -> Result<(), Fault> {
    if copy.first("SELECT 1 FROM sqlite_schema WHERE name = 'fences'", &[])?.is_some() {
        copy.execute(
            "INSERT INTO fences (id, lost_until) VALUES ($1, NULL) ON CONFLICT (id) DO UPDATE SET lost_until = NULL",
            &[ID.into()],
        )?;
    }
    Ok(())
}

impl Transaction<'_> {
    /// Until when a book that was restored may have accepted what it no longer knows. What a backup lost that is served for the first time,
    /// it lost before `now`.
    pub fn fence(&mut self, now: Timestamp) -> Result<Option<Timestamp>, Fault> {
        match self.known_fence()? {
            None => Ok(None),
            Some(Some(lost_until)) => Ok(Some(lost_until)),
            Some(None) => self.set_fence(now).map(|()| Some(now)),
        }
    }

    /// The same, of a book that is only looked at: `Some(None)` of a backup that was not served yet.
    pub fn known_fence(&mut self) -> Result<Option<Option<Timestamp>>, Fault> {
        let row = self.sql.first("SELECT lost_until FROM fences WHERE id = $1", &[ID.into()])?;
        row.map(|row| row.opt_time(0)).transpose()
    }

    /// Says it of a book.
    pub fn set_fence(&mut self, lost_until: Timestamp) -> Result<(), Fault> {
        self.sql.execute(
            "INSERT INTO fences (id, lost_until) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET lost_until = excluded.lost_until",
            &[ID.into(), lost_until.into()],
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::{Store, back_up};
    use crate::vault::Vault;

    #[tokio::test]
    async fn a_backup_has_a_fence_from_the_first_time_that_it_is_served() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Arc::new(Vault::open(folder.path()).unwrap());
        let (book, copy) = (folder.path().join("book.db"), folder.path().join("copy.db"));
        let at = |second| Timestamp::from_second(second).unwrap();
        let open = |file| Store::open_sqlite(file, Arc::clone(&vault)).unwrap();
        let fence = async |store: &Store, now| store.transact(move |books| books.fence(at(now))).await.unwrap();
        let store = open(&book);
        assert_eq!(fence(&store, 1000).await, None);
        back_up(&book, &copy).unwrap();
        assert_eq!(fence(&store, 1000).await, None, "what was copied is not restored");
        let files = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name());
        assert!(!files.collect::<Vec<_>>().contains(&"copy.db-wal".into()), "the copy is one file");
        for now in [2000, 2100] {
            assert_eq!(fence(&open(&copy), now).await, Some(at(2000)), "of the first time that it was served");
        }
        // Whoever knows when the old book ended may say so.
        let restored = open(&copy);
        restored.transact(move |books| books.set_fence(at(1500))).await.unwrap();
        assert_eq!(fence(&restored, 3000).await, Some(at(1500)));
        // And a copy of that is one that was not served.
        let again = folder.path().join("again.db");
        back_up(&copy, &again).unwrap();
        assert_eq!(fence(&open(&again), 9000).await, Some(at(9000)));
    }
}
