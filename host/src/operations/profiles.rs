//! The profiles that changes are made with, replaceable while calls are under way.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::plugin::Caller;
use crate::plugin::contract::{Capability, ProviderInfo};

/// The profiles by name. Clones see the same ones.
#[derive(Clone, Default)]
pub struct Profiles(Arc<RwLock<Arc<BTreeMap<String, Caller>>>>);

impl Profiles {
    /// Puts others in their place. Calls under way keep what they began with.
    pub fn replace(&self, callers: BTreeMap<String, Caller>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(callers);
    }

    /// All of them, as of now.
    pub fn all(&self) -> Arc<BTreeMap<String, Caller>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<Caller> {
        self.all().get(name).cloned()
    }
}

/// What a provider says of one of its operations; none where it lacks it.
pub(super) fn capability<'a>(info: &'a ProviderInfo, operation: &str) -> Option<&'a Capability> {
    info.capabilities.iter().find(|capability| capability.operation == operation)
}

/// Whether a repeat under one idempotency key is the provider's own business.
pub(super) fn is_idempotent(info: &ProviderInfo) -> bool {
    info.properties.iter().any(|property| property.name == "idempotency" && property.value == "native")
}
