//! The services that panels were promised: what each panel's key stands for at the provider.

use jiff::Timestamp;
use provisor_providers::books::Fault;

use super::Transaction;
use super::sql::{Claim, Row, Value};

/// A service as a panel names it, as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Managed {
    /// The row.
    pub id: i64,
    /// Whose it is.
    pub panel: i64,
    /// The panel's name for it.
    pub key: String,
    /// How often it was made: a `create` after its end begins the next one.
    pub generation: u32,
    /// The profile it was made with.
    pub profile: String,
    /// How it stands, in the contract's word.
    pub state: String,
    /// How the panel wants it: `active`, `suspended`, `terminated`.
    pub wanted: String,
    /// Whether something may stand at the provider for it.
    pub is_live: bool,
    /// The provider's id.
    pub remote_id: Option<String>,
    /// Its domain.
    pub domain: Option<String>,
    /// Its user's name.
    pub username: Option<String>,
    /// Its plan.
    pub plan: Option<String>,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// What else is known, by name.
    pub properties: Vec<(String, String)>,
    /// Paid until, in the provider's spelling.
    pub due_at: Option<String>,
    /// How the provider's view differs from the panel's wish, and since when.
    pub drift: Option<(String, Timestamp)>,
    /// When the provider is to be asked.
    pub check_at: Option<Timestamp>,
    /// When it was asked last.
    pub checked_at: Option<Timestamp>,
    /// When the panel asked for it first.
    pub created_at: Timestamp,
    /// When any of this changed last.
    pub updated_at: Timestamp,
}

/// Which services are listed.
#[derive(Debug, Clone, Default)]
pub struct ManagedFilter {
    /// Only this panel's.
    pub panel: Option<i64>,
    /// Only in this state.
    pub state: Option<String>,
    /// Only of this profile.
    pub profile: Option<String>,
    /// Only those with drift.
    pub is_drifted: bool,
    /// Only rows after this one.
    pub after: i64,
    /// How many at most.
    pub limit: u32,
}

const COLUMNS: &str = "id, panel_id, service_key, generation, profile, state, wanted, is_live, remote_id, domain, username, plan, \
                       addresses, properties, due_at, drift, drift_since, check_at, checked_at, created_at, updated_at";

