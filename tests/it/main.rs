//! The whole house under test.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so and ends")]

mod architecture;
mod conformance;
mod crash;
#[path = "crash.rs"]
mod crash_on_postgres;
mod failover;
mod foreign_clients;
mod gp_books;
#[path = "gp_books.rs"]
mod gp_books_on_postgres;
mod house;
mod kernelhost_books;
#[path = "kernelhost_books.rs"]
mod kernelhost_books_on_postgres;
mod kernelhost_orders;
mod kernelhost_refusals;
mod moving;
mod several_hosts;
mod store;
#[path = "store.rs"]
mod store_on_postgres;
mod vectors;
