//! What stands at providers that no key of a panel owns, as the inventories saw it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use provisor_providers::books::Fault;

use super::Transaction;
use super::sql::{Row, Value};

/// While an order is under way, what it makes belongs to no key yet: until then a service that was found may be that one. Longer than
/// the pauses in which orders are followed.
const CERTAIN_AFTER: SignedDuration = SignedDuration::from_mins(15);

/// A service at a provider that no key owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unowned {
    /// The profile whose account it is in.
    pub profile: String,
    /// The provider's id.
    pub remote_id: String,
    /// Its domain.
    pub domain: Option<String>,
    /// How it stands, in the contract's word.
    pub state: String,
    /// Its plan.
    pub plan: Option<String>,
    /// When it was found first.
    pub since: Timestamp,
    /// When it was found last.
    pub seen_at: Timestamp,
}

/// Which of them are listed.
#[derive(Debug, Clone, Default)]
pub struct UnownedFilter {
    /// Only of this profile.
    pub profile: Option<String>,
    /// Only after this profile and remote id.
    pub after: Option<(String, String)>,
    /// How many at most.
    pub limit: u32,
}

/// Not those that a key has come to own since.
const CONDITION: &str = "u.is_certain = 1 AND NOT EXISTS
    (SELECT 1 FROM managed_services s WHERE s.profile = u.profile AND s.remote_id = u.remote_id AND s.is_live = 1)";

