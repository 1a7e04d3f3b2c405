//! A tiny harness round the real binary: a folder of its own, a running node,
//! and patience with a limit.

pub mod aws;
pub mod pages;
pub mod postgres;
pub mod proxy;
pub mod rabbitmq;
pub mod receiver;
pub mod redshift;
pub mod seaweedfs;

use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A project folder with the real program in it.
pub struct Project {
    folder: TempDir,
}

/// A running node; killed when dropped.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Project {
    /// An empty folder whose node listens on a free port.
    pub fn new() -> Self {
        let project = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        project.write("pointsman.yaml", "node: { listen: 127.0.0.1:0 }\n");
        project
    }

    /// A copy of the repository's shipped rules, schemas and examples.
    pub fn shipped() -> Self {
        let project = Self::new();
        for folder in ["rules", "schemas", "examples"] {
            copy(&repo().join(folder), &project.path(folder));
        }
        project
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// Writes a file, and the folders above it.
    pub fn write(&self, relative: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        fs::write(&path, content).expect("a file");
        path
    }

    /// Writes a file elsewhere and renames it in, as a careful sender does.
    pub fn drop_in(&self, relative: &str, content: impl AsRef<[u8]>) {
        let staged = self.write(&format!(".staged/{}", relative.replace('/', "-")), content);
        let path = self.path(relative);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        fs::rename(staged, path).expect("a rename");
    }

    /// A command of the program in this folder, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        command
            .current_dir(self.root())
            .args(args)
            .env("NO_COLOR", "1")
            .env_remove("POINTSMAN_LOG")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the program runs")
    }

    /// Runs a command with this standard input.
    pub fn run_with(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input).ok());
        let output = child.wait_with_output().expect("the program ends");
        writer.join().expect("the writer ends");
        output
    }

    /// Runs a command that must succeed; its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "{args:?} ended with {}: {}{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Runs a command that prints one JSON document.
    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).expect("JSON")
    }

    /// Runs a command that prints a JSON document a line.
    pub fn json_lines(&self, args: &[&str]) -> Vec<Value> {
        self.ok(args)
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    /// Starts `pointsman run` and waits until it answers.
    pub fn start(&self) -> Running {
        self.start_with(&[])
    }

    /// Starts `pointsman run` with arguments and waits until it answers.
    pub fn start_with(&self, args: &[&str]) -> Running {
        let mut all = vec!["run"];
        all.extend(args);
        self.start_command(self.command(&all))
    }

    /// Starts a node by a command of one's own and waits until it answers.
    pub fn start_command(&self, command: Command) -> Running {
        // Asking it would open the data folder while it does not answer yet.
        let before = fs::read_to_string(self.path("node.log")).unwrap_or_default();
        let mut running = self.spawn(command);
        let begun = Instant::now();
        while !running.log()[before.len()..].contains("runs; Ctrl-C stops it") {
            let ended = running.child.try_wait().expect("a status").is_some();
            assert!(
                begun.elapsed() < PATIENCE && !ended,
                "no answer:\n{}",
                running.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        running
    }

    /// Starts `pointsman run` and does not wait.
    pub fn start_unchecked(&self, args: &[&str]) -> Running {
        let mut all = vec!["run"];
        all.extend(args);
        self.spawn(self.command(&all))
    }

    fn spawn(&self, mut command: Command) -> Running {
        let log = self.path("node.log");
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log file");
        let child = command
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .expect("the program starts");
        Running { child, log }
    }

    /// Waits until nothing is pending on any route that has a consumer.
    pub fn wait_idle(&self) {
        self.wait("idle", || {
            let routes = self.json(&["queues", "--json"]);
            let at_broker = |r: &Value| {
                let broker = &r["broker"];
                let some = |name: &str| broker[name].as_u64().is_some_and(|n| n > 0);
                broker["error"].is_string() || some("ready") || some("unsettled") || some("here")
            };
            let waits = |r: &Value| r["worked"] == true && (r["pending"] != 0 || at_broker(r));
            !routes.as_array().expect("routes").iter().any(waits)
        });
    }

    /// The single number that a query answers, or `None` while it fails.
    pub fn count(&self, sql: &str) -> Option<i64> {
        let output = self.run(&["query", sql, "--format", "csv"]);
        if !output.status.success() {
            return None;
        }
        text(&output.stdout).lines().nth(1)?.parse().ok()
    }

    /// Waits until `count` is at least `wanted`, for as long as it grows.
    pub fn wait_for_count(&self, what: &str, wanted: usize, mut count: impl FnMut() -> usize) {
        let (mut most, mut since) = (count(), Instant::now());
        while most < wanted {
            std::thread::sleep(Duration::from_millis(100));
            let now = count();
            if now > most {
                (most, since) = (now, Instant::now());
            }
            let log = || fs::read_to_string(self.path("node.log")).unwrap_or_default();
            assert!(
                since.elapsed() < PATIENCE,
                "{what}: {most} of {wanted}, and no more come:\n{}",
                log()
            );
        }
    }

    /// Waits until `true`.
    pub fn wait(&self, what: &str, mut done: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !done() {
            let log = || fs::read_to_string(self.path("node.log")).unwrap_or_default();
            assert!(
                begun.elapsed() < PATIENCE,
                "waited too long for {what}:\n{}",
                log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Running {
    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The address of its HTTP interface, as it says in its log.
    pub fn url(&self) -> String {
        let log = self.log();
        let at = log.rfind("http=http://").expect("an address in the log") + "http=".len();
        let rest = &log[at..];
        rest[..rest.find([' ', '\n']).unwrap_or(rest.len())].to_owned()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().expect("a kill");
        self.child.wait().expect("an end");
    }

    /// SIGTERM, and the exit code.
    pub fn stop(mut self) -> i32 {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        self.end()
    }

    fn end(&mut self) -> i32 {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a status") {
                return status.code().unwrap_or(-1);
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "it does not stop:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a status").is_some()
    }

    /// Waits for it to end by itself.
    pub fn wait(mut self) -> i32 {
        self.end()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The repository's root.
pub fn repo() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder to read") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// Runs Python with the readers that `./test` installs.
pub fn python(script: &str, args: &[&str]) -> String {
    let python = std::env::var("POINTSMAN_TEST_PYTHON").unwrap_or_else(|_| {
        let home = std::env::var("HOME").unwrap_or_default();
        format!("{home}/.cache/pointsman/venv/bin/python")
    });
    let output = Command::new(&python)
        .arg("-c")
        // Threads of libraries may still run at the end, and have aborted Python
        // while it took itself apart.
        .arg(format!(
            "{script}\nimport os, sys\nsys.stdout.flush()\nos._exit(0)\n"
        ))
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("cannot run {python}: {e}; `./test` installs it"));
    assert!(output.status.success(), "python: {}", text(&output.stderr));
    text(&output.stdout)
}
