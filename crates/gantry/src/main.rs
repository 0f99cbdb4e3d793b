//! The `gantry` binary: reads the command line, runs one command, turns its end into an exit code.

mod adopt;
mod cli;
mod commands;
mod connect;
mod election;
mod failure;
mod fleet;
#[cfg(test)]
mod guides;
mod import;
mod output;
mod view;

use std::process::ExitCode;

/// Objects are trees of small pieces, made by one thread and let go by another: glibc's allocator
/// spent a third of the time of an API write on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
