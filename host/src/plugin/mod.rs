//! Provider components: loading them, binding them to profiles, calling them. A component gets what its call brings and the network
//! hosts of its profile, and can neither outlast nor disturb another call.

mod audit;
pub mod builtin;
mod cache;
mod caller;
pub mod contract;
mod door;
mod engine;
mod log;
mod profile;
mod sandbox;
pub mod words;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use wasmtime::component::Component;

pub use audit::{CONTRACT_VERSION, Contents, Refusal, SIZE_MAX};
pub use cache::Cache;
pub use caller::Caller;
pub use profile::{BindError, Profile};
pub use sandbox::{CallError, Limits};

use crate::egress::EgressOptions;
use crate::redaction::Secrets;
use crate::resolve::{Resolve, SystemResolver};
use contract::{ContractPre, ProviderInfo};
use log::{GuestLog, LogRate};
use sandbox::{Errand, Guest, Sandbox};

/// The most providers that one component may describe.
const PROVIDERS_MAX: usize = 64;

/// How components are run.
pub struct Options {
    /// What one call may use.
    pub limits: Limits,
    /// Calls at the same time, over all profiles; more wait.
    pub concurrency: u32,
    /// Limits and trust of the way to the network.
    pub egress: EgressOptions,
    /// Who resolves names.
    pub resolver: Arc<dyn Resolve>,
    /// Where compiled components are kept; without it each start compiles them (about a tenth of a second).
    pub cache: Option<Cache>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            concurrency: 64,
            egress: EgressOptions::default(),
            resolver: Arc::new(SystemResolver),
            cache: None,
        }
    }
}

/// The engine could not be started.
#[derive(Debug, thiserror::Error)]
#[error("the WebAssembly engine does not start: {0}")]
pub struct StartError(String);

/// Why a component cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// It is no provider component, for the first of these reasons.
    #[error("the component is refused: {}", first(.0))]
    Refused(Vec<Refusal>),
    /// It does not compile, or not within the limits.
    #[error("the component does not compile: {0}")]
    Compile(String),
    /// Its functions differ from those of the contract.
    #[error("the component breaks the contract: {0}")]
    Contract(String),
    /// It could not say which providers it has.
    #[error("the component does not describe itself: {0}")]
    Describe(#[source] CallError),
}

fn first(refusals: &[Refusal]) -> String {
    refusals.first().map(ToString::to_string).unwrap_or_default()
}

/// What is known of a component, whether it is of use or not.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// What its bytes say.
    pub contents: Contents,
    /// What its code says; empty where it was not run, because the bytes were refused already.
    pub providers: Vec<ProviderInfo>,
    /// Why it would not be loaded; empty for a good one.
    pub refusals: Vec<String>,
}

/// Runs components. One for a process; clones are the same one.
#[derive(Clone)]
pub struct Host {
    sandbox: Sandbox,
    options: Arc<Options>,
    output: Arc<LogRate>,
}

impl Host {
    /// Starts the engine and its clock thread, which ends when the last clone, plugin and caller are gone.
    pub fn start(options: Options) -> Result<Self, StartError> {
        let sandbox =
            Sandbox::start(options.concurrency, options.limits.clone()).map_err(|error| StartError(format!("{error:#}")))?;
        Ok(Self { sandbox, options: Arc::new(options), output: Arc::default() })
    }

    /// The component inside the binary. It is trusted with the hosts it asks for.
    pub async fn builtin(&self) -> Result<Plugin, LoadError> {
        self.prepare(Cow::Borrowed(builtin::COMPONENT), true).await
    }

    /// A component from elsewhere. It reaches the base URL of a profile and such other hosts as the profile grants.
    pub async fn load(&self, bytes: impl Into<Cow<'static, [u8]>>) -> Result<Plugin, LoadError> {
        self.prepare(bytes.into(), false).await
    }

