//! The whole house under test.

mod foreign_clients;
mod kernelhost_books;
mod kernelhost_orders;
mod vectors;
