//! Keys, and what is remembered of their use: nonces, meters, failures, locks, hashes.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use provisor_providers::books::{AccountId, Failure, Fault, HashUse, KeyRow, Lock, Standing};
use provisor_providers::limits::Meter;
use provisor_providers::server::{Key, KeyLimits};
use secrecy::SecretString;

use super::Transaction;
use super::sql::{Dialect, Row, Sql, Value, unlogged};
use crate::vault::{Place, Vault};

/// What every request asks of a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Use {
    version: i64,
    /// Whether there are locks, in force or not: hardly a key has any.
    has_locks: bool,
    /// None if it was never used.
    metered: Option<Metered>,
}

#[derive(Debug, Clone, Copy)]
struct Metered {
    meter: Meter,
    last_used_at: Option<Timestamp>,
}

fn look(sql: &mut dyn Sql, key: KeyRow) -> Result<Option<Use>, Fault> {
    if let Some(known) = sql.hot().and_then(|hot| hot.key(key)) {
        return Ok(Some(known));
    }
    let row = sql.first(
        "SELECT k.version, (SELECT COUNT(*) FROM locks l WHERE l.key_id = k.id), m.level, m.at, m.day, m.day_count, m.last_used_at
         FROM api_keys k LEFT JOIN meters m ON m.key_id = k.id WHERE k.id = $1",
        &[key.0.into()],
    )?;
    let Some(row) = row else { return Ok(None) };
    let metered = |level| {
        let meter = Meter { level, at: row.time(3)?, day: row.int(4)?, day_count: row.int(5)? };
        Ok(Metered { meter, last_used_at: row.opt_time(6)? })
    };
    let metered = row.opt_int(2)?.map(metered).transpose()?;
    let found = Use { version: row.int(0)?, has_locks: row.int(1)? != 0, metered };
    if let Some(hot) = sql.hot() {
        hot.read_key(key, found);
    }
    Ok(Some(found))
}

pub(super) fn standing(sql: &mut dyn Sql, key: KeyRow, now: Timestamp) -> Result<Option<Standing>, Fault> {
    let Some(found) = look(sql, key)? else { return Ok(None) };
    let locks = if found.has_locks { locks(sql, key, now)? } else { Vec::new() };
    Ok(Some(Standing { version: found.version, meter: found.metered.map(|metered| metered.meter), locks }))
}

pub(super) fn version(sql: &mut dyn Sql, key: KeyRow) -> Result<Option<i64>, Fault> {
    Ok(look(sql, key)?.map(|found| found.version))
}

pub(super) fn last_used(sql: &mut dyn Sql, key: KeyRow) -> Result<Option<Timestamp>, Fault> {
    Ok(look(sql, key)?.and_then(|found| found.metered).and_then(|metered| metered.last_used_at))
}

pub(super) fn meter(sql: &mut dyn Sql, key: KeyRow) -> Result<Option<Meter>, Fault> {
    Ok(look(sql, key)?.and_then(|found| found.metered).map(|metered| metered.meter))
}

pub(super) fn touch(sql: &mut dyn Sql, key: KeyRow, now: Timestamp) -> Result<(), Fault> {
    match meter(sql, key)? {
        Some(meter) => set_meter(sql, key, &meter, Some(now)),
        None => Ok(()),
    }
}

pub(super) fn set_meter(sql: &mut dyn Sql, key: KeyRow, meter: &Meter, used_at: Option<Timestamp>) -> Result<(), Fault> {
    let change = |found: &mut Use| {
        let before = found.metered.and_then(|metered| metered.last_used_at);
        found.metered = Some(Metered { meter: *meter, last_used_at: used_at.or(before) });
    };
    if sql.hot().is_some_and(|hot| hot.change_key(key, change)) {
        return Ok(());
    }
    write_meter(sql, key, &Metered { meter: *meter, last_used_at: used_at })
}

/// What is remembered of a key's use, into the book.
pub(super) fn write_use(sql: &mut dyn Sql, key: KeyRow, used: &Use) -> Result<(), Fault> {
    used.metered.map_or(Ok(()), |metered| write_meter(sql, key, &metered))
}

fn write_meter(sql: &mut dyn Sql, key: KeyRow, metered: &Metered) -> Result<(), Fault> {
    let Metered { meter, last_used_at } = metered;
    sql.execute(
        "INSERT INTO meters (key_id, level, at, day, day_count, last_used_at) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (key_id) DO UPDATE SET
           level = excluded.level, at = excluded.at, day = excluded.day, day_count = excluded.day_count,
           last_used_at = COALESCE(excluded.last_used_at, meters.last_used_at)",
        &[key.0.into(), meter.level.into(), meter.at.into(), meter.day.into(), meter.day_count.into(), (*last_used_at).into()],
    )?;
    Ok(())
}

