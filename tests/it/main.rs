//! The whole house under test.

mod kernelhost_orders;
