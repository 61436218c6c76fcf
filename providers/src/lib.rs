//! What Provisor knows about each provider: both ends of its protocol, as values in and values out.
//!
//! Absent on purpose: sockets, clocks, randomness, threads, databases, async runtimes. What a client needs of the world comes in as
//! [`outside::Outside`], what a server needs of the store as [`books::Books`].

pub mod address;
pub mod books;
pub mod contract;
pub mod gp;
pub mod kernelhost;
pub mod limits;
pub mod message;
pub mod money;
pub mod outside;
pub mod provisioning;
pub mod server;
pub mod target;

/// A provider: both ends of its protocol.
pub struct Provider {
    /// What profiles, keys and the contract call it.
    pub id: &'static str,
    /// The end that asks, on behalf of panels.
    pub client: &'static dyn provisioning::Provisioning,
    /// The end that answers, to resellers.
    pub server: &'static dyn server::Server,
}

/// An asking end with the id of its provider.
pub type Client = (&'static str, &'static dyn provisioning::Provisioning);

/// Both lists from one. The component names clients alone: what it does not name, the linker leaves out of it.
macro_rules! providers {
    ($($module:ident,)+) => {
        /// Every provider there is. Nothing outside this crate lists them.
        pub static PROVIDERS: &[Provider] =
            &[$(Provider { id: stringify!($module), client: &$module::client::Client, server: &$module::server::Server },)+];

        /// The asking end of every provider.
        pub static CLIENTS: &[Client] = &[$((stringify!($module), &$module::client::Client),)+];
    };
}

providers! {
    kernelhost,
    gp,
}

/// The provider of an id, such as `kernelhost`.
pub fn find(id: &str) -> Option<&'static Provider> {
    PROVIDERS.iter().find(|provider| provider.id == id)
}
