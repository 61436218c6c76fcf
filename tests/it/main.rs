//! The whole house under test.

mod architecture;
mod kernelhost_books;
mod kernelhost_orders;
