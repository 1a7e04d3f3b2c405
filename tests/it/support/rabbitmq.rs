//! A real RabbitMQ, started once per test process on free loopback ports, with a
//! virtual host per test.

use super::PATIENCE;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Where Debian has the programs.
const BIN: &str = "/usr/lib/rabbitmq/bin";

/// A broker of one's own.
pub struct RabbitMq {
    folder: TempDir,
    node: String,
    port: u16,
    dist: u16,
    epmd: u16,
    server: Option<Child>,
}

/// The broker that tests share. It is killed when the process ends, however that
/// happens.
pub fn shared() -> &'static RabbitMq {
    static SHARED: OnceLock<RabbitMq> = OnceLock::new();
    SHARED.get_or_init(RabbitMq::start)
}

/// Ends the server when its own standard input closes: so it does not outlive the
/// tests, even when they are killed.
const WATCH: &str = r#"exec 3<&0
"$0" </dev/null & pid=$!
cat <&3 >/dev/null
kill -9 $pid 2>/dev/null
wait
epmd -kill >/dev/null 2>&1"#;

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

impl RabbitMq {
    /// Starts a broker and waits until it takes connections.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Starts a broker with further lines of configuration.
    pub fn start_with(more: &str) -> Self {
        let mut broker = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            node: format!("pointsman{}@localhost", free_port()),
            port: free_port(),
            dist: free_port(),
            epmd: free_port(),
            server: None,
        };
        let home = broker.folder.path();
        fs::write(home.join(".erlang.cookie"), "pointsman").expect("a cookie");
        set_mode(&home.join(".erlang.cookie"), 0o400);
        let config = format!(
            "listeners.tcp.local = 127.0.0.1:{}\nloopback_users = none\nvm_memory_high_watermark.absolute = 400MB\ndisk_free_limit.absolute = 10MB\n{more}\n",
            broker.port
        );
        fs::write(home.join("rabbitmq.conf"), config).expect("a configuration");
        broker.boot();
        broker
    }

    fn in_env(&self, mut command: Command) -> Command {
        let home = self.folder.path();
        command
            .env("HOME", home)
            .env("RABBITMQ_NODENAME", &self.node)
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", self.dist.to_string())
            .env("ERL_EPMD_PORT", self.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_BASE", home)
            .env("RABBITMQ_MNESIA_BASE", home.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", home.join("log"))
            .env("RABBITMQ_CONFIG_FILE", home.join("rabbitmq"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", home.join("plugins"))
            .env("RABBITMQ_PID_FILE", home.join("pid"))
            .env("RABBITMQ_CONF_ENV_FILE", home.join("env.conf"))
            // The script becomes the server, instead of standing beside it.
            .env("RABBITMQ_ALLOW_INPUT", "1")
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-noinput -kernel inet_dist_use_interface {127,0,0,1}",
            );
        command
    }

    /// Starts the server, again after [`RabbitMq::stop`].
    pub fn boot(&mut self) {
        let log = fs::File::create(self.folder.path().join("out.log")).expect("a log");
        let mut command = Command::new("sh");
        command
            .args(["-c", WATCH])
            .arg(Path::new(BIN).join("rabbitmq-server"))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        self.server = Some(self.in_env(command).spawn().expect("a shell"));
        let begun = Instant::now();
        while !self.answers() {
            let log = self.log();
            assert!(
                begun.elapsed() < PATIENCE,
                "no RabbitMQ (`./test` installs it):\n{log}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Whether the broker greets us: it takes connections a little before it can
    /// serve them.
    fn answers(&self) -> bool {
        use std::io::{Read as _, Write as _};
        let Ok(mut stream) = TcpStream::connect_timeout(&self.address(), Duration::from_secs(1))
        else {
            return false;
        };
        stream
            .set_read_timeout(Some(Duration::from_secs(1)))
            .expect("a timeout");
        let mut answer = [0; 1];
        // Protocol header of AMQP 0-9-1; the answer is a method frame.
        stream.write_all(b"AMQP\x00\x00\x09\x01").is_ok()
            && stream.read_exact(&mut answer).is_ok()
            && answer[0] == 1
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("out.log")).unwrap_or_default()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Stops the server in good order; its data stays.
    pub fn stop(&mut self) {
        self.ctl(&["shutdown"]);
        self.kill();
    }

    /// `kill -9`; the data stays.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            drop(server.stdin.take());
            server.wait().expect("an end");
        }
    }

    /// Runs `rabbitmqctl`; its standard output. One at a time: each is a whole
    /// Erlang machine.
    pub fn ctl(&self, args: &[&str]) -> String {
        static ONE: Mutex<()> = Mutex::new(());
        let _one: MutexGuard<'_, ()> = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut command = Command::new(Path::new(BIN).join("rabbitmqctl"));
        command.args(args).stdin(Stdio::null());
        let output = self.in_env(command).output().expect("rabbitmqctl runs");
        assert!(
            output.status.success(),
            "rabbitmqctl {args:?}: {}{}",
            super::text(&output.stdout),
            super::text(&output.stderr)
        );
        super::text(&output.stdout)
    }

    /// A connection's URL. Tests share a virtual host and have queues of their own.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.address())
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
}
