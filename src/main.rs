//! The `gristmill` program: the command line with the built-in apps.

use std::process::ExitCode;

fn main() -> ExitCode {
    gristmill::main(gristmill::apps::all())
}
