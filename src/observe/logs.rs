//! Where log lines go: to people on a terminal, or to a collector as JSON.

use std::fmt;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One readable line per event.
    Text,
    /// One JSON object per line.
    Json,
}

/// The time of day in UTC, which is what a person at a terminal wants to see.
struct TimeOfDay;

impl FormatTime for TimeOfDay {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        write!(w, "{}", chrono::Utc::now().format("%H:%M:%S"))
    }
}

/// Starts logging to standard error. `POINTSMAN_LOG` sets the level
/// (`debug`, `pointsman::delivery=trace` ...); the default is `info`.
pub fn init_logs(format: LogFormat, colour: bool) {
    let filter = EnvFilter::try_from_env("POINTSMAN_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,pointsman=info,buoyant_kernel=off,delta_kernel=off"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second start in one process (tests) keeps the first one's settings.
    let started = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder
            .with_ansi(colour)
            .with_target(false)
            .with_timer(TimeOfDay)
            .try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started before");
    }
}
