//! Where log lines go: to people on a terminal, or to a collector as JSON.

use std::fmt::{self, Debug, Write as _};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One readable line per event.
    Text,
    /// One JSON object per line, with every field.
    Json,
}

/// Fields that programs need and people look up when they need them.
const QUIET: [&str; 3] = ["route", "event", "terminal"];

/// One line for people: time of day (UTC), level if it is none of the usual,
/// who, what happened, figures.
struct Readable;

impl<S, N> FormatEvent<S, N> for Readable
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Line::default();
        event.record(&mut line);
        let (word, colour) = match *event.metadata().level() {
            Level::ERROR => ("ERROR ", "\u{1b}[31m"),
            Level::WARN => ("WARN ", "\u{1b}[33m"),
            _ => ("", ""),
        };
        write!(out, "{}  ", chrono::Utc::now().format("%H:%M:%S"))?;
        if out.has_ansi_escapes() && !colour.is_empty() {
            write!(out, "{colour}{word}\u{1b}[0m")?;
        } else {
            write!(out, "{word}")?;
        }
        for part in [&line.who, &line.message, &line.what] {
            if !part.is_empty() {
                write!(out, "{part}  ")?;
            }
        }
        writeln!(out, "{}", line.rest.trim_end())
    }
}

/// An event's fields, sorted for a reader.
#[derive(Default)]
struct Line {
    who: String,
    message: String,
    what: String,
    rest: String,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field.name(), &format!("{value:?}"));
    }
}

impl Line {
    fn put(&mut self, name: &str, value: &str) {
        match name {
            "message" => value.clone_into(&mut self.message),
            "handler" => value.clone_into(&mut self.who),
            "what" => value.clone_into(&mut self.what),
            quiet if QUIET.contains(&quiet) => {}
            // Writing into a string cannot fail.
            name => write!(self.rest, "{name}={value}  ").unwrap_or_default(),
        }
    }
}

/// Starts logging to standard error. `POINTSMAN_LOG` sets the level
/// (`debug`, `pointsman::delivery=trace` ...); the default is `info`.
pub fn init_logs(format: LogFormat, colour: bool) {
    let filter = EnvFilter::try_from_env("POINTSMAN_LOG").unwrap_or_else(|_| {
        EnvFilter::new("error,pointsman=info,lapin=off,buoyant_kernel=off,delta_kernel=off")
    });
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second start in one process (tests) keeps the first one's settings.
    let started = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(colour).event_format(Readable).try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started before");
    }
}
