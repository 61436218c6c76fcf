//! Work for a transaction, as the engines take it.

use std::sync::Arc;

use provisor_providers::books::Fault;
use tokio::runtime::Handle;
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
    /// Where its caller waits.
    fn runtime(&self) -> Option<&Handle>;
}

/// Jobs whose callers are yet to be told what became of their commit. Dropping it tells them.
pub(super) struct Replies {
    pub(super) jobs: Vec<Box<dyn Job>>,
    pub(super) result: Result<(), StoreError>,
}

impl Replies {
    /// Tells the callers from where they wait: told one by one from elsewhere, each would take the core from whoever is telling them, and
    /// have nothing else to do once it is served.
    pub(super) fn send(self) {
        let runtime = self.jobs.first().filter(|_| self.jobs.len() > 1).and_then(|job| job.runtime()).cloned();
        match runtime {
            // A runtime that has ended drops what it is given.
            Some(runtime) => drop(runtime.spawn(async move { drop(self) })),
            None => drop(self),
        }
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        for job in self.jobs.drain(..) {
            job.reply(self.result.clone());
        }
    }
}

/// Work that was handed in, and whom to tell.
pub(super) struct Asked<T, W> {
    pub(super) work: W,
    pub(super) vault: Arc<Vault>,
    pub(super) result: Option<Result<T, Fault>>,
    pub(super) sender: oneshot::Sender<Result<T, StoreError>>,
    pub(super) runtime: Option<Handle>,
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

    fn runtime(&self) -> Option<&Handle> {
        self.runtime.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use tokio::runtime::{Builder, Id, Runtime};

    use super::*;

    /// Says in which runtime its caller was told.
    struct Spy(Option<Handle>, Mutex<Sender<Option<Id>>>);

    impl Job for Spy {
        fn run(&mut self, _sql: &mut dyn Sql) -> bool {
            true
        }

        fn reply(self: Box<Self>, _result: Result<(), StoreError>) {
            self.1.lock().unwrap().send(Handle::try_current().ok().map(|handle| handle.id())).unwrap();
        }

        fn runtime(&self) -> Option<&Handle> {
            self.0.as_ref()
        }
    }

    fn runtime() -> Runtime {
        Builder::new_multi_thread().worker_threads(1).build().unwrap()
    }

    /// Where the callers of a commit were told, who wait in these runtimes.
    fn told(waiting: &[Option<&Handle>]) -> Vec<Option<Id>> {
        let (sender, receiver) = channel();
        let jobs = waiting.iter().map(|&handle| Box::new(Spy(handle.cloned(), Mutex::new(sender.clone()))) as Box<dyn Job>);
        Replies { jobs: jobs.collect(), result: Ok(()) }.send();
        waiting.iter().map(|_| receiver.recv_timeout(Duration::from_secs(10)).unwrap()).collect()
    }

    #[test]
    fn callers_of_one_commit_are_told_from_where_they_wait() {
        let (runtime, other) = (runtime(), runtime());
        let (here, there) = (Some(runtime.handle()), Some(other.handle()));
        let id = Some(runtime.handle().id());
        assert_eq!(told(&[here, here, there, None]), [id; 4]);
        assert_eq!(told(&[here]), [None], "one alone by whoever has its answer");
        assert_eq!(told(&[None, here]), [None; 2]);
    }

    #[test]
    fn callers_are_told_though_the_runtime_of_the_first_has_ended() {
        let (ended, runtime) = (runtime(), runtime());
        let handle = ended.handle().clone();
        drop(ended);
        assert_eq!(told(&[Some(&handle), Some(runtime.handle())]).len(), 2);
    }
}
