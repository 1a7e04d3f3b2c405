//! PostgreSQL servers: started in folders of their own on free ports, ended with
//! the tests, whatever becomes of them.

use super::{PATIENCE, text};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// The password of the server's only user.
pub const PASSWORD: &str = "let me/in";

/// A server. It ends when its keeper's standard input is closed, so at the
/// latest with the process of the tests.
pub struct Postgres {
    folder: PathBuf,
    keeper: Child,
    pub port: u16,
}

/// A database of a server.
pub struct Database<'a> {
    pub server: &'a Postgres,
    pub name: String,
}

/// Runs a server; each line on standard input stops it without any care and
/// starts it again, the end of it removes the folder.
const KEEPER: &str = r#"
folder=$1; shift
"$@" >>"$folder/log" 2>&1 & pid=$!
while read -r _; do
  kill -QUIT $pid; wait $pid
  "$@" >>"$folder/log" 2>&1 & pid=$!
done
kill -QUIT $pid; wait $pid
rm -rf "$folder"
"#;

/// The server that tests share.
pub fn shared() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(Postgres::start)
}

/// The folder of the newest installed server.
fn programs() -> PathBuf {
    let root = Path::new("/usr/lib/postgresql");
    let mut found: Vec<PathBuf> = std::fs::read_dir(root)
        .map(|entries| entries.flatten().map(|e| e.path().join("bin")).collect())
        .unwrap_or_default();
    found.retain(|folder| folder.join("initdb").exists());
    found.sort();
    found.pop().expect("PostgreSQL; `./test` installs it")
}

/// A command as a user that a server runs as: it refuses to run as root.
fn as_user(program: PathBuf) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
        .arg(program);
    command
}

fn must(command: &mut Command) -> String {
    let output = command.output().expect("a program that runs");
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

impl Postgres {
    /// Starts a server of its own.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("pg").tempdir();
        let folder = folder.expect("a temporary folder").keep();
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(&folder, open).expect("permissions");
        certificate(&folder);
        let (data, password) = (folder.join("data"), folder.join("password"));
        std::fs::write(&password, PASSWORD).expect("a file");
        must(
            as_user(programs().join("initdb"))
                .args(["-N", "-U", "postgres", "-E", "UTF8", "--locale=C"])
                .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
                .arg(format!("--pwfile={}", password.display()))
                .arg("-D")
                .arg(&data),
        );
        // Bound for a moment to find a port that is free.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
        let port = port.expect("a free port").port();
        let run = as_user(programs().join("postgres"));
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "sh"]).arg(&folder);
        keeper.arg(run.get_program()).args(run.get_args());
        keeper.arg("-D").arg(&data).arg("-k").arg(&folder);
        keeper.args(["-p", &port.to_string(), "-h", "127.0.0.1"]);
        // What a power cut would lose is of no interest here.
        for setting in [
            "fsync=off",
            "max_connections=40",
            "ssl=on",
            "log_statement=none",
        ] {
            keeper.args(["-c", setting]);
        }
        for (name, file) in [
            ("ssl_cert_file", "server.crt"),
            ("ssl_key_file", "server.key"),
        ] {
            let value = folder.join(file);
            keeper.args(["-c", &format!("{name}={}", value.display())]);
        }
        let keeper = keeper
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let server = Self {
            folder,
            keeper,
            port,
        };
        server.wait();
        server
    }

    fn wait(&self) {
        let begun = Instant::now();
        while !self.answers() {
            let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(
                begun.elapsed() < PATIENCE,
                "Postgres does not start:\n{log}"
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    fn answers(&self) -> bool {
        let output = self.psql("postgres").args(["-c", "select 1"]).output();
        output.is_ok_and(|o| o.status.success())
    }

    /// Stops the server in the middle of what it does, and starts it again.
    pub fn crash(&mut self) {
        let before = self.sql("postgres", "select pg_postmaster_start_time()");
        let stdin = self.keeper.stdin.as_mut().expect("a pipe");
        stdin.write_all(b"again\n").expect("a keeper that listens");
        let begun = Instant::now();
        loop {
            let mut psql = self.psql("postgres");
            psql.args(["-c", "select pg_postmaster_start_time()"]);
            let output = psql.output().expect("psql");
            if output.status.success() && text(&output.stdout).trim() != before {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "Postgres does not come back");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// A new database.
    pub fn database(&self) -> Database<'_> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("d{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("create database {name}"));
        Database { server: self, name }
    }

    /// The certificate that the server shows, which is its own authority.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("server.crt")
    }

    /// psql in a database, over the socket.
    pub fn psql(&self, database: &str) -> Command {
        let mut command = Command::new(programs().join("psql"));
        command
            .arg("-h")
            .arg(&self.folder)
            .args([
                "-p",
                &self.port.to_string(),
                "-U",
                "postgres",
                "-d",
                database,
            ])
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"]);
        command
    }

    fn sql(&self, database: &str, sql: &str) -> String {
        must(self.psql(database).args(["-c", sql]))
            .trim_end()
            .to_owned()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().ok();
    }
}

impl Database<'_> {
    /// Runs SQL; rows as lines, with `|` between values and nothing for null.
    pub fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.name, sql)
    }

    /// As a connection in YAML, over TCP with a password.
    pub fn connection(&self) -> String {
        format!(
            "{{ postgres: {{ host: 127.0.0.1, port: {}, user: postgres, password: \"{PASSWORD}\", database: {}, tls: disable }} }}",
            self.server.port, self.name
        )
    }
}

/// A certificate for `localhost`, signed by itself.
fn certificate(folder: &Path) {
    let (key, certificate) = (folder.join("server.key"), folder.join("server.crt"));
    must(
        Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args(["-nodes", "-days", "2", "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate),
    );
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&key, private).expect("permissions");
    if rustix::process::geteuid().is_root() {
        must(Command::new("chown").arg("postgres").arg(&key));
    }
}