    /// Looks at a component. Its code runs, for `describe` alone and without a network, only if its bytes are in order.
    pub async fn inspect(&self, bytes: impl Into<Cow<'static, [u8]>>) -> Inspection {
        let bytes = bytes.into();
        let (contents, refusals) = audit::audit(&bytes);
        if !refusals.is_empty() {
            return Inspection { contents, providers: Vec::new(), refusals: refusals.iter().map(ToString::to_string).collect() };
        }
        match self.load(bytes).await {
            Ok(plugin) => Inspection { contents, providers: plugin.providers().to_vec(), refusals: Vec::new() },
            Err(error) => Inspection { contents, providers: Vec::new(), refusals: vec![error.to_string()] },
        }
    }

    async fn prepare(&self, bytes: Cow<'static, [u8]>, trusted: bool) -> Result<Plugin, LoadError> {
        let host = self.clone();
        // Compiling takes a core for a while; the runtime's own threads stay free.
        let compiled = tokio::task::spawn_blocking(move || host.compile(&bytes)).await;
        let (contents, pre) = compiled.map_err(|error| LoadError::Compile(error.to_string()))??;
        let providers = self.describe(&pre).await?;
        Ok(Plugin(Arc::new(Loaded { host: self.clone(), pre, contents, providers, trusted })))
    }

    fn compile(&self, bytes: &[u8]) -> Result<(Contents, ContractPre<Guest>), LoadError> {
        let (contents, refusals) = audit::audit(bytes);
        if !refusals.is_empty() {
            return Err(LoadError::Refused(refusals));
        }
        let component = self.compiled(bytes)?;
        let broken = |error: wasmtime::Error| LoadError::Contract(format!("{error:#}"));
        let pre = self.sandbox.linker.instantiate_pre(&component).map_err(broken)?;
        Ok((contents, ContractPre::new(pre).map_err(broken)?))
    }

    /// The component's native code, from the cache where it has been compiled before.
    fn compiled(&self, bytes: &[u8]) -> Result<Component, LoadError> {
        let engine = &self.sandbox.engine;
        let cache = self.options.cache.as_ref();
        if let Some(component) = cache.and_then(|cache| cache.load(engine, bytes)) {
            return Ok(component);
        }
        let component = Component::from_binary(engine, bytes).map_err(|error| LoadError::Compile(format!("{error:#}")))?;
        if let Some(cache) = cache {
            cache.store(engine, bytes, &component);
        }
        Ok(component)
    }

    async fn describe(&self, pre: &ContractPre<Guest>) -> Result<Vec<ProviderInfo>, LoadError> {
        let log = GuestLog::default();
        let errand = Errand { egress: None, wall: self.sandbox.limits.wall, log: log.clone(), sent: Arc::new(AtomicU32::new(0)) };
        let pre = pre.clone();
        let described = self.sandbox.call(errand, |store| {
            Box::pin(async move {
                let contract = pre.instantiate_async(&mut *store).await?;
                contract.provisor_provisioning_provisioning().call_describe(store).await
            })
        });
        let described = described.await.map_err(LoadError::Describe);
        self.tell(&log, &Secrets::new([]));
        let mut providers = described?;
        providers.truncate(PROVIDERS_MAX);
        Ok(providers)
    }

    /// Passes a component's output on to the log.
    fn tell(&self, log: &GuestLog, secrets: &Secrets) {
        if let Some(output) = log.text(secrets)
            && let Some(skipped) = self.output.admit()
        {
            tracing::warn!(output, skipped, "a component wrote to its output");
        }
    }
}

/// A loaded component. To replace it by another, load that one and bind the profiles anew; calls under way keep the old one.
#[derive(Clone)]
pub struct Plugin(Arc<Loaded>);

struct Loaded {
    host: Host,
    pre: ContractPre<Guest>,
    contents: Contents,
    providers: Vec<ProviderInfo>,
    trusted: bool,
}

impl Plugin {
    /// The providers in it, as `describe` told when it was loaded.
    pub fn providers(&self) -> &[ProviderInfo] {
        &self.0.providers
    }

    /// One of them.
    pub fn provider(&self, id: &str) -> Option<&ProviderInfo> {
        self.0.providers.iter().find(|provider| provider.id == id)
    }

    /// What its bytes say.
    pub fn contents(&self) -> &Contents {
        &self.0.contents
    }

    /// The component as seen by one profile, with connections of its own.
    pub fn bind(&self, profile: Profile) -> Result<Caller, BindError> {
        Caller::new(self.clone(), profile)
    }
}
