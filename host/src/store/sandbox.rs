//! A book for trying things out, whose keys are told from real ones (spec/kernelhost 2.17).

use provisor_providers::books::Fault;

use super::Transaction;

/// The row.
const ID: i64 = 1;

impl Transaction<'_> {
    /// Whether this book is one.
    pub fn is_sandbox(&mut self) -> Result<bool, Fault> {
        Ok(self.sql.first("SELECT 1 FROM sandboxes WHERE id = $1", &[ID.into()])?.is_some())
    }

    /// Makes this book one, for ever, if it is not one yet; false, and nothing changed, if it has resellers, whose keys are real.
    pub fn make_sandbox(&mut self) -> Result<bool, Fault> {
        if self.is_sandbox()? {
            return Ok(true);
        }
        if self.sql.first("SELECT 1 FROM accounts LIMIT 1", &[])?.is_some() {
            return Ok(false);
        }
        self.sql.execute("INSERT INTO sandboxes (id) VALUES ($1) ON CONFLICT (id) DO NOTHING", &[ID.into()])?;
        Ok(true)
    }
}