/// With one writer its memory decides, and the book has the log of it; between several a unique index does.
pub(super) fn spend_nonce(sql: &mut dyn Sql, key: KeyRow, nonce: &str, now: Timestamp, until: Timestamp) -> Result<bool, Fault> {
    if sql.dialect() == Dialect::Postgres {
        let spent = sql.execute(
            "INSERT INTO nonces (key_id, nonce, expires_at) VALUES ($1, $2, $3)
             ON CONFLICT (key_id, nonce) DO UPDATE SET expires_at = excluded.expires_at WHERE nonces.expires_at <= $4",
            &[key.0.into(), nonce.into(), until.into(), now.into()],
        )?;
        return Ok(spent == 1);
    }
    let Some(id) = sql.logs().ok_or_else(unlogged)?.spend(key, nonce, now, until) else { return Ok(false) };
    sql.execute(
        "INSERT INTO nonces (id, key_id, nonce, expires_at) VALUES ($1, $2, $3, $4)",
        &[id.into(), key.0.into(), nonce.into(), until.into()],
    )?;
    Ok(true)
}

pub(super) fn locks(sql: &mut dyn Sql, key: KeyRow, now: Timestamp) -> Result<Vec<Lock>, Fault> {
    let rows = sql.query("SELECT network, until FROM locks WHERE key_id = $1 AND until > $2", &[key.0.into(), now.into()])?;
    rows.iter().map(|row| Ok(Lock { network: Some(row.text(0)?).filter(|name| !name.is_empty()), until: row.time(1)? })).collect()
}

pub(super) fn add_lock(sql: &mut dyn Sql, key: KeyRow, lock: &Lock) -> Result<(), Fault> {
    sql.forget()?;
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
    /// How often it may be used.
    pub limits: KeyLimits,
    /// Until when, if ever.
    pub expires_at: Option<Timestamp>,
    /// When it was last used with success.
    pub last_used_at: Option<Timestamp>,
    /// Whether it is revoked.
    pub revoked: bool,
    /// Who is locked out, and until when. Locks whose time is over may still be among them.
    pub locks: Vec<Lock>,
}

/// What is to be changed about a key; `None` leaves it as it is.
#[derive(Debug, Clone, Default)]
pub struct KeyChange {
    /// The owner's name for it.
    pub label: Option<String>,
    /// What it may do.
    pub scopes: Option<Vec<String>>,
    /// Where it may be used from; empty for everywhere.
    pub allowed: Option<Vec<ipnet::IpNet>>,
    /// Addresses under which it is found, for APIs that name no key.
    pub addresses: Option<Vec<IpAddr>>,
    /// Tokens that come back per minute.
    pub per_minute: Option<u32>,
    /// How many may be spent at once.
    pub burst: Option<u32>,
    /// Requests per UTC day.
    pub per_day: Option<u32>,
    /// Until when; `Some(None)` for ever.
    pub expires_at: Option<Option<Timestamp>>,
}

const SUMMARY: &str = "SELECT k.account_id, k.provider, k.public_id, k.label, k.scopes, k.allowed, k.created_at, m.last_used_at, \
                       k.revoked_at, (SELECT MIN(address) FROM key_addresses a WHERE a.key_id = k.id), k.per_minute, k.burst, \
                       k.per_day, k.expires_at, k.id FROM api_keys k LEFT JOIN meters m ON m.key_id = k.id";

const KEY_COLUMNS: &str = "id, account_id, public_id, label, sealed_secret, scopes, allowed, per_minute, burst, per_day, version, \
                           created_at, expires_at, revoked_at";

