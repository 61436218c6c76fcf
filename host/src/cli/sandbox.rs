//! The component and the profiles, made ready for a command.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};

use super::book::Home;
use super::{Context, Failure, read_file};
use crate::plugin::{Cache, Caller, Host, Limits, Options, Plugin, Profile};

impl Context {
    /// Every profile of the configuration, bound to a component. One that cannot be used is an error.
    pub(super) fn callers(&self, home: &Home, plugin: &Plugin) -> Result<BTreeMap<String, Caller>, Failure> {
        let names = home.config.profiles.keys();
        names.map(|name| Ok((name.clone(), self.caller(home, plugin, name)?))).collect()
    }

    /// The component of a file, or the one inside the binary.
    pub(super) async fn component(engine: &Host, file: Option<&Path>) -> Result<Plugin, Failure> {
        match file {
            Some(file) => engine.load(read_file(file)?).await.map_err(Failure::usage),
            None => engine.builtin().await.map_err(Failure::failed),
        }
    }

    /// An engine under the configuration's limits. Compiled components are kept in the data directory.
    pub(super) fn engine(home: &Home) -> Result<Host, Failure> {
        let plugin = &home.config.plugin;
        let limits = Limits {
            cpu: Duration::from_millis(plugin.cpu_ms.into()),
            wall: Duration::from_millis(plugin.timeout_ms.into()),
            change_wall: Duration::from_millis(plugin.change_timeout_ms.into()),
            memory: plugin.memory_mib as usize * 1024 * 1024,
            ..Limits::default()
        };
        let key = home.vault.derived_key("compiled components");
        let cache = key.map(|key| Cache::open(home.directory.join("compiled"), key)).transpose();
        let cache = cache.context("cannot keep compiled components").map_err(Failure::failed)?;
        Host::start(Options { limits, concurrency: plugin.concurrency, cache, ..Options::default() }).map_err(Failure::failed)
    }

    /// The component as a profile of the configuration sees it.
    pub(super) fn caller(&self, home: &Home, plugin: &Plugin, name: &str) -> Result<Caller, Failure> {
        let profile = home.config.profiles.get(name).ok_or_else(|| {
            let known: Vec<&str> = home.config.profiles.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "there are none".to_owned() } else { format!("there are: {}", known.join(", ")) };
            Failure::usage(anyhow!("the configuration has no profile `{name}`; {known}"))
        })?;
        let credentials = profile
            .credentials(&self.environment)
            .with_context(|| format!("the credentials of profile `{name}` cannot be read"))
            .map_err(Failure::usage)?;
        let bound = plugin.bind(Profile {
            name: name.to_owned(),
            provider: profile.provider.clone(),
            base_url: profile.base_url.as_ref().map(|url| url.as_str().to_owned()),
            key: credentials.key,
            secret: credentials.secret,
            settings: credentials.settings,
            hosts: profile.hosts.clone(),
            allow_private: profile.allow_private,
        });
        bound.with_context(|| format!("profile `{name}` cannot be used")).map_err(Failure::usage)
    }
}
