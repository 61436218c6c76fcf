//! The binary: everything is in the library.

use std::process::ExitCode;

/// A request's values are made on one thread and let go of on another, which the C library's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    provisor::cli::main()
}
