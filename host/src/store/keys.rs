//! Keys, and what is remembered of their use: nonces, meters, failures, locks, hashes.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use provisor_providers::books::{AccountId, Failure, Fault, HashUse, KeyRow, Lock, Standing};
use provisor_providers::limits::Meter;
use provisor_providers::server::{Key, KeyLimits};
use secrecy::SecretString;

use super::Transaction;
use super::sql::{Row, Sql, Value};
use crate::vault::{Place, Vault};

/// The count of locks spares the question for them, which hardly a key has.
pub(super) fn standing(sql: &mut dyn Sql, key: KeyRow, now: Timestamp) -> Result<Option<Standing>, Fault> {
    let row = sql.first(
        "SELECT k.version, m.level, m.at, m.day, m.day_count, (SELECT COUNT(*) FROM locks l WHERE l.key_id = k.id)
         FROM api_keys k LEFT JOIN meters m ON m.key_id = k.id WHERE k.id = $1",
        &[key.0.into()],
    )?;
    let Some(row) = row else { return Ok(None) };
    let meter = |level| Ok(Meter { level, at: row.time(2)?, day: row.int(3)?, day_count: row.int(4)? });
    let locks = if row.int(5)? == 0 { Vec::new() } else { locks(sql, key, now)? };
    Ok(Some(Standing { version: row.int(0)?, meter: row.opt_int(1)?.map(meter).transpose()?, locks }))
}

pub(super) fn version(sql: &mut dyn Sql, key: KeyRow) -> Result<Option<i64>, Fault> {
    sql.first("SELECT version FROM api_keys WHERE id = $1", &[key.0.into()])?.map(|row| row.int(0)).transpose()
}

pub(super) fn last_used(sql: &mut dyn Sql, key: KeyRow) -> Result<Option<Timestamp>, Fault> {
    let row = sql.first("SELECT last_used_at FROM meters WHERE key_id = $1", &[key.0.into()])?;
    row.map_or(Ok(None), |row| row.opt_time(0))
}

pub(super) fn touch(sql: &mut dyn Sql, key: KeyRow, now: Timestamp) -> Result<(), Fault> {
    sql.execute("UPDATE meters SET last_used_at = $1 WHERE key_id = $2", &[now.into(), key.0.into()])?;
    Ok(())
}

pub(super) fn spend_nonce(sql: &mut dyn Sql, key: KeyRow, nonce: &str, now: Timestamp, until: Timestamp) -> Result<bool, Fault> {
    let spent = sql.execute(
        "INSERT INTO nonces (key_id, nonce, expires_at) VALUES ($1, $2, $3)
         ON CONFLICT (key_id, nonce) DO UPDATE SET expires_at = excluded.expires_at WHERE nonces.expires_at <= $4",
        &[key.0.into(), nonce.into(), until.into(), now.into()],
    )?;
    Ok(spent == 1)
}

pub(super) fn meter(sql: &mut dyn Sql, key: KeyRow) -> Result<Option<Meter>, Fault> {
    let row = sql.first("SELECT level, at, day, day_count FROM meters WHERE key_id = $1", &[key.0.into()])?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Meter { level: row.int(0)?, at: row.time(1)?, day: row.int(2)?, day_count: row.int(3)? }))
}

pub(super) fn set_meter(sql: &mut dyn Sql, key: KeyRow, meter: &Meter, used_at: Option<Timestamp>) -> Result<(), Fault> {
    sql.execute(
        "INSERT INTO meters (key_id, level, at, day, day_count, last_used_at) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (key_id) DO UPDATE SET
           level = excluded.level, at = excluded.at, day = excluded.day, day_count = excluded.day_count,
           last_used_at = COALESCE(excluded.last_used_at, meters.last_used_at)",
        &[key.0.into(), meter.level.into(), meter.at.into(), meter.day.into(), meter.day_count.into(), used_at.into()],
    )?;
    Ok(())
}

