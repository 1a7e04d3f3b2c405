//! Every command and its arguments.

use super::check::{CheckArgs, ExplainArgs};
use crate::observe::LogFormat;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// Routes events by declarative rules: from a folder, a bucket or HTTP, through
/// queues and handlers, into files, tables and topics.
#[derive(Parser)]
#[command(name = "pointsman", version, max_term_width = 100)]
pub(super) struct Cli {
    #[command(flatten)]
    pub at: At,
    #[command(subcommand)]
    pub command: Command,
}

/// Which node a command talks to.
#[derive(Args, Clone)]
pub(super) struct At {
    /// Folder of the configuration (`pointsman.yaml`, `rules/`). A node that runs
    /// there is asked; when none runs, its data folder is opened directly.
    #[arg(long, global = true, default_value = ".", value_name = "DIR")]
    pub dir: PathBuf,
    /// Talk to a node at this address instead, for example http://127.0.0.1:7070.
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Run a node: watch sources, route events, work on queues. Ctrl-C stops it in good order.
    Run(RunArgs),
    /// Find everything that is wrong with the configuration, and run the rules' tests.
    Check(CheckArgs),
    /// Show the configuration with every default filled in.
    Plan(PlanArgs),
    /// Put the files in force on the running node; a mistake leaves the old rules.
    Reload(ReloadArgs),
    /// Send events: one, a JSON array or one per line.
    Send(SendArgs),
    /// Try patterns against events, and say why they match or not.
    Match(MatchArgs),
    /// Look at the events in the log.
    Events(EventsArgs),
    /// Show where an event came from, what became of it, and what it caused.
    Trace(TraceArgs),
    /// List routes and what waits on them; pause and resume them.
    #[command(visible_alias = "routes")]
    Queues(QueuesArgs),
    /// List topics and their subscriptions, and how these stand; disable and enable them.
    Topics(TopicsArgs),
    /// Show how the sources stand.
    Sources(SourcesArgs),
    /// Print the messages of a topic as they come.
    Subscribe(SubscribeArgs),
    /// Look at what failed for good; send it again or drop it.
    Dlq(DlqArgs),
    /// Give events of the past to a route again; list and cancel replays.
    Replay(ReplayArgs),
    /// Check every byte of the data folder of a stopped node; exit code 1 if something is
    /// damaged.
    Doctor(DoctorArgs),
    /// Print the ledger; exit code 1 if it does not add up.
    Audit(JsonArgs),
    /// Run SQL over the lake and the warehouse.
    Query(QueryArgs),
    /// Put small files of the warehouse together and remove old ones.
    Maintain(MaintainArgs),
    /// List the drivers that are built in, and what each can be.
    Drivers(JsonArgs),
    /// Explain an error code, such as P0101.
    Explain(ExplainArgs),
    /// Print the JSON Schema of the configuration, for editors; or infer one from events.
    Schema(SchemaArgs),
    /// Measure this machine with a node of its own in a folder that is removed afterwards.
    Bench {
        #[command(subcommand)]
        what: BenchCommand,
    },
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Args)]
pub(super) struct SourcesArgs {
    #[command(subcommand)]
    pub what: Option<SourcesCommand>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub(super) enum SourcesCommand {
    /// Look through all of a source now, and wait until that is done
    Rescan {
        /// The source
        source: String,
    },
    /// Forget files or objects, so that those that are there are taken again
    Forget {
        /// The source
        source: String,
        /// A path, or a glob as in `include`
        which: String,
    },
}

#[derive(Args)]
pub(super) struct JsonArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct TopicsArgs {
    #[command(flatten)]
    pub list: JsonArgs,
    #[command(subcommand)]
    pub command: Option<TopicsCommand>,
}

#[derive(Subcommand)]
pub(super) enum TopicsCommand {
    /// Let the messages of a webhook's subscription flow again.
    Enable {
        /// The subscription.
        #[arg(value_name = "TOPIC/NAME")]
        subscription: String,
    },
    /// Hold the messages of a webhook's subscription.
    Disable {
        /// The subscription.
        #[arg(value_name = "TOPIC/NAME")]
        subscription: String,
        /// Why; `topics` shows it.
        #[arg(long)]
        why: String,
    },
}

#[derive(Args)]
pub(super) struct RunArgs {
    /// Folder of the configuration.
    #[arg(value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// How log lines look.
    #[arg(long, value_enum, default_value = "text")]
    pub log: LogFormat,
    /// Address of the HTTP interface, instead of the configured one.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<std::net::SocketAddr>,
    /// Stop when everything that was there is done and nothing has come for this
    /// many seconds.
    #[arg(long, value_name = "SECONDS")]
    pub until_idle: Option<f64>,
    /// Reload when a file of the configuration changes. Without it, `pointsman
    /// reload` and SIGHUP do.
    #[arg(long)]
    pub watch: bool,
    #[arg(from_global)]
    pub dir: PathBuf,
}

#[derive(Args)]
pub(super) struct PlanArgs {
    /// Folder of the configuration.
    #[arg(value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct QueuesArgs {
    #[command(subcommand)]
    pub what: Option<QueuesCommand>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub(super) enum QueuesCommand {
    /// Hand out nothing more; what waits and what comes is kept.
    Pause {
        /// A route, or a queue: then every route that leads to it.
        name: String,
    },
    /// End a pause.
    Resume {
        /// A route, or a queue: then every route that leads to it.
        name: String,
    },
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct ReplayArgs {
    #[command(subcommand)]
    pub what: Option<ReplayCommand>,
    /// The route that gets the events, for example `csv-arrived/to-transform`.
    #[arg(long, required = true)]
    pub route: Option<String>,
    /// Events accepted since: `2013-01-01T00:00:00Z`, `2013-01-01`, `7d` (ago) or `earliest`.
    #[arg(long, value_name = "TIME", required = true)]
    pub from: Option<String>,
    /// Events accepted before: a time as for --from.
    #[arg(long, value_name = "TIME", default_value = "now")]
    pub to: String,
    /// Only events that this pattern matches (JSON text), besides the rule's.
    #[arg(long, value_name = "JSON")]
    pub filter: Option<String>,
    /// Its name, which handlers see as `replay-name` (default: one is made up).
    #[arg(long)]
    pub name: Option<String>,
    /// Do not wait until all events are given to the route.
    #[arg(long)]
    pub detach: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub(super) enum ReplayCommand {
    /// List replays and how far they have come, the newest first.
    List {
        /// Print JSON, one replay a line.
        #[arg(long)]
        json: bool,
    },
    /// Stop a replay and withdraw what nobody has received yet.
    Cancel {
        /// Its name.
        name: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
pub(super) struct DoctorArgs {
    /// Repair what is safe: cut off an unfinished write, build indexes again, write
    /// damage down as known. No sound byte is removed.
    #[arg(long)]
    pub repair: bool,
    /// The data folder, instead of the configured one.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(super) struct ReloadArgs {
    /// Where the messages go that wait on a route whose rule is gone:
    /// `ROUTE=drop` or `ROUTE=move-to:OTHER`. May be given again.
    #[arg(long, value_name = "ROUTE=WHERE")]
    pub backlog: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(super) struct SendArgs {
    /// File with the events; `-` or nothing: standard input.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Bus that they go to.
    #[arg(long, default_value = "default")]
    pub bus: String,
    /// Print the answer as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(super) struct MatchArgs {
    /// Pattern: JSON text, or `@FILE`.
    #[arg(long, value_name = "JSON")]
    pub pattern: Option<String>,
    /// Event: JSON text, or `@FILE`; without it, standard input.
    #[arg(long, value_name = "JSON")]
    pub event: Option<String>,
    /// Try the rules of this folder instead of one pattern.
    #[arg(long, value_name = "DIR")]
    pub rules: Option<PathBuf>,
    /// Bus whose rules are tried.
    #[arg(long, default_value = "default")]
    pub bus: String,
    /// Say, clause by clause, what was wanted and what was seen.
    #[arg(long)]
    pub explain: bool,
    /// List the rules that come closest, this many.
    #[arg(long, value_name = "N")]
    pub near: Option<usize>,
    /// Read NDJSON `{"id", "pattern", "event"}` and write `{"id", "match"}` or `{"id", "invalid"}`; both where a pattern is only too complex.
    #[arg(long, conflicts_with_all = ["pattern", "event", "rules", "explain", "near"])]
    pub batch: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(super) struct EventsArgs {
    #[command(subcommand)]
    pub what: EventsCommand,
}

#[derive(Subcommand)]
pub(super) enum EventsCommand {
    /// Print events as they come.
    Tail {
        /// Only this bus.
        #[arg(long)]
        bus: Option<String>,
        /// Only events that this pattern matches (JSON text).
        #[arg(long, value_name = "JSON")]
        pattern: Option<String>,
        /// Print JSON, one event a line.
        #[arg(long)]
        json: bool,
    },
    /// Show one event.
    Show {
        /// Its id or sequence number.
        id: String,
    },
    /// List events, the newest last.
    List {
        /// Only this bus.
        #[arg(long)]
        bus: Option<String>,
        /// Begin at this sequence number.
        #[arg(long)]
        from: Option<u64>,
        /// At most this many.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Only this `detail-type`.
        #[arg(long)]
        detail_type: Option<String>,
        /// Only events that no rule matched.
        #[arg(long)]
        unmatched: bool,
        /// Print JSON, one event a line.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
pub(super) struct TraceArgs {
    /// Id or sequence number of any event of the tree.
    pub id: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(super) struct SubscribeArgs {
    /// The topic.
    pub topic: String,
    /// A declared `pull` subscription: what came while nobody listened is kept for it.
    #[arg(long)]
    pub name: Option<String>,
    /// Only messages that this pattern matches (JSON text).
    #[arg(long, value_name = "JSON", conflicts_with = "name")]
    pub filter: Option<String>,
    /// Stop after this many messages.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Print JSON, one message a line.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(super) struct DlqArgs {
    #[command(subcommand)]
    pub what: DlqCommand,
}

/// Which dead letters are meant.
#[derive(Args, Clone, Default)]
pub(super) struct Meant {
    /// Only this route.
    #[arg(long)]
    pub route: Option<String>,
    /// Only this event, by sequence number.
    #[arg(long)]
    pub seq: Option<u64>,
    /// Only events that this pattern matches (JSON text).
    #[arg(long, value_name = "JSON")]
    pub filter: Option<String>,
    /// Only this cause: the code or class of the last error.
    #[arg(long)]
    pub cause: Option<String>,
}

#[derive(Subcommand)]
pub(super) enum DlqCommand {
    /// List dead letters.
    List {
        #[command(flatten)]
        meant: Meant,
        /// Count them by `cause` instead.
        #[arg(long, value_name = "cause", value_parser = ["cause"])]
        group_by: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Print JSON, one letter a line.
        #[arg(long)]
        json: bool,
    },
    /// Show one dead letter, whole.
    Show {
        /// Sequence number of the event.
        seq: u64,
        /// Only on this route.
        #[arg(long)]
        route: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Send dead letters again; attempts start anew.
    Redrive {
        #[command(flatten)]
        meant: Meant,
        /// All of them.
        #[arg(long)]
        all: bool,
        /// The route that they go to; SAME: each to its own.
        #[arg(long, value_name = "SAME|ROUTE", default_value = "SAME")]
        to: String,
        /// At most so many: `10/s`, `600/m`, or a number a second.
        #[arg(long, value_name = "N/s")]
        rate: Option<String>,
    },
    /// Send a dead letter again with other contents. The first event stays in the log
    /// as it came; the new one is caused by it. Without --detail or --event, $VISUAL
    /// or $EDITOR opens on the event.
    Edit {
        /// Sequence number of the event.
        seq: u64,
        /// The route, where the event lies on several.
        #[arg(long)]
        route: Option<String>,
        /// The new `detail`: JSON text, or `@FILE`.
        #[arg(long, value_name = "JSON", conflicts_with = "event")]
        detail: Option<String>,
        /// The whole new event: JSON text, or `@FILE`.
        #[arg(long, value_name = "JSON")]
        event: Option<String>,
        /// The route that it goes to; SAME: its own.
        #[arg(long, value_name = "SAME|ROUTE", default_value = "SAME")]
        to: String,
    },
    /// Drop dead letters for good.
    Purge {
        #[command(flatten)]
        meant: Meant,
        /// All of them.
        #[arg(long)]
        all: bool,
        /// Why; the log keeps it.
        #[arg(long)]
        why: String,
    },
}

#[derive(Args)]
pub(super) struct QueryArgs {
    /// The query, for example "select count(*) from flights".
    pub sql: String,
    /// How the answer looks.
    #[arg(long, value_enum, default_value = "table")]
    pub format: QueryFormat,
    /// At most this many rows.
    #[arg(long, default_value_t = 10_000)]
    pub limit: usize,
    /// Longest time, for example `30s` or `10m`.
    #[arg(long, default_value = "5m", value_parser = crate::config::parse_duration)]
    pub timeout: Duration,
    /// Say how the query would be run: which files would be read, which not.
    #[arg(long)]
    pub explain: bool,
    /// Write the answer to this file.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct MaintainArgs {
    /// Tables of the warehouse; all of them without.
    pub tables: Vec<String>,
    /// Files that only older versions need are removed, for example `7d`.
    #[arg(long, default_value = "7d", value_parser = crate::config::parse_duration)]
    pub keep: Duration,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// How a query's answer looks.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum QueryFormat {
    /// A table for people.
    Table,
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object a line.
    Json,
    /// A Parquet file; needs `--output`, or a pipe.
    Parquet,
}

#[derive(Args)]
pub(super) struct SchemaArgs {
    #[command(subcommand)]
    pub what: Option<SchemaCommand>,
}

#[derive(Subcommand)]
pub(super) enum SchemaCommand {
    /// Write a schema of an event type from the events in the log. Saved in
    /// `schemas/`, it is what events of that type are checked by when they arrive.
    Infer {
        /// `source` of the events.
        #[arg(long)]
        source: String,
        /// `detail-type` of the events.
        #[arg(long)]
        detail_type: String,
        /// Look at this many of the newest events.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
    },
}

#[derive(Subcommand)]
pub(super) enum BenchCommand {
    /// From HTTP through rules and the log to consumers that acknowledge.
    Bus(BenchBusArgs),
}

#[derive(Args)]
pub(super) struct BenchBusArgs {
    /// Bytes of an event as it is sent.
    #[arg(long, default_value_t = 1024)]
    pub size: usize,
    /// Routes that each event goes to.
    #[arg(long, default_value_t = 2)]
    pub routes: usize,
    /// Rules that are matched; each event matches one.
    #[arg(long, default_value_t = 1_000)]
    pub rules: usize,
    /// Events in a request.
    #[arg(long, default_value_t = 100)]
    pub batch: usize,
    /// Connections that publish at once.
    #[arg(long, default_value_t = 4)]
    pub publishers: usize,
    /// How long each part publishes.
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    pub seconds: f64,
    /// Measure first what the disk gives: a plain file, synced after each batch.
    #[arg(long)]
    pub durable: bool,
    /// Folder on the disk to measure (default: the system's temporary folder).
    #[arg(long, value_name = "FOLDER")]
    pub at: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
