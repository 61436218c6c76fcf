//! The whole house under test.

mod architecture;
mod conformance;
mod gp_books;
mod kernelhost_books;
mod kernelhost_orders;
