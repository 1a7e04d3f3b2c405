//! The command line: a file per command. Standard output is data, standard
//! error is talk. Exit codes: 0 done, 1 the answer is no, 2 could not run.

mod args;
mod audit;
mod bench;
mod check;
mod client;
mod dlq;
mod doctor;
mod drivers;
mod edit;
mod events;
mod matching;
mod plan;
mod query;
mod queues;
mod reload;
mod replay;
mod run;
mod send;
mod signals;
mod stream;
mod table;
mod topics;
mod trace;

use args::{BenchCommand, Cli, Command};
use clap::{CommandFactory, Parser};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

/// What a command answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Done, or yes: 0.
    Yes,
    /// Done, and the answer is no: 1.
    No,
}

/// Why a command could not run: 2.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// A message for people, with the way out.
    #[error("{message}")]
    Said {
        /// What is wrong.
        message: String,
        /// The way out.
        hint: Option<String>,
    },
    /// The reader of our output is gone: nothing to say and nobody to say it to.
    #[error("the output was closed")]
    Closed,
    /// Already told in full.
    #[error("see above")]
    Told,
}

impl CliError {
    fn new(message: impl Into<String>) -> Self {
        Self::Said {
            message: message.into(),
            hint: None,
        }
    }

    fn hint(self, said: impl Into<String>) -> Self {
        match self {
            Self::Said { message, .. } => Self::Said {
                message,
                hint: Some(said.into()),
            },
            other => other,
        }
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::Closed;
        }
        Self::new(error.to_string())
    }
}

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            error.print().ok();
            return ExitCode::from(code);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(dispatch(cli));
            // Work on blocking threads that nobody waits for must not hold up the exit.
            runtime.shutdown_timeout(std::time::Duration::from_secs(2));
            result
        }
        Err(error) => Err(CliError::new(format!("cannot start: {error}"))),
    };
    match result {
        Ok(Answer::Yes) | Err(CliError::Closed) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(CliError::Told) => ExitCode::from(2),
        Err(CliError::Said { message, hint }) => {
            talk(&format!("error: {message}"));
            if let Some(hint) = hint {
                talk(&format!("  hint: {hint}"));
            }
            ExitCode::from(2)
        }
    }
}

async fn dispatch(cli: Cli) -> Result<Answer, CliError> {
    let at = &cli.at;
    match cli.command {
        Command::Run(args) => run::run(args).await,
        Command::Check(args) => check::check(&args).await,
        Command::Plan(args) => plan::plan(at, &args).await,
        Command::Replay(args) => replay::run(at, args).await,
        Command::Reload(args) => reload::reload(at, &args).await,
        Command::Send(args) => send::send(at, &args).await,
        Command::Match(args) => matching::run(&args),
        Command::Events(args) => events::run(at, args).await,
        Command::Trace(args) => trace::trace(at, &args).await,
        Command::Queues(args) => queues::run(at, args).await,
        Command::Topics(args) => topics::run(at, &args).await,
        Command::Sources(args) => plan::sources(at, &args).await,
        Command::Subscribe(args) => stream::subscribe(at, &args).await,
        Command::Dlq(args) => dlq::run(at, args).await,
        Command::Doctor(args) => doctor::doctor(at, &args),
        Command::Audit(args) => audit::audit(at, &args).await,
        Command::Query(args) => query::query(at, &args).await,
        Command::Maintain(args) => query::maintain(at, &args).await,
        Command::Drivers(args) => drivers::drivers(&args),
        Command::Explain(args) => check::explain(&args),
        Command::Schema(args) => check::schema(at, args.what).await,
        Command::Bench {
            what: BenchCommand::Bus(args),
        } => bench::bus(&args).await,
        Command::Completions { shell } => {
            let mut command = Cli::command();
            clap_complete::generate(shell, &mut command, "pointsman", &mut io::stdout());
            Ok(Answer::Yes)
        }
    }
}

/// Data: one line on standard output.
fn say(line: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.write_all(b"\n")?;
    Ok(())
}

/// Talk: one line on standard error. Nobody may be listening.
fn talk(line: &str) {
    writeln!(io::stderr().lock(), "{line}").ok();
}

/// Whether to colour what goes to standard error.
fn colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
