//! Arguments -> command -> exit code.

use std::process::ExitCode;

/// An event is allocated by the thread that reads it and freed by whichever lets go of
/// it last, which costs glibc's allocator twice as much (BENCHMARKS.md, a whole node).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    pointsman::cli::main()
}