pub(super) fn locks(sql: &mut dyn Sql, key: KeyRow, now: Timestamp) -> Result<Vec<Lock>, Fault> {
    let rows = sql.query("SELECT network, until FROM locks WHERE key_id = $1 AND until > $2", &[key.0.into(), now.into()])?;
    rows.iter().map(|row| Ok(Lock { network: Some(row.text(0)?).filter(|name| !name.is_empty()), until: row.time(1)? })).collect()
}

pub(super) fn add_lock(sql: &mut dyn Sql, key: KeyRow, lock: &Lock) -> Result<(), Fault> {
    sql.execute(
        "INSERT INTO locks (key_id, network, until) VALUES ($1, $2, $3)
         ON CONFLICT (key_id, network) DO UPDATE SET until = excluded.until",
        &[key.0.into(), lock.network.as_deref().unwrap_or_default().into(), lock.until.into()],
    )?;
    Ok(())
}

pub(super) fn failures(sql: &mut dyn Sql, key: KeyRow, since: Timestamp) -> Result<Vec<Failure>, Fault> {
    let rows = sql.query(
        "SELECT network, at FROM failures WHERE key_id = $1 AND at >= $2 ORDER BY at LIMIT 1000",
        &[key.0.into(), since.into()],
    )?;
    rows.iter().map(|row| Ok(Failure { network: row.text(0)?, at: row.time(1)? })).collect()
}

pub(super) fn add_failure(sql: &mut dyn Sql, key: KeyRow, failure: &Failure) -> Result<(), Fault> {
    sql.execute(
        "INSERT INTO failures (key_id, network, at) VALUES ($1, $2, $3)",
        &[key.0.into(), (&failure.network).into(), failure.at.into()],
    )?;
    Ok(())
}

pub(super) fn hash_use(sql: &mut dyn Sql, key: KeyRow, hash: &str) -> Result<Option<HashUse>, Fault> {
    let row = sql.first(
        "SELECT endpoint, parameters_sha256, peer, at, answer FROM used_hashes WHERE key_id = $1 AND hash = $2",
        &[key.0.into(), hash.into()],
    )?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(HashUse {
        endpoint: row.text(0)?,
        parameters_sha256: row.array(1)?,
        peer: row.spelled(2, |text| text.parse().ok())?,
        at: row.time(3)?,
        answer: row.text(4)?,
    }))
}

pub(super) fn record_hash(sql: &mut dyn Sql, key: KeyRow, hash: &str, used: &HashUse) -> Result<(), Fault> {
    sql.execute(
        "INSERT INTO used_hashes (key_id, hash, endpoint, parameters_sha256, peer, at, answer)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &[
            key.0.into(),
            hash.into(),
            (&used.endpoint).into(),
            used.parameters_sha256.as_slice().into(),
            (&used.peer.to_string()).into(),
            used.at.into(),
            (&used.answer).into(),
        ],
    )?;
    Ok(())
}

pub(super) fn envelope_iv(sql: &mut dyn Sql, key: KeyRow, ciphertext_sha256: &[u8; 32]) -> Result<Option<[u8; 16]>, Fault> {
    let row = sql.first(
        "SELECT iv FROM envelopes WHERE key_id = $1 AND ciphertext_sha256 = $2",
        &[key.0.into(), ciphertext_sha256.as_slice().into()],
    )?;
    row.map(|row| row.array(0)).transpose()
}

pub(super) fn record_envelope(
    sql: &mut dyn Sql,
    key: KeyRow,
    ciphertext_sha256: &[u8; 32],
    iv: &[u8; 16],
    now: Timestamp,
) -> Result<(), Fault> {
    sql.execute(
        "INSERT INTO envelopes (key_id, ciphertext_sha256, iv, at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (key_id, ciphertext_sha256) DO NOTHING",
        &[key.0.into(), ciphertext_sha256.as_slice().into(), iv.as_slice().into(), now.into()],
    )?;
    Ok(())
}