impl Transaction<'_> {
    /// Makes a key.
    pub fn create_key(&mut self, key: &NewKey, now: Timestamp) -> Result<KeyRow, Fault> {
        let (scopes, allowed) = (key.scopes.join(" "), join(&key.allowed));
        let sealed = seal(self.vault, &key.provider, &key.public_id, &key.secret)?;
        let id = self.sql.insert_one(
            "INSERT INTO api_keys (account_id, provider, public_id, label, sealed_secret, scopes, allowed,
                                   per_minute, burst, per_day, version, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 1, $11, $12)",
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
        self.bind(&key.provider, id, &key.addresses)?;
        Ok(KeyRow(id))
    }

    fn bind(&mut self, provider: &str, key: i64, addresses: &[IpAddr]) -> Result<(), Fault> {
        for address in addresses {
            self.sql.execute(
                "INSERT INTO key_addresses (provider, address, key_id) VALUES ($1, $2, $3)",
                &[provider.into(), (&address.to_canonical().to_string()).into(), key.into()],
            )?;
        }
        Ok(())
    }

    /// Changes what a key may do. It counts from this commit on, in every process: the key's version is another. False if there is no
    /// such key in use.
    pub fn change_key(&mut self, provider: &str, public_id: &str, change: &KeyChange) -> Result<bool, Fault> {
        self.sql.forget()?;
        let query = "SELECT id, label, scopes, allowed, per_minute, burst, per_day, expires_at FROM api_keys
                     WHERE provider = $1 AND public_id = $2 AND revoked_at IS NULL";
        let Some(row) = self.sql.first(query, &[provider.into(), public_id.into()])? else { return Ok(false) };
        let id = row.int(0)?;
        let label = change.label.clone().map_or_else(|| row.text(1), Ok)?;
        let scopes = change.scopes.as_ref().map_or_else(|| row.text(2), |scopes| Ok(scopes.join(" ")))?;
        let allowed = change.allowed.as_ref().map_or_else(|| row.text(3), |nets| Ok(join(nets)))?;
        let number = |new: Option<u32>, column| new.map_or_else(|| row.int(column), |new| Ok(new.into()));
        let expires_at = change.expires_at.map_or_else(|| row.opt_time(7), Ok)?;
        self.sql.execute(
            "UPDATE api_keys SET label = $1, scopes = $2, allowed = $3, per_minute = $4, burst = $5, per_day = $6, expires_at = $7,
                                 version = version + 1
             WHERE id = $8",
            &[
                (&label).into(),
                (&scopes).into(),
                (&allowed).into(),
                number(change.per_minute, 4)?.into(),
                number(change.burst, 5)?.into(),
                number(change.per_day, 6)?.into(),
                expires_at.into(),
                id.into(),
            ],
        )?;
        if let Some(addresses) = &change.addresses {
            self.sql.execute("DELETE FROM key_addresses WHERE key_id = $1", &[id.into()])?;
            self.bind(provider, id, addresses)?;
        }
        Ok(true)
    }

    /// Ends every lock of a key, and forgets the failures that would bring the next. How many locks there were.
    pub fn unlock_key(&mut self, provider: &str, public_id: &str, now: Timestamp) -> Result<usize, Fault> {
        self.sql.forget()?;
        let query = "SELECT id FROM api_keys WHERE provider = $1 AND public_id = $2";
        let Some(row) = self.sql.first(query, &[provider.into(), public_id.into()])? else { return Ok(0) };
        let key = KeyRow(row.int(0)?);
        let locks = locks(self.sql, key, now)?.len();
        self.sql.execute("DELETE FROM locks WHERE key_id = $1", &[key.0.into()])?;
        self.sql.execute("DELETE FROM failures WHERE key_id = $1", &[key.0.into()])?;
        Ok(locks)
    }

    /// Replaces a key's secret: the old one counts no more from this commit on. False if there is no such key in use.
    pub fn rotate_key(&mut self, provider: &str, public_id: &str, secret: &SecretString) -> Result<bool, Fault> {
        self.sql.forget()?;
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
        self.sql.forget()?;
        let revoked = self.sql.execute(
            "UPDATE api_keys SET revoked_at = $1, version = version + 1
             WHERE provider = $2 AND public_id = $3 AND revoked_at IS NULL",
            &[now.into(), provider.into(), public_id.into()],
        )?;
        Ok(revoked == 1)
    }

    /// All keys, or one reseller's, oldest first.
    pub fn keys(&mut self, account: Option<AccountId>) -> Result<Vec<KeySummary>, Fault> {
        self.sql.forget()?;
        let rows = match account {
            None => self.sql.query(&format!("{SUMMARY} ORDER BY k.id"), &[])?,
            Some(AccountId(id)) => self.sql.query(&format!("{SUMMARY} WHERE k.account_id = $1 ORDER BY k.id"), &[id.into()])?,
        };
        rows.iter().map(|row| self.summary(row)).collect()
    }

    /// A key as it is listed, by its public id: those of different APIs look different.
    pub fn key(&mut self, public_id: &str) -> Result<Option<KeySummary>, Fault> {
        self.sql.forget()?;
        let row = self.sql.first(&format!("{SUMMARY} WHERE k.public_id = $1 ORDER BY k.id"), &[public_id.into()])?;
        row.map(|row| self.summary(&row)).transpose()
    }

    fn summary(&mut self, row: &Row) -> Result<KeySummary, Fault> {
        Ok(KeySummary {
            account: AccountId(row.int(0)?),
            provider: row.text(1)?,
            public_id: row.text(2)?,
            label: row.text(3)?,
            scopes: split(&row.text(4)?),
            allowed: split(&row.text(5)?).into_iter().chain(row.opt_text(9)?).collect(),
            created_at: row.time(6)?,
            limits: KeyLimits { per_minute: row.number(10)?, burst: row.number(11)?, per_day: row.number(12)? },
            expires_at: row.opt_time(13)?,
            last_used_at: row.opt_time(7)?,
            revoked: row.opt_int(8)?.is_some(),
            locks: locks(self.sql, KeyRow(row.int(14)?), Timestamp::UNIX_EPOCH)?,
        })
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
