//! Where each provider's API is served.

use std::fmt;
use std::sync::Arc;

use provisor_providers::{PROVIDERS, Provider};

/// Paths that the host answers itself, also where an API is served at the root.
const OWN: [&str; 2] = ["/healthz", "/readyz"];

/// The prefixes below which the APIs are served; the longest that fits decides.
#[derive(Clone)]
pub struct Mounts(Vec<(Arc<str>, &'static Provider)>);

impl Mounts {
    /// Each provider below its prefix, which begins with a slash and does not end with one; the root's is empty.
    pub fn new<'a>(places: impl IntoIterator<Item = (&'static Provider, &'a str)>) -> Self {
        let mut mounts: Vec<_> = places.into_iter().map(|(provider, prefix)| (prefix.into(), provider)).collect();
        mounts.sort_by_key(|(prefix, _): &(Arc<str>, _)| std::cmp::Reverse(prefix.len()));
        Self(mounts)
    }

    /// Which API serves a path, and the prefix that is not its own.
    pub(super) fn find(&self, path: &str) -> Option<(&'static Provider, &Arc<str>)> {
        if OWN.contains(&path) {
            return None;
        }
        let is_below = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
        self.0.iter().find(|(prefix, _)| is_below(prefix)).map(|(prefix, provider)| (*provider, prefix))
    }
}

impl Default for Mounts {
    fn default() -> Self {
        Self::new(PROVIDERS.iter().map(|provider| (provider, provider.server.mount())))
    }
}

impl fmt::Debug for Mounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(prefix, provider)| (prefix, provider.id))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'a>(mounts: &'a Mounts, path: &str) -> Option<(&'static str, &'a str)> {
        mounts.find(path).map(|(provider, prefix)| (provider.id, &**prefix))
    }

    #[test]
    fn without_a_choice_each_api_is_where_its_provider_has_it() {
        let mounts = Mounts::default();
        for provider in PROVIDERS {
            let prefix = provider.server.mount();
            assert_eq!(found(&mounts, &format!("{prefix}/x")), Some((provider.id, prefix)));
            assert_eq!(found(&mounts, prefix), None);
            assert_eq!(found(&mounts, &format!("{prefix}x/")), None);
        }
    }

    #[test]
    fn the_longest_prefix_that_fits_decides() {
        let [one, other] = [&PROVIDERS[0], &PROVIDERS[1]];
        for places in [[(one, ""), (other, "/api")], [(other, "/api"), (one, "")]] {
            let mounts = Mounts::new(places);
            assert_eq!(found(&mounts, "/api/x"), Some((other.id, "/api")));
            assert_eq!(found(&mounts, "/apis/x"), Some((one.id, "")));
            assert_eq!(found(&mounts, "/v1/me"), Some((one.id, "")));
            assert_eq!(found(&mounts, "/healthz"), None);
            assert_eq!(found(&mounts, "/readyz"), None);
        }
    }
}
