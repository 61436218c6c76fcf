//! What Provisor knows about each provider: both ends of its protocol, as values in and values out.
//!
//! Absent on purpose: sockets, clocks, randomness, threads, databases, async runtimes. What a client needs of the world comes in as
//! [`outside::Outside`], what a server needs of the store as [`books::Books`].

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

/// A provider: both ends of its protocol.
pub struct Provider {
    /// What profiles, keys and the contract call it.
    pub id: &'static str,
    /// The end that asks, on behalf of panels.
    pub client: &'static dyn provisioning::Provisioning,
    /// The end that answers, to resellers.
    pub server: &'static dyn server::Server,
}

/// Every provider there is. Nothing outside this crate lists them.
pub static PROVIDERS: &[Provider] = &[
    Provider { id: "kernelhost", client: &kernelhost::client::Client, server: &kernelhost::server::Server },
    Provider { id: "gp", client: &gp::client::Client, server: &gp::server::Server },
];

/// The provider of an id, such as `kernelhost`.
pub fn find(id: &str) -> Option<&'static Provider> {
    PROVIDERS.iter().find(|provider| provider.id == id)
}
