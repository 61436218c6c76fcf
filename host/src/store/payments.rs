//! Payments by card, and the cards on file.

use jiff::Timestamp;
use provisor_providers::books::{AccountId, Fault, NewPayment, Payment, PaymentEnd, PaymentStatus};
use provisor_providers::money::Minor;
use secrecy::SecretString;

use super::Transaction;
use super::sql::{Row, Sql};
use crate::vault::{Place, Vault};

const COLUMNS: &str =
    "id, invoice_id, attempt, gateway_key, amount, held, currency, status, fence, lease_until, reason, created_at";

pub(super) fn add(sql: &mut dyn Sql, vault: &Vault, account: i64, payment: &NewPayment<'_>) -> Result<Payment, Fault> {
    let id = sql.insert_one(
        "INSERT INTO payments (account_id, invoice_id, attempt, gateway_key, amount, held, currency, status, fence, lease_until,
                               created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'charging', 1, $8, $9)",
        &[
            account.into(),
            payment.invoice_id.into(),
            payment.attempt.into(),
            payment.gateway_key.into(),
            payment.amount.0.into(),
            payment.held.0.into(),
            payment.currency.into(),
            payment.lease_until.into(),
            payment.at.into(),
        ],
    )?;
    if let Some(token) = card(sql, vault, account)? {
        let sealed = vault.seal(place("payments", &id.to_string()), &token).map_err(|error| Fault(error.to_string()))?;
        sql.execute("UPDATE payments SET sealed_card = $1 WHERE id = $2", &[sealed.as_slice().into(), id.into()])?;
    }
    find(sql, account, id)?.ok_or_else(|| Fault(format!("payment {id} is gone")))
}

pub(super) fn find(sql: &mut dyn Sql, account: i64, id: i64) -> Result<Option<Payment>, Fault> {
    let query = format!("SELECT {COLUMNS} FROM payments WHERE account_id = $1 AND id = $2");
    sql.first(&query, &[account.into(), id.into()])?.as_ref().map(read).transpose()
}

pub(super) fn last(sql: &mut dyn Sql, account: i64, invoice: i64) -> Result<Option<Payment>, Fault> {
    let query = format!("SELECT {COLUMNS} FROM payments WHERE account_id = $1 AND invoice_id = $2 ORDER BY attempt DESC LIMIT 1");
    sql.first(&query, &[account.into(), invoice.into()])?.as_ref().map(read).transpose()
}

pub(super) fn claim(sql: &mut dyn Sql, account: i64, id: i64, fence: i64, lease_until: Timestamp) -> Result<bool, Fault> {
    let claimed = sql.execute(
        "UPDATE payments SET fence = fence + 1, lease_until = $1
         WHERE account_id = $2 AND id = $3 AND fence = $4 AND status = 'charging'",
        &[lease_until.into(), account.into(), id.into(), fence.into()],
    )?;
    Ok(claimed == 1)
}

pub(super) fn finish(sql: &mut dyn Sql, account: i64, id: i64, fence: i64, end: &PaymentEnd<'_>) -> Result<bool, Fault> {
    let finished = sql.execute(
        "UPDATE payments SET status = $1, reason = $2, finished_at = $3, lease_until = NULL, sealed_card = NULL
         WHERE account_id = $4 AND id = $5 AND fence = $6 AND status = 'charging'",
        &[end.status.as_str().into(), end.reason.into(), end.at.into(), account.into(), id.into(), fence.into()],
    )?;
    Ok(finished == 1)
}

pub(super) fn abandoned(sql: &mut dyn Sql, now: Timestamp, limit: u32) -> Result<Vec<(AccountId, i64)>, Fault> {
    let rows = sql.query(
        "SELECT account_id, id FROM payments WHERE lease_until IS NOT NULL AND lease_until <= $1
         ORDER BY lease_until, id LIMIT $2",
        &[now.into(), limit.into()],
    )?;
    rows.iter().map(|row| Ok((AccountId(row.int(0)?), row.int(1)?))).collect()
}