impl Transaction<'_> {
    /// Says that the journal is about to be decided upon: on PostgreSQL one transaction at a time does.
    pub(crate) fn claim_journal(&mut self) {
        self.sql.claim(Claim::Journal);
    }

    /// What a panel's key stands for.
    pub(crate) fn managed(&mut self, panel: i64, key: &str) -> Result<Option<Managed>, Fault> {
        self.find_managed("panel_id = $1 AND service_key = $2", &[panel.into(), key.into()])
    }

    /// By row.
    pub(crate) fn managed_row(&mut self, id: i64) -> Result<Option<Managed>, Fault> {
        self.find_managed("id = $1", &[id.into()])
    }

    /// The live service that a remote id belongs to.
    pub(crate) fn managed_at(&mut self, profile: &str, remote_id: &str) -> Result<Option<Managed>, Fault> {
        self.find_managed("profile = $1 AND remote_id = $2 AND is_live = 1", &[profile.into(), remote_id.into()])
    }

    /// The live service that a domain belongs to.
    pub(crate) fn managed_of_domain(&mut self, profile: &str, domain: &str) -> Result<Option<Managed>, Fault> {
        self.find_managed("profile = $1 AND domain = $2 AND is_live = 1", &[profile.into(), domain.into()])
    }

    fn find_managed(&mut self, condition: &str, values: &[Value<'_>]) -> Result<Option<Managed>, Fault> {
        let query = format!("SELECT {COLUMNS} FROM managed_services WHERE {condition}");
        self.sql.first(&query, values)?.as_ref().map(read).transpose()
    }

    /// Services in the order in which they came.
    pub fn managed_services(&mut self, filter: &ManagedFilter) -> Result<Vec<Managed>, Fault> {
        let mut values: Vec<Value<'_>> = vec![filter.after.into()];
        let mut conditions = vec!["id > $1".to_owned()];
        let wanted: [(&str, Option<Value<'_>>); 3] = [
            ("panel_id", filter.panel.map(Into::into)),
            ("state", filter.state.as_deref().map(Into::into)),
            ("profile", filter.profile.as_deref().map(Into::into)),
        ];
        for (column, value) in wanted {
            if let Some(value) = value {
                values.push(value);
                conditions.push(format!("{column} = ${}", values.len()));
            }
        }
        if filter.is_drifted {
            conditions.push("drift IS NOT NULL".to_owned());
        }
        values.push(filter.limit.into());
        let conditions = conditions.join(" AND ");
        let query = format!("SELECT {COLUMNS} FROM managed_services WHERE {conditions} ORDER BY id LIMIT ${}", values.len());
        self.sql.query(&query, &values)?.iter().map(read).collect()
    }

    /// How many services differ from their panel's wish.
    pub(crate) fn drifted_services(&mut self) -> Result<i64, Fault> {
        self.sql.first("SELECT COUNT(*) FROM managed_services WHERE drift IS NOT NULL", &[])?.map_or(Ok(0), |row| row.int(0))
    }

    /// Adds a service; its row is the answer, whatever `id` says.
    pub(crate) fn add_managed(&mut self, new: &Managed) -> Result<i64, Fault> {
        let id = self.sql.insert_one(
            "INSERT INTO managed_services (panel_id, service_key, generation, profile, state, wanted, is_live, addresses, properties,
                                           created_at, updated_at)
             VALUES ($1, $2, 0, '', '', '', 0, '[]', '[]', $3, $3)",
            &[new.panel.into(), (&new.key).into(), new.created_at.into()],
        )?;
        self.save_managed(&Managed { id, ..new.clone() }).map(|()| id)
    }

    /// Writes a service back. A remote id or domain that is another live service's is a fault.
    pub(crate) fn save_managed(&mut self, service: &Managed) -> Result<(), Fault> {
        let addresses = serde_json::json!(service.addresses).to_string();
        let properties = serde_json::json!(service.properties).to_string();
        let (drift, since) = service.drift.as_ref().map(|(kind, since)| (kind, *since)).unzip();
        self.sql.execute(
            "UPDATE managed_services SET generation = $1, profile = $2, state = $3, wanted = $4, is_live = $5, remote_id = $6,
               domain = $7, username = $8, plan = $9, addresses = $10, properties = $11, due_at = $12, drift = $13, drift_since = $14,
               check_at = $15, checked_at = $16, updated_at = $17 WHERE id = $18",
            &[
                service.generation.into(),
                (&service.profile).into(),
                (&service.state).into(),
                (&service.wanted).into(),
                i64::from(service.is_live).into(),
                service.remote_id.as_deref().into(),
                service.domain.as_deref().into(),
                service.username.as_deref().into(),
                service.plan.as_deref().into(),
                (&addresses).into(),
                (&properties).into(),
                service.due_at.as_deref().into(),
                drift.into(),
                since.into(),
                service.check_at.into(),
                service.checked_at.into(),
                service.updated_at.into(),
                service.id.into(),
            ],
        )?;
        Ok(())
    }

    /// Takes services of whom the provider is to be asked; they are due again at `again`, should this host not come back to them.
    pub(crate) fn claim_checks(&mut self, now: Timestamp, again: Timestamp, limit: u32) -> Result<Vec<Managed>, Fault> {
        self.claim_journal();
        let query = format!(
            "UPDATE managed_services SET check_at = $1 WHERE id IN
               (SELECT id FROM managed_services WHERE check_at IS NOT NULL AND check_at <= $2 ORDER BY check_at, id LIMIT $3)
             RETURNING {COLUMNS}"
        );
        self.sql.query(&query, &[again.into(), now.into(), limit.into()])?.iter().map(read).collect()
    }

    /// Has the provider asked about every live service of a profile, or of all, at once; how many.
    pub fn check_all(&mut self, profile: Option<&str>, now: Timestamp) -> Result<usize, Fault> {
        let update = "UPDATE managed_services SET check_at = $1 WHERE is_live = 1";
        match profile {
            None => self.sql.execute(update, &[now.into()]),
            Some(profile) => self.sql.execute(&format!("{update} AND profile = $2"), &[now.into(), profile.into()]),
        }
    }
}

fn read(row: &Row) -> Result<Managed, Fault> {
    let json = |error: serde_json::Error| Fault(format!("a service of the journal: {error}"));
    let drift = row.opt_text(15)?.map(|kind| Ok::<_, Fault>((kind, row.time(16)?))).transpose()?;
    Ok(Managed {
        id: row.int(0)?,
        panel: row.int(1)?,
        key: row.text(2)?,
        generation: row.number(3)?,
        profile: row.text(4)?,
        state: row.text(5)?,
        wanted: row.text(6)?,
        is_live: row.int(7)? == 1,
        remote_id: row.opt_text(8)?,
        domain: row.opt_text(9)?,
        username: row.opt_text(10)?,
        plan: row.opt_text(11)?,
        addresses: serde_json::from_str(&row.text(12)?).map_err(json)?,
        properties: serde_json::from_str(&row.text(13)?).map_err(json)?,
        due_at: row.opt_text(14)?,
        drift,
        check_at: row.opt_time(17)?,
        checked_at: row.opt_time(18)?,
        created_at: row.time(19)?,
        updated_at: row.time(20)?,
    })
}
