//! Resellers and their credit.

use jiff::Timestamp;
use provisor_providers::books::{Account, AccountId, Entry, Fault};
use provisor_providers::money::Minor;

use super::Transaction;
use super::sql::Sql;

pub(super) fn find(sql: &mut dyn Sql, account: i64) -> Result<Account, Fault> {
    let row = sql.first(
        "SELECT email, name, currency, balance, card_label, closed_at,
                (SELECT MIN(key_id) FROM webhooks WHERE webhooks.account_id = accounts.id AND disabled_at IS NULL)
         FROM accounts WHERE id = $1",
        &[account.into()],
    )?;
    let row = row.ok_or_else(|| Fault(format!("account {account} is gone")))?;
    Ok(Account {
        id: AccountId(account),
        email: row.text(0)?,
        name: row.text(1)?,
        currency: row.text(2)?,
        balance: Minor(row.int(3)?),
        has_card: row.opt_text(4)?.is_some(),
        is_closed: row.opt_int(5)?.is_some(),
        listens: row.opt_int(6)?.is_some(),
    })
}

pub(super) fn charge(sql: &mut dyn Sql, account: i64, amount: Minor, entry: &Entry<'_>) -> Result<bool, Fault> {
    if amount.0 < 0 {
        return Err(Fault(format!("a charge of {amount} would give money away")));
    }
    let is_taken = sql.execute(
        "UPDATE accounts SET balance = balance - $1 WHERE id = $2 AND balance >= $1",
        &[amount.0.into(), account.into()],
    )? == 1;
    if is_taken {
        note(sql, account, Minor(-amount.0), entry)?;
    }
    Ok(is_taken)
}

pub(super) fn deposit(sql: &mut dyn Sql, account: i64, amount: Minor, entry: &Entry<'_>) -> Result<(), Fault> {
    if amount.0 < 0 {
        return Err(Fault(format!("a deposit of {amount} would take money away")));
    }
    sql.execute("UPDATE accounts SET balance = balance + $1 WHERE id = $2", &[amount.0.into(), account.into()])?;
    note(sql, account, amount, entry)
}

/// The ledger's line of a movement.
pub(super) fn note(sql: &mut dyn Sql, account: i64, amount: Minor, entry: &Entry<'_>) -> Result<(), Fault> {
    sql.execute(
        "INSERT INTO ledger (account_id, at, amount, kind, reference) VALUES ($1, $2, $3, $4, $5)",
        &[account.into(), entry.at.into(), amount.0.into(), entry.kind.into(), entry.reference.into()],
    )?;
    Ok(())
}

pub(super) fn notifies_credentials(sql: &mut dyn Sql, account: i64) -> Result<bool, Fault> {
    let row = sql.first("SELECT notify_credentials_at FROM accounts WHERE id = $1", &[account.into()])?;
    row.map_or(Ok(false), |row| Ok(row.opt_int(0)?.is_some()))
}

impl Transaction<'_> {
    /// Whether a reseller gets a mail each time credentials are read. False if there is no such reseller.
    pub fn notify_credentials(&mut self, account: AccountId, since: Option<Timestamp>) -> Result<bool, Fault> {
        let update = "UPDATE accounts SET notify_credentials_at = $1 WHERE id = $2";
        Ok(self.sql.execute(update, &[since.into(), account.0.into()])? == 1)
    }

    /// A new reseller without credit.
    pub fn create_account(&mut self, name: &str, email: &str, currency: &str, now: Timestamp) -> Result<AccountId, Fault> {
        let id = self.sql.insert_one(
            "INSERT INTO accounts (name, email, currency, balance, created_at) VALUES ($1, $2, $3, 0, $4)",
            &[name.into(), email.into(), currency.into(), now.into()],
        )?;
        Ok(AccountId(id))
    }

    /// Adds to a reseller's credit, or takes from it; `None` if there is no such reseller or not that much credit.
    pub fn credit(&mut self, account: AccountId, amount: Minor, entry: &Entry<'_>) -> Result<Option<Minor>, Fault> {
        let row = self.sql.first(
            "UPDATE accounts SET balance = balance + $1 WHERE id = $2 AND balance + $1 >= 0 RETURNING balance",
            &[amount.0.into(), account.0.into()],
        )?;
        let Some(row) = row else { return Ok(None) };
        note(self.sql, account.0, amount, entry)?;
        Ok(Some(Minor(row.int(0)?)))
    }

    /// Closes a reseller, or opens it again: to a closed one nothing is sold. False if there is no such reseller.
    pub fn close_account(&mut self, account: AccountId, closed_at: Option<Timestamp>) -> Result<bool, Fault> {
        let values = [closed_at.into(), account.0.into()];
        Ok(self.sql.execute("UPDATE accounts SET closed_at = $1 WHERE id = $2", &values)? == 1)
    }

    /// All resellers, by id.
    pub fn accounts(&mut self) -> Result<Vec<Account>, Fault> {
        let rows = self.sql.query("SELECT id FROM accounts ORDER BY id", &[])?;
        rows.iter().map(|row| find(self.sql, row.int(0)?)).collect()
    }

    /// Whether a reseller exists.
    pub fn has_account(&mut self, account: AccountId) -> Result<bool, Fault> {
        Ok(self.sql.first("SELECT 1 FROM accounts WHERE id = $1", &[account.0.into()])?.is_some())
    }
}