fn read(row: &Row) -> Result<Payment, Fault> {
    Ok(Payment {
        id: row.int(0)?,
        invoice_id: row.int(1)?,
        attempt: row.number(2)?,
        gateway_key: row.text(3)?,
        amount: Minor(row.int(4)?),
        held: Minor(row.int(5)?),
        currency: row.text(6)?,
        status: row.spelled(7, PaymentStatus::parse)?,
        fence: row.int(8)?,
        lease_until: row.opt_time(9)?,
        reason: row.opt_text(10)?,
        at: row.time(11)?,
    })
}

fn place<'a>(table: &'a str, row: &'a str) -> Place<'a> {
    Place { table, row, column: "sealed_card" }
}

/// The gateway's token for the card on file.
fn card(sql: &mut dyn Sql, vault: &Vault, account: i64) -> Result<Option<SecretString>, Fault> {
    let query = "SELECT sealed_card FROM accounts WHERE id = $1 AND sealed_card IS NOT NULL";
    let Some(row) = sql.first(query, &[account.into()])? else { return Ok(None) };
    let token = vault.open_value(place("accounts", &account.to_string()), &row.bytes(0)?);
    token.map(Some).map_err(|error| Fault(error.to_string()))
}

impl Transaction<'_> {
    /// Puts a reseller's card on file, as the gateway's token for it and what people know it by; `None` takes it off. False if
    /// there is no such reseller.
    pub fn set_card(&mut self, account: AccountId, card: Option<(&SecretString, &str)>) -> Result<bool, Fault> {
        let row = account.0.to_string();
        let sealed = card.map(|(token, _)| self.vault.seal(place("accounts", &row), token)).transpose();
        let sealed = sealed.map_err(|error| Fault(error.to_string()))?;
        let set = self.sql.execute(
            "UPDATE accounts SET sealed_card = $1, card_label = $2 WHERE id = $3",
            &[sealed.as_deref().into(), card.map(|(_, label)| label).into(), account.0.into()],
        )?;
        Ok(set == 1)
    }

    /// The gateway's token for the card that a charge was begun with, whatever is on file now; none once it has ended. A charge that
    /// an earlier build began has kept none: for it what is on file has to do.
    pub fn card_of_charge(&mut self, account: AccountId, payment: i64) -> Result<Option<SecretString>, Fault> {
        let query = "SELECT sealed_card FROM payments WHERE account_id = $1 AND id = $2 AND status = 'charging'";
        let Some(row) = self.sql.first(query, &[account.0.into(), payment.into()])? else { return Ok(None) };
        let Some(sealed) = row.opt_bytes(0)? else { return card(self.sql, self.vault, account.0) };
        let token = self.vault.open_value(place("payments", &payment.to_string()), &sealed);
        token.map(Some).map_err(|error| Fault(error.to_string()))
    }

    /// How the simulated bank answers a charge, and whether it is asked for the first time: then with `outcome`, which is kept for
    /// every repeat.
    pub(crate) fn simulate_charge(
        &mut self,
        gateway_key: &str,
        amount: Minor,
        currency: &str,
        outcome: &str,
        now: Timestamp,
    ) -> Result<(String, bool), Fault> {
        let is_new = self.sql.execute(
            "INSERT INTO simulated_charges (gateway_key, amount, currency, outcome, at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (gateway_key) DO NOTHING",
            &[gateway_key.into(), amount.0.into(), currency.into(), outcome.into(), now.into()],
        )?;
        let known = self.simulated_charge(gateway_key)?.ok_or_else(|| Fault("a simulated charge is gone".to_owned()))?;
        Ok((known, is_new == 1))
    }

    /// What the simulated bank has answered under this key.
    pub(crate) fn simulated_charge(&mut self, gateway_key: &str) -> Result<Option<String>, Fault> {
        let row = self.sql.first("SELECT outcome FROM simulated_charges WHERE gateway_key = $1", &[gateway_key.into()])?;
        row.map(|row| row.text(0)).transpose()
    }
}
