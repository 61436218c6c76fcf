//! Work for a transaction, as the engines take it.

use std::sync::Arc;

use provisor_providers::books::Fault;
use tokio::sync::oneshot;

use super::sql::Sql;
use super::{StoreError, Transaction};
use crate::vault::Vault;

/// Work for a transaction. It may be run more than once; only the last run's writes stay.
pub(super) trait Job: Send {
    /// Runs inside a transaction; whether what it wrote stays.
    fn run(&mut self, sql: &mut dyn Sql) -> bool;
    /// Told once what became of the last run's writes.
    fn reply(self: Box<Self>, result: Result<(), StoreError>);
}

/// Work that was handed in, and whom to tell.
pub(super) struct Asked<T, W> {
    pub(super) work: W,
    pub(super) vault: Arc<Vault>,
    pub(super) result: Option<Result<T, Fault>>,
    pub(super) sender: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, W> Job for Asked<T, W>
where
    T: Send,
    W: FnMut(&mut Transaction<'_>) -> Result<T, Fault> + Send,
{
    fn run(&mut self, sql: &mut dyn Sql) -> bool {
        self.result = None;
        self.result.insert((self.work)(&mut Transaction::new(sql, &self.vault))).is_ok()
    }

    fn reply(self: Box<Self>, result: Result<(), StoreError>) {
        let Self { result: worked, sender, .. } = *self;
        let result = result.and_then(|()| worked.map_or(Err(StoreError::NotDone), |worked| Ok(worked?)));
        // A caller that has gone away does not want the answer.
        let _unheard = sender.send(result);
    }
}
