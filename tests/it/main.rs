//! The whole house under test.

mod kernelhost_books;
mod kernelhost_orders;
