//! Which master keys a book was sealed with.

use provisor_providers::books::Fault;

use super::Transaction;

impl Transaction<'_> {
    /// Compares the vault's keys with those the book was sealed with, and notes the first key of a new book. False when a key is
    /// missing or another stands in its place: the book then stays sealed, and nothing is lost.
    pub(crate) fn know_master_keys(&mut self) -> Result<bool, Fault> {
        let known = self.sql.query("SELECT version, fingerprint FROM master_keys", &[])?;
        let known = known.iter().map(|row| Ok((row.number(0)?, row.text(1)?))).collect::<Result<Vec<(u32, String)>, Fault>>()?;
        let at_hand: Vec<_> = self.vault.fingerprints().collect();
        if at_hand.is_empty() {
            return Ok(false);
        }
        for (version, fingerprint) in at_hand {
            match known.iter().find(|(known, _)| *known == version) {
                Some((_, noted)) if noted == fingerprint => {}
                Some(_) => return Ok(false),
                None => {
                    let values = [version.into(), fingerprint.into()];
                    self.sql.execute("INSERT INTO master_keys (version, fingerprint) VALUES ($1, $2)", &values)?;
                }
            }
        }
        Ok(known.iter().all(|(version, _)| self.vault.fingerprints().any(|(at_hand, _)| at_hand == *version)))
    }
}
