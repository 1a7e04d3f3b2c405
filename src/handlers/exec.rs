//! A program as a handler: the batch goes in as NDJSON (one envelope a line) on
//! standard input; exit code 0 means that all of it is done.
//!
//! The program may answer for single messages by printing one line of JSON,
//! `{"batchItemFailures": [{"itemIdentifier": EVENT_ID}]}`, as Lambda's
//! functions do. No shell is involved and the environment is clean.

use super::{Context, Done, Failure, Handler, Message, Outcome};
use futures::future::BoxFuture;
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// What can be said of a program, as it is used.
#[derive(Clone, Debug)]
pub struct ExecOptions {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The only environment variables it sees, besides `PATH`.
    pub env: BTreeMap<String, String>,
    /// Working folder.
    pub cwd: Option<PathBuf>,
    /// Most bytes of its output that are read.
    pub max_output: usize,
}

/// Runs a program for each batch.
pub struct ExecHandler {
    options: ExecOptions,
}

impl ExecHandler {
    /// A handler that runs `options.command`.
    #[must_use]
    pub fn new(options: ExecOptions) -> Self {
        Self { options }
    }

    async fn run(&self, batch: &[Message]) -> Result<HashSet<String>, Failure> {
        let Some((program, arguments)) = self.options.command.split_first() else {
            return Err(Failure::permanent("NoCommand", "`command` is empty"));
        };
        let path = match self.options.env.get("PATH") {
            Some(path) => path.into(),
            None => std::env::var_os("PATH").unwrap_or_default(),
        };
        let mut command = Command::new(found(program, &path));
        command
            .arg0(program)
            .args(arguments)
            .env_clear()
            .env("PATH", &path)
            .envs(&self.options.env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(cwd) = &self.options.cwd {
            command.current_dir(cwd);
        }
        let mut child = command.spawn().map_err(|e| {
            let class = if e.kind() == std::io::ErrorKind::NotFound {
                Failure::permanent
            } else {
                Failure::transient
            };
            class("CannotStart", format!("cannot start `{program}`: {e}"))
        })?;
        let input = lines(batch);
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let limit = self.options.max_output as u64;
        // All three at once: a program that writes before it has read everything
        // would otherwise wait for us while we wait for it.
        let write = async {
            if let Some(mut stdin) = stdin {
                // A program may exit without reading its input; its exit code tells.
                if stdin.write_all(&input).await.is_ok() {
                    stdin.shutdown().await.ok();
                }
            }
        };
        let ((), out, err) = tokio::join!(write, capture(stdout, limit), capture(stderr, limit));
        let status = child
            .wait()
            .await
            .map_err(|e| Failure::transient("CannotWait", format!("`{program}`: {e}")))?;
        if !status.success() {
            let said = String::from_utf8_lossy(&err);
            let mut failure =
                Failure::transient("ExitCode", format!("`{program}` ended with {status}"));
            failure
                .chain
                .extend(said.lines().rev().take(20).map(str::to_owned));
            return Err(failure);
        }
        Ok(failures(&out))
    }
}

impl Handler for ExecHandler {
    fn handle<'a>(&'a self, batch: &'a [Message], cx: &'a Context) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let ran = tokio::select! {
                ran = self.run(batch) => ran,
                () = cx.cancel.cancelled() => Err(Failure::transient("Cancelled", "stopped before the program ended")),
            };
            match ran {
                Err(failure) => Outcome::all_failed(batch.len(), &failure),
                Ok(failed) => Outcome::each(batch.iter().map(|m| answer(m, &failed)).collect()),
            }
        })
    }
}

/// Where a program is. The standard library would look for it in a copy of this process
/// instead, and to copy a large one takes longer than many a program.
fn found(program: &str, path: &OsStr) -> PathBuf {
    let named = PathBuf::from(program);
    let runs = |file: &PathBuf| {
        let found = std::fs::metadata(file);
        found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if named.components().count() != 1 {
        return named;
    }
    let mut files = std::env::split_paths(path).map(|folder| folder.join(program));
    files
        .find(runs)
        .filter(|f| f.is_absolute())
        .unwrap_or(named)
}

fn answer(message: &Message, failed: &HashSet<String>) -> Result<Done, Failure> {
    if failed.contains(message.event.id()) {
        return Err(Failure::transient(
            "ItemFailure",
            "the program named this event in `batchItemFailures`",
        ));
    }
    Ok(Done::default())
}

fn lines(batch: &[Message]) -> Vec<u8> {
    let bytes = batch
        .iter()
        .map(|message| message.payload().len() + 1)
        .sum();
    let mut input = Vec::with_capacity(bytes);
    for message in batch {
        // An envelope may hold line ends between its members; NDJSON must not.
        let text = message.payload();
        let value = match text.contains(&b'\n') {
            true => serde_json::from_slice::<serde_json::Value>(text).ok(),
            false => None,
        };
        match value {
            Some(value) => input.extend_from_slice(value.to_string().as_bytes()),
            None => input.extend_from_slice(text),
        }
        input.push(b'\n');
    }
    input
}

async fn capture(from: Option<impl tokio::io::AsyncRead + Unpin>, limit: u64) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(from) = from {
        let mut from = from.take(limit);
        // What cannot be read is not needed: the exit code decides.
        from.read_to_end(&mut kept).await.ok();
        // The rest is drained, so that the program does not die of a full pipe.
        tokio::io::copy(&mut from.into_inner(), &mut tokio::io::sink())
            .await
            .ok();
    }
    kept
}

#[derive(Deserialize)]
struct Report {
    #[serde(rename = "batchItemFailures", default)]
    failures: Vec<ItemFailure>,
}

#[derive(Deserialize)]
struct ItemFailure {
    #[serde(rename = "itemIdentifier")]
    id: String,
}

fn failures(output: &[u8]) -> HashSet<String> {
    output
        .split(|b| *b == b'\n')
        .filter_map(|line| serde_json::from_slice::<Report>(line).ok())
        .flat_map(|report| report.failures.into_iter().map(|f| f.id))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    #[test]
    fn a_program_is_found_on_the_path_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, mode| {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let (runs, _) = (file("runs", 0o755), file("text", 0o644));
        let path = OsString::from(format!("/nowhere:{}", folder.path().display()));
        assert_eq!(found("runs", &path), runs);
        for as_it_is in ["text", "absent", "./runs", "/runs"] {
            assert_eq!(found(as_it_is, &path), PathBuf::from(as_it_is));
        }
        assert_eq!(found("runs", OsStr::new("")), PathBuf::from("runs"));
    }

    #[test]
    fn a_report_names_the_messages_that_failed() {
        let output = b"working\n{\"batchItemFailures\":[{\"itemIdentifier\":\"b\"}]}\n";
        assert_eq!(failures(output), HashSet::from(["b".to_owned()]));
        assert!(failures(b"plain text").is_empty());
    }
}
