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
