//! A store of one key, for admission without books.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use provisor_providers::books::{AccountId, Fault, KeyRow};
use provisor_providers::server::{From, Key, KeyLimits, Keys};

/// The key is found by its id, or at every address.
pub struct OneKey(Arc<Key>);

impl OneKey {
    /// The key's public id.
    pub const ID: &str = "kh_live_ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

    /// With this secret.
    pub fn new(secret: &str) -> Self {
        Self(Arc::new(Key {
            row: KeyRow(1),
            version: 1,
            account: AccountId(1),
            public_id: Self::ID.to_owned(),
            label: String::new(),
            secret: secret.into(),
            scopes: Vec::new(),
            allowed: Vec::new(),
            limits: KeyLimits::default(),
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
            revoked: false,
        }))
    }
}

impl Keys for OneKey {
    fn find(&self, _: &str, public_id: &str, _: From) -> Result<Option<Arc<Key>>, Fault> {
        Ok((public_id == Self::ID).then(|| Arc::clone(&self.0)))
    }

    fn at_address(&self, _: &str, _: IpAddr, _: From) -> Result<Vec<Arc<Key>>, Fault> {
        Ok(vec![Arc::clone(&self.0)])
    }
}
