//! The `gantry` binary: reads the command line, runs one command, turns its end into an exit code.

mod cli;
mod commands;
mod connect;
mod election;
mod failure;
mod fleet;
mod import;
mod output;
mod view;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
