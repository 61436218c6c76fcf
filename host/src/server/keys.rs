//! Keys for admission: opened once, cached, and asked of the store when the cache does not know better.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use provisor_providers::books::Fault;
use provisor_providers::server::{From, Key, Keys};

use crate::addresses::Addresses;
use crate::store::Store;

/// Keys remembered at a time; when they are full, all are forgotten and asked again.
const REMEMBERED: usize = 10_000;
/// Look-ups in the store per minute and address: guessing ids must not cost the store more than guessing signatures.
const LOOK_UPS_PER_MINUTE: u32 = 60;

/// What admission asks. An entry may be out of date: the transaction compares the key's version and says so.
pub(super) struct KeyCache {
    by_id: Cache<(String, String), Arc<Key>>,
    by_address: Cache<(String, IpAddr), Vec<Arc<Key>>>,
    look_ups: Addresses,
}

impl KeyCache {
    pub(super) fn new() -> Self {
        Self { by_id: Cache::new(), by_address: Cache::new(), look_ups: Addresses::new(LOOK_UPS_PER_MINUTE) }
    }
}

/// The cache as one request sees it.
pub(super) struct RequestKeys<'a> {
    pub(super) cache: &'a KeyCache,
    pub(super) store: &'a Store,
    pub(super) peer: IpAddr,
    /// The cache was found out of date: ask the store, whatever admission says.
    pub(super) distrust: bool,
}

impl RequestKeys<'_> {
    fn wants_store(&self, from: From) -> bool {
        from == From::Store || self.distrust
    }

    fn may_look_up(&self) -> bool {
        self.cache.look_ups.take(self.peer, Instant::now()).is_ok()
    }

    /// Without a look-up nobody knows whether there is such a key: the caller is told to come again.
    fn too_many() -> Fault {
        Fault("too many keys asked for from one address".to_owned())
    }
}

impl Keys for RequestKeys<'_> {
    fn find(&self, provider: &str, public_id: &str, from: From) -> Result<Option<Arc<Key>>, Fault> {
        let name = (provider.to_owned(), public_id.to_owned());
        let cached = self.cache.by_id.get(&name);
        if !self.wants_store(from) {
            return Ok(cached);
        }
        if !self.may_look_up() {
            return cached.map(Some).ok_or_else(Self::too_many);
        }
        let key = self.store.read(|books| books.find_key(provider, public_id))?;
        if cached.is_none() && key.is_some() {
            // Nobody guesses who names a key that exists: many may share an address, and a server that just started knows none.
            self.cache.look_ups.give_back(self.peer);
        }
        self.cache.by_id.put(name, key.clone());
        Ok(key)
    }

    fn at_address(&self, provider: &str, address: IpAddr, from: From) -> Result<Vec<Arc<Key>>, Fault> {
        let name = (provider.to_owned(), address);
        let cached = self.cache.by_address.get(&name);
        if !self.wants_store(from) {
            return Ok(cached.unwrap_or_default());
        }
        if !self.may_look_up() {
            return cached.ok_or_else(Self::too_many);
        }
        let keys = self.store.read(|books| books.keys_at(provider, address))?;
        self.cache.by_address.put(name, (!keys.is_empty()).then(|| keys.clone()));
        Ok(keys)
    }
}

struct Cache<K, V>(Mutex<HashMap<K, V>>);

impl<K: Hash + Eq, V: Clone> Cache<K, V> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    fn get(&self, name: &K) -> Option<V> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn put(&self, name: K, value: Option<V>) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match value {
            Some(value) => {
                if entries.len() >= REMEMBERED {
                    entries.clear();
                }
                entries.insert(name, value);
            }
            None => {
                entries.remove(&name);
            }
        }
    }
}
