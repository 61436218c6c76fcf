//! Which master keys a book was sealed with.

use provisor_providers::books::Fault;

use super::Transaction;

impl Transaction<'_> {
    /// Compares the vault's keys with those the book was sealed with, and notes the first key of a new book and any newer one. False
    /// when a key is missing or another stands in its place: the book then stays sealed, and nothing is lost.
    pub(crate) fn know_master_keys(&mut self) -> Result<bool, Fault> {
        let known = self.sql.query("SELECT version, fingerprint FROM master_keys", &[])?;
        let known = known.iter().map(|row| Ok((row.number(0)?, row.text(1)?))).collect::<Result<Vec<(u32, String)>, Fault>>()?;
        let at_hand = self.vault.fingerprints();
        if at_hand.is_empty() || !known.iter().all(|key| at_hand.contains(key)) {
            return Ok(false);
        }
        let newest = known.iter().map(|(version, _)| *version).max().unwrap_or(0);
        for (version, fingerprint) in at_hand.iter().filter(|(version, _)| *version > newest) {
            let values = [(*version).into(), fingerprint.into()];
            self.sql.execute("INSERT INTO master_keys (version, fingerprint) VALUES ($1, $2)", &values)?;
        }
        Ok(true)
    }

    /// Forgets a master key under which nothing is sealed any more; its file may then go. False if the book does not know it.
    pub fn forget_master_key(&mut self, version: u32) -> Result<bool, Fault> {
        Ok(self.sql.execute("DELETE FROM master_keys WHERE version = $1", &[version.into()])? == 1)
    }
}
