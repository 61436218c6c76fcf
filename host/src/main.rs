//! The `provisor` program.

fn main() {}