/// A key to be made. Its secret is sealed at once.
#[derive(Debug)]
pub struct NewKey {
    /// Whose.
    pub account: AccountId,
    /// Which API it is for.
    pub provider: String,
    /// Unique per provider.
    pub public_id: String,
    /// The owner's name for it.
    pub label: String,
    /// Shown once, by whoever made it.
    pub secret: SecretString,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Where it may be used from; empty for everywhere.
    pub allowed: Vec<ipnet::IpNet>,
    /// Addresses under which it is found, for APIs that name no key.
    pub addresses: Vec<IpAddr>,
    /// How often it may be used.
    pub limits: KeyLimits,
    /// Until when, if ever.
    pub expires_at: Option<Timestamp>,
}

/// A key as it is listed: everything but its secret.
#[derive(Debug, Clone)]
pub struct KeySummary {
    /// Whose.
    pub account: AccountId,
    /// Which API it is for.
    pub provider: String,
    /// Unique per provider.
    pub public_id: String,
    /// The owner's name for it.
    pub label: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Where it may be used from, or is found at.
    pub allowed: Vec<String>,
    /// Since when.
    pub created_at: Timestamp,
    /// When it was last used with success.
    pub last_used_at: Option<Timestamp>,
    /// Whether it is revoked.
    pub revoked: bool,
}

const KEY_COLUMNS: &str = "id, account_id, public_id, label, sealed_secret, scopes, allowed, per_minute, burst, per_day, version, \
                           created_at, expires_at, revoked_at";

impl Transaction<'_> {
    /// Makes a key.
    pub fn create_key(&mut self, key: &NewKey, now: Timestamp) -> Result<KeyRow, Fault> {
        let (scopes, allowed) = (key.scopes.join(" "), join(&key.allowed));
        let sealed = seal(self.vault, &key.provider, &key.public_id, &key.secret)?;
        let id = self.sql.insert(
            "INSERT INTO api_keys (account_id, provider, public_id, label, sealed_secret, scopes, allowed,
                                   per_minute, burst, per_day, version, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 1, $11, $12) RETURNING id",
            &[
                key.account.0.into(),
                (&key.provider).into(),
                (&key.public_id).into(),
                (&key.label).into(),
                sealed.as_slice().into(),
                (&scopes).into(),
                (&allowed).into(),
                key.limits.per_minute.into(),
                key.limits.burst.into(),
                key.limits.per_day.into(),
                now.into(),
                key.expires_at.into(),
            ],
        )?;
        for address in &key.addresses {
            self.sql.execute(
                "INSERT INTO key_addresses (provider, address, key_id) VALUES ($1, $2, $3)",
                &[(&key.provider).into(), (&address.to_canonical().to_string()).into(), id.into()],
            )?;
        }
        Ok(KeyRow(id))
    }

    /// Replaces a key's secret: the old one counts no more from this commit on. False if there is no such key in use.
    pub fn rotate_key(&mut self, provider: &str, public_id: &str, secret: &SecretString) -> Result<bool, Fault> {
        let sealed = seal(self.vault, provider, public_id, secret)?;
        let row = self.sql.first(
            "UPDATE api_keys SET sealed_secret = $1, version = version + 1
             WHERE provider = $2 AND public_id = $3 AND revoked_at IS NULL RETURNING id",
            &[sealed.as_slice().into(), provider.into(), public_id.into()],
        )?;
        let Some(row) = row else { return Ok(false) };
        // Hashes and envelopes made with the old secret can no longer be accepted, so they need not be remembered.
        for table in ["DELETE FROM used_hashes WHERE key_id = $1", "DELETE FROM envelopes WHERE key_id = $1"] {
            self.sql.execute(table, &[row.int(0)?.into()])?;
        }
        Ok(true)
    }

    /// Revokes a key for good. False if there is no such key in use.
    pub fn revoke_key(&mut self, provider: &str, public_id: &str, now: Timestamp) -> Result<bool, Fault> {
        let revoked = self.sql.execute(
            "UPDATE api_keys SET revoked_at = $1, version = version + 1
             WHERE provider = $2 AND public_id = $3 AND revoked_at IS NULL",
            &[now.into(), provider.into(), public_id.into()],
        )?;
        Ok(revoked == 1)
    }

    /// All keys, or one reseller's, oldest first.
    pub fn keys(&mut self, account: Option<AccountId>) -> Result<Vec<KeySummary>, Fault> {
        let rows = self.sql.query(
            "SELECT k.account_id, k.provider, k.public_id, k.label, k.scopes, k.allowed, k.created_at, m.last_used_at, k.revoked_at,
                    (SELECT MIN(address) FROM key_addresses a WHERE a.key_id = k.id)
             FROM api_keys k LEFT JOIN meters m ON m.key_id = k.id WHERE $1 IS NULL OR k.account_id = $1 ORDER BY k.id",
            &[account.map(|account| account.0).into()],
        )?;
        rows.iter()
            .map(|row| {
                Ok(KeySummary {
                    account: AccountId(row.int(0)?),
                    provider: row.text(1)?,
                    public_id: row.text(2)?,
                    label: row.text(3)?,
                    scopes: split(&row.text(4)?),
                    allowed: split(&row.text(5)?).into_iter().chain(row.opt_text(9)?).collect(),
                    created_at: row.time(6)?,
                    last_used_at: row.opt_time(7)?,
                    revoked: row.opt_int(8)?.is_some(),
                })
            })
            .collect()
    }

    /// A key by its public id, opened.
    pub fn find_key(&mut self, provider: &str, public_id: &str) -> Result<Option<Arc<Key>>, Fault> {
        let sql = format!("SELECT {KEY_COLUMNS} FROM api_keys WHERE provider = $1 AND public_id = $2");
        let rows = self.open_keys(&sql, provider, &[provider.into(), public_id.into()])?;
        Ok(rows.into_iter().next())
    }

    /// The keys bound to an address, opened; at most 16.
    pub fn keys_at(&mut self, provider: &str, address: IpAddr) -> Result<Vec<Arc<Key>>, Fault> {
        let sql = format!(
            "SELECT {KEY_COLUMNS} FROM api_keys WHERE revoked_at IS NULL AND id IN
               (SELECT key_id FROM key_addresses WHERE provider = $1 AND address = $2) ORDER BY id LIMIT 16"
        );
        self.open_keys(&sql, provider, &[provider.into(), (&address.to_canonical().to_string()).into()])
    }

    fn open_keys(&mut self, sql: &str, provider: &str, values: &[Value<'_>]) -> Result<Vec<Arc<Key>>, Fault> {
        let vault = self.vault;
        self.sql.query(sql, values)?.iter().map(|row| open_key(vault, provider, row).map(Arc::new)).collect()
    }
}

