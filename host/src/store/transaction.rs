//! The books' traits over one transaction: each line hands a question to the noun that answers it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use jiff::Timestamp;
use provisor_providers::books::{
    Account, AccountBooks, AccountId, Attempted, AuditRow, Books, Entry, Failure, Fault, HashUse, IdempotencyScope, Keep, KeyRow,
    License, Lock, Login, Mail, NewEvent, NewInvoice, NewOrder, NewService, NewWebhook, Order, Package, Product, Recorded, Service,
    Webhook,
};
use provisor_providers::limits::Meter;
use provisor_providers::money::Minor;
use secrecy::SecretString;

use super::sql::Sql;
use super::{accounts, audit_log, catalogue, idempotency, keys, licenses, orders, outbox, services, webhooks};
use crate::vault::Vault;

/// One transaction on a book. Operators' questions are its own methods, in the file of their noun.
pub struct Transaction<'a> {
    pub(crate) sql: &'a mut (dyn Sql + 'a),
    pub(crate) vault: &'a Vault,
}

impl<'a> Transaction<'a> {
    pub(crate) fn new(sql: &'a mut (dyn Sql + 'a), vault: &'a Vault) -> Self {
        Self { sql, vault }
    }
}

impl Books for Transaction<'_> {
    fn attempt(&mut self, work: &mut dyn FnMut(&mut dyn Books) -> Result<Keep, Fault>) -> Result<Attempted, Fault> {
        self.sql.batch("SAVEPOINT attempt")?;
        let attempted = match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(Ok(Keep::Keep)) => Attempted::Kept,
            Ok(Ok(Keep::Undo)) => Attempted::Undone,
            Ok(Err(error)) => {
                tracing::error!(%error, "an attempt failed");
                Attempted::Broke
            }
            // The panic hook has logged where.
            Err(_) => Attempted::Broke,
        };
        let kept = attempted == Attempted::Kept;
        self.sql.batch(if kept { "RELEASE attempt" } else { "ROLLBACK TO attempt; RELEASE attempt" })?;
        Ok(attempted)
    }

    fn account(&mut self, id: AccountId) -> Box<dyn AccountBooks + '_> {
        Box::new(Tenant { sql: self.sql, vault: self.vault, id: id.0 })
    }

    fn key_version(&mut self, key: KeyRow) -> Result<Option<i64>, Fault> {
        keys::version(self.sql, key)
    }

    fn last_used(&mut self, key: KeyRow) -> Result<Option<Timestamp>, Fault> {
        keys::last_used(self.sql, key)
    }

    fn touch_key(&mut self, key: KeyRow, now: Timestamp) -> Result<(), Fault> {
        keys::touch(self.sql, key, now)
    }

    fn spend_nonce(&mut self, key: KeyRow, nonce: &str, now: Timestamp, expires_at: Timestamp) -> Result<bool, Fault> {
        keys::spend_nonce(self.sql, key, nonce, now, expires_at)
    }

    fn meter(&mut self, key: KeyRow) -> Result<Option<Meter>, Fault> {
        keys::meter(self.sql, key)
    }

    fn set_meter(&mut self, key: KeyRow, meter: &Meter) -> Result<(), Fault> {
        keys::set_meter(self.sql, key, meter)
    }

    fn locks(&mut self, key: KeyRow, now: Timestamp) -> Result<Vec<Lock>, Fault> {
        keys::locks(self.sql, key, now)
    }

    fn add_lock(&mut self, key: KeyRow, lock: &Lock) -> Result<(), Fault> {
        keys::add_lock(self.sql, key, lock)
    }

    fn failures(&mut self, key: KeyRow, since: Timestamp) -> Result<Vec<Failure>, Fault> {
        keys::failures(self.sql, key, since)
    }

    fn add_failure(&mut self, key: KeyRow, failure: &Failure) -> Result<(), Fault> {
        keys::add_failure(self.sql, key, failure)
    }

    fn idempotent(&mut self, scope: &IdempotencyScope<'_>, now: Timestamp) -> Result<Option<Recorded>, Fault> {
        idempotency::find(self.sql, scope, now)
    }

    fn record_idempotent(&mut self, scope: &IdempotencyScope<'_>, recorded: &Recorded) -> Result<(), Fault> {
        idempotency::record(self.sql, scope, recorded)
    }

    fn audit(&mut self, row: &AuditRow) -> Result<(), Fault> {
        audit_log::append(self.sql, row)
    }

    fn products(&mut self) -> Result<Vec<Product>, Fault> {
        catalogue::products(self.sql)
    }

    fn product(&mut self, id: i64) -> Result<Option<Product>, Fault> {
        catalogue::product(self.sql, id)
    }

    fn take_stock(&mut self, product: i64, quantity: u32) -> Result<bool, Fault> {
        catalogue::take_stock(self.sql, product, quantity)
    }

    fn due_orders(&mut self, now: Timestamp, limit: u32) -> Result<Vec<(AccountId, i64)>, Fault> {
        orders::due(self.sql, now, limit)
    }

    fn next_due_order(&mut self) -> Result<Option<Timestamp>, Fault> {
        orders::next_due(self.sql)
    }

    fn hash_use(&mut self, key: KeyRow, hash: &str) -> Result<Option<HashUse>, Fault> {
        keys::hash_use(self.sql, key, hash)
    }

    fn record_hash(&mut self, key: KeyRow, hash: &str, used: &HashUse) -> Result<(), Fault> {
        keys::record_hash(self.sql, key, hash, used)
    }

    fn envelope_iv(&mut self, key: KeyRow, ciphertext_sha256: &[u8; 32]) -> Result<Option<[u8; 16]>, Fault> {
        keys::envelope_iv(self.sql, key, ciphertext_sha256)
    }

    fn record_envelope(&mut self, key: KeyRow, ciphertext_sha256: &[u8; 32], iv: &[u8; 16], now: Timestamp) -> Result<(), Fault> {
        keys::record_envelope(self.sql, key, ciphertext_sha256, iv, now)
    }

    fn packages(&mut self) -> Result<Vec<Package>, Fault> {
        catalogue::packages(self.sql)
    }

    fn licensee(&mut self, domain: &str) -> Result<Option<AccountId>, Fault> {
        licenses::licensee(self.sql, domain)
    }
}

