//! A profile: a provider, where it is, and as whom to ask.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroize;

use super::Plugin;
use super::contract::{Connection, ProviderInfo, Setting};
use crate::egress::{EgressPolicy, PolicyError};

/// What the configuration says of a profile, its secrets read.
#[derive(Clone)]
pub struct Profile {
    /// Its name in the configuration and in the log.
    pub name: String,
    /// The provider's id.
    pub provider: String,
    /// Where the provider is; without it the provider's own default.
    pub base_url: Option<String>,
    /// The public half of the credentials.
    pub key: String,
    /// The secret half.
    pub secret: SecretString,
    /// Values for the settings that the provider describes.
    pub settings: BTreeMap<String, SecretString>,
    /// Hosts granted besides that of the base URL, as `name` or `name:port`, to a component that asks for them.
    pub hosts: Vec<String>,
    /// Development only: private addresses and plain http to them.
    pub allow_private: bool,
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile").field("name", &self.name).field("provider", &self.provider).finish_non_exhaustive()
    }
}

/// Why a profile does not fit a component.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// The component has no such provider.
    #[error("there is no provider `{provider}`; there are: {}", .known.join(", "))]
    Provider {
        /// The one asked for.
        provider: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// Neither the profile nor the provider says where it is.
    #[error("base_url is missing, and provider `{0}` has no default")]
    BaseUrl(String),
    /// A required setting is not there.
    #[error("the setting `{0}` is missing")]
    MissingSetting(String),
    /// A setting that the provider does not know.
    #[error("the provider has no setting `{0}`")]
    UnknownSetting(String),
    /// The component asks for hosts that the profile does not grant.
    #[error("the component asks for hosts that the profile does not grant: {}", .0.join(", "))]
    Hosts(Vec<String>),
    /// The profile's addresses are not usable.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// One of the additional certificate authorities is not usable.
    #[error("an additional certificate authority is not usable: {0}")]
    Roots(String),
}

impl Profile {
    /// Checks the profile against what the component says of the provider.
    pub(super) fn fit(&self, plugin: &Plugin) -> Result<(String, EgressPolicy), BindError> {
        let info = plugin.provider(&self.provider).ok_or_else(|| BindError::Provider {
            provider: self.provider.clone(),
            known: plugin.providers().iter().map(|provider| provider.id.clone()).collect(),
        })?;
        let default =
            || info.properties.iter().find(|property| property.name == "default-base-url").map(|found| found.value.clone());
        let base_url = self.base_url.clone().or_else(default).ok_or_else(|| BindError::BaseUrl(info.id.clone()))?;
        self.fit_settings(info)?;
        let granted = |host: &&String| plugin.0.trusted || self.hosts.contains(host);
        let refused: Vec<String> = info.hosts.iter().filter(|host| !granted(host)).cloned().collect();
        if !refused.is_empty() {
            return Err(BindError::Hosts(refused));
        }
        let policy = EgressPolicy::new(&base_url, &info.hosts, self.allow_private)?;
        Ok((base_url.trim_end_matches('/').to_owned(), policy))
    }

    fn fit_settings(&self, info: &ProviderInfo) -> Result<(), BindError> {
        if let Some(unknown) = self.settings.keys().find(|name| !info.settings.iter().any(|field| field.name == **name)) {
            return Err(BindError::UnknownSetting(unknown.clone()));
        }
        let missing = info.settings.iter().find(|field| field.required && !self.settings.contains_key(&field.name));
        missing.map_or(Ok(()), |field| Err(BindError::MissingSetting(field.name.clone())))
    }

    /// Whatever no text may show: any setting can be a secret.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &SecretString> {
        self.settings.values().chain([&self.secret])
    }

    /// The contract's form, for the length of one call.
    pub(super) fn connection(&self, base_url: &str) -> Exposed {
        let setting =
            |(name, value): (&String, &SecretString)| Setting { name: name.clone(), value: value.expose_secret().to_owned() };
        // A client that refuses plain http by itself has to know that the operator allowed it; egress checks the address.
        let private = self.allow_private.then(|| Setting { name: "allow_private".to_owned(), value: "true".to_owned() });
        Exposed(Connection {
            provider: self.provider.clone(),
            base_url: base_url.to_owned(),
            key: self.key.clone(),
            secret: self.secret.expose_secret().to_owned(),
            settings: self.settings.iter().map(setting).chain(private).collect(),
        })
    }
}

/// A connection with its secrets in the open, wiped when the call is over.
pub(super) struct Exposed(pub(super) Connection);

impl Drop for Exposed {
    fn drop(&mut self) {
        self.0.secret.zeroize();
        self.0.settings.iter_mut().for_each(|setting| setting.value.zeroize());
    }
}