fn open_key(vault: &Vault, provider: &str, row: &Row) -> Result<Key, Fault> {
    let public_id = row.text(2)?;
    let name = format!("{provider}/{public_id}");
    let secret = vault.open_value(place(&name), &row.bytes(4)?).map_err(|error| Fault(error.to_string()))?;
    Ok(Key {
        row: KeyRow(row.int(0)?),
        version: row.int(10)?,
        account: AccountId(row.int(1)?),
        public_id,
        label: row.text(3)?,
        secret,
        scopes: split(&row.text(5)?),
        allowed: row.spelled(6, |text| text.split_whitespace().map(|net| net.parse().ok()).collect())?,
        limits: KeyLimits { per_minute: row.number(7)?, burst: row.number(8)?, per_day: row.number(9)? },
        created_at: row.time(11)?,
        expires_at: row.opt_time(12)?,
        revoked: row.opt_int(13)?.is_some(),
    })
}

fn seal(vault: &Vault, provider: &str, public_id: &str, secret: &SecretString) -> Result<Vec<u8>, Fault> {
    vault.seal(place(&format!("{provider}/{public_id}")), secret).map_err(|error| Fault(error.to_string()))
}

/// The public id names the row: it is known before the row is written, and never changes.
fn place(row: &str) -> Place<'_> {
    Place { table: "api_keys", row, column: "sealed_secret" }
}

fn join(nets: &[ipnet::IpNet]) -> String {
    nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn split(words: &str) -> Vec<String> {
    words.split_whitespace().map(str::to_owned).collect()
}