/// One reseller's part: the account goes into every statement.
struct Tenant<'a> {
    sql: &'a mut (dyn Sql + 'a),
    vault: &'a Vault,
    id: i64,
}

impl AccountBooks for Tenant<'_> {
    fn profile(&mut self) -> Result<Account, Fault> {
        accounts::find(self.sql, self.id)
    }

    fn charge(&mut self, amount: Minor, entry: &Entry<'_>) -> Result<bool, Fault> {
        accounts::charge(self.sql, self.id, amount, entry)
    }

    fn add_order(&mut self, order: &NewOrder) -> Result<i64, Fault> {
        orders::add(self.sql, self.id, order)
    }

    fn order(&mut self, id: i64) -> Result<Option<Order>, Fault> {
        orders::find(self.sql, self.id, id)
    }

    fn set_order(&mut self, order: &Order) -> Result<(), Fault> {
        orders::set(self.sql, self.id, order)
    }

    fn add_invoice(&mut self, invoice: &NewInvoice) -> Result<i64, Fault> {
        orders::add_invoice(self.sql, self.id, invoice)
    }

    fn renewal_invoice(&mut self, service: i64, term_from: Timestamp) -> Result<Option<i64>, Fault> {
        orders::renewal_invoice(self.sql, self.id, service, term_from)
    }

    fn set_invoice_paid(&mut self, id: i64, now: Timestamp) -> Result<(), Fault> {
        orders::set_invoice_paid(self.sql, self.id, id, now)
    }

    fn cancel_invoice(&mut self, id: i64) -> Result<(), Fault> {
        orders::cancel_invoice(self.sql, self.id, id)
    }

    fn add_service(&mut self, service: &NewService) -> Result<i64, Fault> {
        services::add(self.sql, self.vault, self.id, service)
    }

    fn service(&mut self, id: i64) -> Result<Option<Service>, Fault> {
        services::find(self.sql, self.id, id)
    }

    fn services(&mut self, offset: u64, limit: u32) -> Result<Vec<Service>, Fault> {
        services::list(self.sql, self.id, offset, limit)
    }

    fn count_services(&mut self) -> Result<u64, Fault> {
        services::count(self.sql, self.id)
    }

    fn set_service(&mut self, service: &Service) -> Result<(), Fault> {
        services::set(self.sql, self.id, service)
    }

    fn login(&mut self, service: i64) -> Result<Option<Login>, Fault> {
        services::login(self.sql, self.vault, self.id, service)
    }

    fn set_password(&mut self, service: i64, password: &SecretString) -> Result<(), Fault> {
        services::set_password(self.sql, self.vault, self.id, service, password)
    }

    fn webhook(&mut self, key: KeyRow) -> Result<Option<Webhook>, Fault> {
        webhooks::find(self.sql, self.vault, self.id, key)
    }

    fn set_webhook(&mut self, key: KeyRow, webhook: &NewWebhook<'_>) -> Result<(), Fault> {
        webhooks::set(self.sql, self.vault, self.id, key, webhook)
    }

    fn unset_webhook(&mut self, key: KeyRow, now: Timestamp) -> Result<(), Fault> {
        webhooks::unset(self.sql, self.id, key, now)
    }

    fn add_event(&mut self, event: &NewEvent<'_>) -> Result<(), Fault> {
        outbox::add_event(self.sql, self.id, event)
    }

    fn queue_mail(&mut self, mail: &Mail) -> Result<(), Fault> {
        outbox::queue_mail(self.sql, self.id, mail)
    }

    fn license(&mut self, domain: &str) -> Result<Option<License>, Fault> {
        licenses::find(self.sql, self.id, domain)
    }

    fn add_license(&mut self, license: &License) -> Result<i64, Fault> {
        licenses::add(self.sql, self.id, license)
    }

    fn set_license(&mut self, license: &License) -> Result<(), Fault> {
        licenses::set(self.sql, self.id, license)
    }
}
