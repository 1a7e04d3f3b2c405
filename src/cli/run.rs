//! `pointsman run`

use super::args::RunArgs;
use super::signals::{Interrupts, hangups, reloads};
use super::{Answer, CliError, colour, talk};
use crate::api::Server;
use crate::app::{Mode, Node};
use crate::config::{Config, Queue};
use crate::error::render_all;
use crate::handlers::Progress;
use crate::observe::init_logs;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// What the allocator is told. Left to itself it takes memory in advance and keeps what
/// is freed for a second; pieces of many sizes that come and go on many threads then
/// leave up to twice the memory behind that is in use, which is what bounds a query. See
/// `mi_option_t` in mimalloc's manual.
const ALLOCATOR: [(&str, &str); 2] = [
    ("MIMALLOC_ARENA_EAGER_COMMIT", "0"),
    ("MIMALLOC_PURGE_DELAY", "10"),
];

/// Starts the program once more with [`ALLOCATOR`] in its environment, which is read
/// before `main`, under the same process id. Where somebody has set one of them, both
/// stay as they are.
pub(super) fn tell_allocator() {
    use std::os::unix::process::CommandExt;
    if ALLOCATOR
        .iter()
        .any(|(name, _)| std::env::var_os(name).is_some())
    {
        return;
    }
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let mut args = std::env::args_os();
    let mut again = std::process::Command::new(program);
    if let Some(name) = args.next() {
        again.arg0(name);
    }
    // It returns only if it failed: then all goes on as it is.
    let error = again.args(args).envs(ALLOCATOR).exec();
    tracing::warn!(%error, "the allocator was not told to be frugal");
}

pub(super) async fn run(args: RunArgs) -> Result<Answer, CliError> {
    init_logs(args.log, colour());
    tell_allocator();
    let root = args.root.as_deref().unwrap_or(&args.dir);
    let loaded = crate::app::load(root);
    if !loaded.diagnostics.is_empty() {
        talk(&render_all(&loaded.diagnostics, &loaded.sources, colour()));
    }
    let Some(mut config) = loaded.config else {
        return Err(
            CliError::new("the configuration has errors, so nothing was started")
                .hint("`pointsman check` finds them without starting anything"),
        );
    };
    if let Some(listen) = args.listen {
        config.node.listen = listen;
    }
    let config = Arc::new(config);
    raise_file_limit();
    let (mut interrupts, hangups) = (Interrupts::listen(), hangups());
    let node = Node::open(Arc::clone(&config), Mode::Run, crate::clock::system())
        .await
        .map_err(|e| CliError::new(e.to_string()))?;
    let node = Arc::new(node);
    let stop = CancellationToken::new();
    // From here on there is work to hand back, so mistakes stop in good order, too.
    let served = serve(&node, &config, &stop).await;
    let (server, failed) = match served {
        Ok(server) => (Some(server), None),
        Err(error) => (None, Some(error)),
    };
    if failed.is_none() {
        tokio::spawn(tell_progress(node.progress.subscribe()));
        tokio::select! {
            ended = wait(&node, args.until_idle, &mut interrupts) => ended?,
            () = reloads(Arc::clone(&node), args.watch, hangups) => {}
        }
    }
    tracing::info!(
        within_seconds = config.node.shutdown.as_secs_f64(),
        "stopping; a second signal stops at once"
    );
    stop.cancel();
    tokio::select! {
        closed = node.shutdown() => {
            closed.map_err(|e| CliError::new(format!("the log was not closed in good order: {e}")))?;
        }
        () = interrupts.next() => {
            talk("stopping at once; what was not finished is done after the next start");
            return Ok(Answer::Yes);
        }
    }
    if let Some(server) = server {
        server.await.ok();
    }
    tracing::info!("stopped");
    failed.map_or(Ok(Answer::Yes), Err)
}

/// Endpoints and subscribers are connections, so as many are allowed as the system
/// lets a process have; the usual soft limit is for programs that still use `select`.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

async fn serve(
    node: &Arc<Node>,
    config: &Config,
    stop: &CancellationToken,
) -> Result<tokio::task::JoinHandle<()>, CliError> {
    let server = Server::bind(config.node.listen, &config.node.data)
        .await
        .map_err(|e| {
            CliError::new(e.to_string())
                .hint("choose another address with `node: { listen: ... }` or --listen (port 0 takes a free one)")
        })?;
    let address = server.address()?;
    node.links().listening(&format!("http://{address}"));
    tracing::info!(
        http = %format!("http://{address}"), data = %config.node.data.display(),
        sources = config.sources.len(), rules = config.rules.len(), handlers = config.handlers.len(),
        "pointsman {} runs; Ctrl-C stops it", env!("CARGO_PKG_VERSION")
    );
    Ok(tokio::spawn(server.serve(Arc::clone(node), stop.clone())))
}

/// Waits for a signal, or until there has been nothing to do for a while.
async fn wait(
    node: &Node,
    until_idle: Option<f64>,
    interrupts: &mut Interrupts,
) -> Result<(), CliError> {
    let Some(seconds) = until_idle else {
        interrupts.next().await;
        return Ok(());
    };
    let quiet = Duration::try_from_secs_f64(seconds)
        .map_err(|e| CliError::new(format!("--until-idle: {e}")))?;
    tokio::select! {
        () = interrupts.next() => {}
        () = idle(node, quiet) => {}
    }
    Ok(())
}

/// Resolves when nothing was pending and nothing came for `quiet`.
async fn idle(node: &Node, quiet: Duration) {
    let mut since = Instant::now();
    let mut last = node.bus.next_seq();
    loop {
        if since.elapsed() >= quiet {
            if at_rest(node, last).await {
                return;
            }
            since = Instant::now();
        }
        for folder in node.folders().values() {
            // A source that has ended brings nothing more, so it is idle.
            folder.wait_idle().await.ok();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let next = node.bus.next_seq();
        let listing = node.buckets().values().any(|bucket| bucket.is_starting());
        let busy = next != last || listing || node.has_work();
        last = next;
        if busy {
            since = Instant::now();
        }
    }
}

/// Longer than a message takes from a broker to here.
const IN_TRANSIT: Duration = Duration::from_millis(500);

/// Whether nothing waits at a broker either, and nothing has come meanwhile. Asked
/// twice: what is on its way from a broker is for a moment neither there nor here.
async fn at_rest(node: &Node, last: u64) -> bool {
    let queues = &node.config().queues;
    let on_brokers = |q: &Queue| q.on.is_broker() || q.drain_from.is_some();
    let again = queues.values().any(on_brokers).then_some(IN_TRANSIT);
    for pause in std::iter::once(Duration::ZERO).chain(again) {
        tokio::time::sleep(pause).await;
        let busy = node.brokers_have_work().await || node.has_work();
        if busy || node.bus.next_seq() != last {
            return false;
        }
    }
    true
}

/// Tells how far long work has come: on a terminal in place, elsewhere as log lines.
async fn tell_progress(mut progress: broadcast::Receiver<Progress>) {
    let terminal = std::io::stderr().is_terminal();
    loop {
        match progress.recv().await {
            Ok(at) => {
                let share = at
                    .total_bytes
                    .filter(|t| *t > 0)
                    .map(|total| format!("{}%", at.bytes.saturating_mul(100) / total));
                tracing::info!(
                    what = at.what,
                    rows = at.rows,
                    mib = at.bytes >> 20,
                    done = share.as_deref().unwrap_or("?"),
                    terminal,
                    "working"
                );
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}
