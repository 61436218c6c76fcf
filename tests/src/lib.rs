//! What the tests and benchmarks share: a house to test, clients to test it with. Everything in it is real but the clock.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so and ends")]

pub mod authority;
pub mod binary;
pub mod book;
pub mod daemon;
pub mod desk;
pub mod faults;
pub mod forger;
pub mod gp;
pub mod hooks;
pub mod house;
pub mod http;
pub mod one_key;
pub mod openapi;
pub mod postgres;
pub mod raw;
pub mod resellers;
pub mod rounds;
pub mod world;