impl Transaction<'_> {
    /// When profiles' inventories are due, of those that ever were.
    pub(crate) fn inventories(&mut self) -> Result<Vec<(String, Timestamp)>, Fault> {
        let rows = self.sql.query("SELECT profile, due_at FROM inventories ORDER BY profile", &[])?;
        rows.iter().map(|row| Ok((row.text(0)?, row.time(1)?))).collect()
    }

    /// Has a profile's first inventory taken at this time.
    pub(crate) fn begin_inventories(&mut self, profile: &str, due_at: Timestamp) -> Result<(), Fault> {
        let insert = "INSERT INTO inventories (profile, due_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        self.sql.execute(insert, &[profile.into(), due_at.into()])?;
        Ok(())
    }

    /// Takes a profile's inventory on, if it is due; it is due again at `again`, should this host not bring it to an end.
    pub(crate) fn claim_inventory(&mut self, profile: &str, now: Timestamp, again: Timestamp) -> Result<bool, Fault> {
        self.claim_journal();
        let update = "UPDATE inventories SET due_at = $1 WHERE profile = $2 AND due_at <= $3";
        Ok(self.sql.execute(update, &[again.into(), profile.into(), now.into()])? == 1)
    }

    /// Notes a service that an inventory found, unless a key owns it.
    pub(crate) fn note_found(&mut self, found: &Unowned) -> Result<(), Fault> {
        let Unowned { profile, remote_id, domain, state, plan, since: _, seen_at } = found;
        if self.managed_at(profile, remote_id)?.is_some() {
            return Ok(());
        }
        // A key that goes by its domain knows no id.
        let by_domain =
            domain.as_deref().map(|domain| self.managed_of_domain(profile, &domain.to_ascii_lowercase())).transpose()?;
        if by_domain.flatten().is_some_and(|owner| owner.remote_id.is_none()) {
            return Ok(());
        }
        let query = "SELECT 1 FROM operations WHERE profile = $1 AND kind IN ('create', 'adopt') AND ended_at IS NULL LIMIT 1";
        let is_certain = self.sql.first(query, &[profile.into()])?.is_none();
        self.sql.execute(
            "INSERT INTO unowned_services (profile, remote_id, domain, state, plan, since, seen_at, is_certain)
             VALUES ($1, $2, $3, $4, $5, $6, $6, $7)
             ON CONFLICT (profile, remote_id) DO UPDATE SET domain = excluded.domain, state = excluded.state, plan = excluded.plan,
               seen_at = excluded.seen_at,
               is_certain = CASE WHEN excluded.is_certain = 1 OR unowned_services.since <= $8 THEN 1 ELSE unowned_services.is_certain END",
            &[
                profile.into(),
                remote_id.into(),
                domain.as_deref().into(),
                state.into(),
                plan.as_deref().into(),
                (*seen_at).into(),
                i64::from(is_certain).into(),
                (*seen_at - CERTAIN_AFTER).into(),
            ],
        )?;
        Ok(())
    }

    /// Ends an inventory. What it did not find is gone, if it saw everything. The next is due after `every`, sooner while something that it
    /// found is not certain, and at once if somebody asked for one meanwhile.
    pub(crate) fn end_inventory(
        &mut self,
        profile: &str,
        began: Timestamp,
        is_whole: bool,
        (now, every): (Timestamp, Duration),
    ) -> Result<(), Fault> {
        self.claim_journal();
        if is_whole {
            let delete = "DELETE FROM unowned_services WHERE profile = $1 AND seen_at < $2";
            self.sql.execute(delete, &[profile.into(), began.into()])?;
        }
        let query = "SELECT 1 FROM unowned_services WHERE profile = $1 AND is_certain = 0 LIMIT 1";
        let is_certain = self.sql.first(query, &[profile.into()])?.is_none();
        let next = if is_certain { now + every } else { (now + every).min(began + CERTAIN_AFTER) };
        let update =
            "UPDATE inventories SET due_at = CASE WHEN due_at <= $1 THEN due_at ELSE $2 END, taken_at = $3 WHERE profile = $4";
        self.sql.execute(update, &[now.into(), next.into(), began.into(), profile.into()])?;
        Ok(())
    }

    /// When a profile's last inventory was taken.
    pub(crate) fn inventory_taken(&mut self, profile: &str) -> Result<Option<Timestamp>, Fault> {
        let row = self.sql.first("SELECT taken_at FROM inventories WHERE profile = $1", &[profile.into()])?;
        row.map_or(Ok(None), |row| row.opt_time(0))
    }

    /// Services that no key owns.
    pub fn unowned_services(&mut self, filter: &UnownedFilter) -> Result<Vec<Unowned>, Fault> {
        let (mut values, mut conditions) = (Vec::<Value<'_>>::new(), vec![CONDITION.to_owned()]);
        if let Some(profile) = &filter.profile {
            values.push(profile.into());
            conditions.push(format!("u.profile = ${}", values.len()));
        }
        if let Some((profile, remote_id)) = &filter.after {
            values.extend([Value::from(profile), Value::from(remote_id)]);
            conditions.push(format!("(u.profile, u.remote_id) > (${}, ${})", values.len() - 1, values.len()));
        }
        values.push(filter.limit.into());
        let query = format!(
            "SELECT u.profile, u.remote_id, u.domain, u.state, u.plan, u.since, u.seen_at FROM unowned_services u
             WHERE {} ORDER BY u.profile, u.remote_id LIMIT ${}",
            conditions.join(" AND "),
            values.len()
        );
        self.sql.query(&query, &values)?.iter().map(read).collect()
    }

    /// How many there are.
    pub(crate) fn unowned_count(&mut self) -> Result<i64, Fault> {
        let query = format!("SELECT COUNT(*) FROM unowned_services u WHERE {CONDITION}");
        self.sql.first(&query, &[])?.map_or(Ok(0), |row| row.int(0))
    }

    /// Has the inventory of a profile, or of all, taken at once; how many.
    pub fn take_inventories(&mut self, profile: Option<&str>, now: Timestamp) -> Result<usize, Fault> {
        let update = "UPDATE inventories SET due_at = $1";
        match profile {
            None => self.sql.execute(update, &[now.into()]),
            Some(profile) => self.sql.execute(&format!("{update} WHERE profile = $2"), &[now.into(), profile.into()]),
        }
    }
}

fn read(row: &Row) -> Result<Unowned, Fault> {
    Ok(Unowned {
        profile: row.text(0)?,
        remote_id: row.text(1)?,
        domain: row.opt_text(2)?,
        state: row.text(3)?,
        plan: row.opt_text(4)?,
        since: row.time(5)?,
        seen_at: row.time(6)?,
    })
}
