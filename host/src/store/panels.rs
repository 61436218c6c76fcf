//! Panels: who may ask the gateway, and as which profiles.

use jiff::Timestamp;
use provisor_providers::books::Fault;

use super::Transaction;
use super::sql::Row;

/// A panel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panel {
    /// The row.
    pub id: i64,
    /// The operator's name for it.
    pub name: String,
    /// The profiles that it may use; empty for all.
    pub profiles: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its token was taken back.
    pub revoked_at: Option<Timestamp>,
}

impl Panel {
    /// Whether it may use a profile.
    pub fn may_use(&self, profile: &str) -> bool {
        self.profiles.is_empty() || self.profiles.iter().any(|name| name == profile)
    }
}

const COLUMNS: &str = "id, name, profiles, created_at, revoked_at";

impl Transaction<'_> {
    /// Adds a panel; false if there is one of this name.
    pub fn add_panel(&mut self, name: &str, token_sha256: &[u8; 32], profiles: &[String], now: Timestamp) -> Result<bool, Fault> {
        let profiles = serde_json::json!(profiles).to_string();
        let added = self.sql.execute(
            "INSERT INTO panels (name, token_sha256, profiles, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            &[name.into(), token_sha256.as_slice().into(), (&profiles).into(), now.into()],
        )?;
        Ok(added == 1)
    }

    /// Gives a panel another token; what it had asked for stays its own. False if there is no such panel.
    pub fn set_panel_token(&mut self, name: &str, token_sha256: &[u8; 32]) -> Result<bool, Fault> {
        let set = self.sql.execute(
            "UPDATE panels SET token_sha256 = $1, revoked_at = NULL WHERE name = $2",
            &[token_sha256.as_slice().into(), name.into()],
        )?;
        Ok(set == 1)
    }

    /// Takes a panel's token back; false if there is no such panel.
    pub fn revoke_panel(&mut self, name: &str, now: Timestamp) -> Result<bool, Fault> {
        let revoked = self
            .sql
            .execute("UPDATE panels SET revoked_at = COALESCE(revoked_at, $1) WHERE name = $2", &[now.into(), name.into()])?;
        Ok(revoked == 1)
    }

    /// All panels, by name.
    pub fn panels(&mut self) -> Result<Vec<Panel>, Fault> {
        let rows = self.sql.query(&format!("SELECT {COLUMNS} FROM panels ORDER BY name"), &[])?;
        rows.iter().map(read).collect()
    }

    /// The panel that has this token, unless it was revoked.
    pub fn panel_of_token(&mut self, token_sha256: &[u8; 32]) -> Result<Option<Panel>, Fault> {
        let query = format!("SELECT {COLUMNS} FROM panels WHERE token_sha256 = $1 AND revoked_at IS NULL");
        self.sql.first(&query, &[token_sha256.as_slice().into()])?.as_ref().map(read).transpose()
    }
}

fn read(row: &Row) -> Result<Panel, Fault> {
    let profiles = serde_json::from_str(&row.text(2)?).map_err(|error| Fault(format!("a panel's profiles: {error}")))?;
    Ok(Panel { id: row.int(0)?, name: row.text(1)?, profiles, created_at: row.time(3)?, revoked_at: row.opt_time(4)? })
}
