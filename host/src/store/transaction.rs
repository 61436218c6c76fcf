//! The books' traits over one transaction: each line hands a question to the noun that answers it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use jiff::Timestamp;
use provisor_providers::books::{
    Account, AccountBooks, AccountId, Attempted, AuditRow, Books, Entry, Failure, Fault, HashUse, IdempotencyScope, Invoice,
    Keep, KeyRow, License, Lock, Login, Mail, NewEvent, NewInvoice, NewOrder, NewPayment, NewService, NewWebhook, Order,
    OrderStatus, Package, Payment, PaymentEnd, Product, Recorded, Service, Standing, Webhook,
};
use provisor_providers::limits::Meter;
use provisor_providers::money::Minor;
use secrecy::SecretString;

use super::sql::{Claim, Sql};
use super::{
    accounts, audit_log, catalogue, idempotency, invoices, keys, licenses, orders, outbox, payments, services, webhooks,
};
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
        self.sql.mark()?;
        let attempted = match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(Ok(Keep::Keep)) => Attempted::Kept,
            Ok(Ok(Keep::Undo)) => Attempted::Undone,
            Ok(Err(error)) => {
                if !self.sql.is_run_again() {
                    tracing::error!(%error, "an attempt failed");
                }
                Attempted::Broke
            }
            // The panic hook has logged where.
            Err(_) => Attempted::Broke,
        };
        if attempted == Attempted::Kept {
            self.sql.keep()?;
        } else {
            self.sql.undo()?;
        }
        Ok(attempted)
    }

    fn account(&mut self, id: AccountId) -> Box<dyn AccountBooks + '_> {
        self.sql.claim(Claim::Account(id.0));
        Box::new(Tenant { sql: self.sql, vault: self.vault, id: id.0 })
    }

    fn standing(&mut self, key: KeyRow, now: Timestamp) -> Result<Option<Standing>, Fault> {
        self.sql.claim(Claim::Key(key.0));
        keys::standing(self.sql, key, now)
    }

    fn key_version(&mut self, key: KeyRow) -> Result<Option<i64>, Fault> {
        self.sql.claim(Claim::Key(key.0));
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

    fn set_meter(&mut self, key: KeyRow, meter: &Meter, used_at: Option<Timestamp>) -> Result<(), Fault> {
        keys::set_meter(self.sql, key, meter, used_at)
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
        self.sql.claim(Claim::Stream(row.account.map_or(0, |account| account.0)));
        audit_log::append(self.sql, row)
    }

    fn products(&mut self) -> Result<Vec<Product>, Fault> {
        catalogue::products(self.sql)
    }

    fn product(&mut self, id: i64) -> Result<Option<Arc<Product>>, Fault> {
        catalogue::product(self.sql, id)
    }

    fn take_stock(&mut self, product: i64, quantity: u32) -> Result<bool, Fault> {
        catalogue::take_stock(self.sql, product, quantity)
    }

    fn return_stock(&mut self, product: i64, quantity: u32) -> Result<(), Fault> {
        catalogue::return_stock(self.sql, product, quantity)
    }

    fn due_orders(&mut self, now: Timestamp, limit: u32) -> Result<Vec<(AccountId, i64)>, Fault> {
        orders::due(self.sql, now, limit)
    }

    fn next_due_order(&mut self) -> Result<Option<Timestamp>, Fault> {
        orders::next_due(self.sql)
    }

    fn due_services(&mut self, now: Timestamp, limit: u32) -> Result<Vec<(AccountId, i64)>, Fault> {
        services::due(self.sql, now, limit)
    }

    fn next_due_service(&mut self) -> Result<Option<Timestamp>, Fault> {
        services::next_due(self.sql)
    }

    fn abandoned_payments(&mut self, now: Timestamp, limit: u32) -> Result<Vec<(AccountId, i64)>, Fault> {
        payments::abandoned(self.sql, now, limit)
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

    fn due_licenses(&mut self, now: Timestamp, limit: u32) -> Result<Vec<(AccountId, String)>, Fault> {
        licenses::due(self.sql, now, limit)
    }

    fn next_due_license(&mut self) -> Result<Option<Timestamp>, Fault> {
        licenses::next_due(self.sql)
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

    fn deposit(&mut self, amount: Minor, entry: &Entry<'_>) -> Result<(), Fault> {
        accounts::deposit(self.sql, self.id, amount, entry)
    }

    fn place(&mut self, order: &NewOrder, invoice: &NewInvoice) -> Result<Order, Fault> {
        orders::place(self.sql, self.id, order, invoice)
    }

    fn buy(&mut self, order: &NewOrder, invoice: &NewInvoice, due_at: Option<Timestamp>) -> Result<Option<Order>, Fault> {
        orders::buy(self.sql, self.id, order, invoice, due_at)
    }

    fn order(&mut self, id: i64) -> Result<Option<Order>, Fault> {
        orders::find(self.sql, self.id, id)
    }

    fn pending_orders(&mut self, limit: u32) -> Result<Vec<i64>, Fault> {
        orders::pending(self.sql, self.id, limit)
    }

    fn set_order(&mut self, order: &Order, from: OrderStatus) -> Result<bool, Fault> {
        orders::set(self.sql, self.id, order, from)
    }

    fn add_invoice(&mut self, invoice: &NewInvoice) -> Result<i64, Fault> {
        invoices::bill(self.sql, self.id, invoice)
    }

    fn invoice(&mut self, id: i64) -> Result<Option<Invoice>, Fault> {
        invoices::find(self.sql, self.id, id)
    }

    fn invoices(&mut self, offset: u64, limit: u32) -> Result<Vec<Invoice>, Fault> {
        invoices::list(self.sql, self.id, offset, limit)
    }

    fn count_invoices(&mut self) -> Result<u64, Fault> {
        invoices::count(self.sql, self.id)
    }

    fn renewal_invoice(&mut self, service: i64, term_from: Timestamp) -> Result<Option<Invoice>, Fault> {
        invoices::renewal(self.sql, self.id, service, term_from)
    }

    fn unpaid_renewals(&mut self, now: Timestamp, limit: u32) -> Result<Vec<i64>, Fault> {
        invoices::unpaid_renewals(self.sql, self.id, now, limit)
    }

    fn pay_invoice(&mut self, id: i64, now: Timestamp) -> Result<bool, Fault> {
        invoices::pay(self.sql, self.id, id, now)
    }

    fn cancel_invoice(&mut self, id: i64) -> Result<bool, Fault> {
        invoices::cancel(self.sql, self.id, id)
    }

    fn add_payment(&mut self, payment: &NewPayment<'_>) -> Result<Payment, Fault> {
        payments::add(self.sql, self.vault, self.id, payment)
    }

    fn payment(&mut self, id: i64) -> Result<Option<Payment>, Fault> {
        payments::find(self.sql, self.id, id)
    }

    fn last_payment(&mut self, invoice: i64) -> Result<Option<Payment>, Fault> {
        payments::last(self.sql, self.id, invoice)
    }

    fn claim_payment(&mut self, id: i64, fence: i64, lease_until: Timestamp) -> Result<bool, Fault> {
        payments::claim(self.sql, self.id, id, fence, lease_until)
    }

    fn finish_payment(&mut self, id: i64, fence: i64, end: &PaymentEnd<'_>) -> Result<bool, Fault> {
        payments::finish(self.sql, self.id, id, fence, end)
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
        outbox::queue_mail(self.sql, outbox::Recipient::Account(self.id), mail)
    }

    fn mails_since(&mut self, kind: &str, since: Timestamp) -> Result<u64, Fault> {
        outbox::mails_since(self.sql, self.id, kind, since)
    }

    fn notifies_credentials(&mut self) -> Result<bool, Fault> {
        accounts::notifies_credentials(self.sql, self.id)
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
