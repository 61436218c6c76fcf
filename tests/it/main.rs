//! The whole house under test.

mod gp_books;
mod kernelhost_books;
mod kernelhost_orders;
