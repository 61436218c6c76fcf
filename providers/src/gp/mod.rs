//! The GP website-firewall reseller API: hashed form posts, both ends.

pub mod client;
mod exchange;
mod form;
mod guard;
pub mod hash;
pub mod password;
#[cfg(test)]
mod script;
pub mod server;
mod terms;
pub mod wire;

pub use client::Client;
pub use server::Server;
