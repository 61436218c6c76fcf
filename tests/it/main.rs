//! The whole house under test.

mod architecture;
mod conformance;
mod crash;
mod foreign_clients;
mod gp_books;
mod house;
mod kernelhost_books;
mod kernelhost_orders;
mod kernelhost_refusals;
mod vectors;
