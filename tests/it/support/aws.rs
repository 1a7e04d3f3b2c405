//! A server that speaks SQS and SNS (moto), started once per test process on a
//! free loopback port.

use super::{PATIENCE, python};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The server.
pub struct Aws {
    folder: TempDir,
    port: u16,
    /// Its standard input ends with this process, and the server with that.
    _server: Child,
}

/// The server that tests share.
pub fn shared() -> &'static Aws {
    static SHARED: OnceLock<Aws> = OnceLock::new();
    SHARED.get_or_init(Aws::start)
}

/// Ends the server when its own standard input closes: so it does not outlive the
/// tests, even when they are killed.
const WATCH: &str = r#"exec 3<&0
"$0" "$@" </dev/null & pid=$!
cat <&3 >/dev/null
kill -9 $pid 2>/dev/null
wait"#;

/// The server puts a queue's messages into a new list when one is deleted, and loses
/// one that comes in at that moment. No queue of Amazon's does that, so both wait for
/// each other here.
const CAREFUL: &str = r#"
from moto.server import main
from moto.sqs import models
real = models.Queue.delete_message
def delete_message(self, receipt_handle):
    with self._messages_lock:
        return real(self, receipt_handle)
models.Queue.delete_message = delete_message
"#;

/// The server recomputes signatures in a way that fits its own language's client alone,
/// so who asks is taken from the access key; what that user may do is looked at.
const GUARDED: &str = r#"
from moto.iam.access_control import IAMRequestBase
IAMRequestBase.check_signature = lambda request: None
"#;

/// Clients for `boto3`, to look at the server from outside.
const CLIENTS: &str = r#"
import boto3, json, sys
def client(service):
    return boto3.client(service, endpoint_url=sys.argv[1], region_name="eu-west-1",
                        aws_access_key_id="test", aws_secret_access_key="test")
sqs, sns, iam = client("sqs"), client("sns"), client("iam")
args = sys.argv[2:]
"#;

impl Aws {
    /// Starts a server of one's own that can be told to look at permissions.
    pub fn start_guarded() -> Self {
        Self::run(GUARDED)
    }

    fn start() -> Self {
        Self::run("")
    }

    /// Starts the server, after `more` was done to it.
    fn run(more: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        drop(listener);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = fs::File::create(folder.path().join("out.log")).expect("a log");
        let server = Command::new("sh")
            .args(["-c", WATCH])
            .arg(python_path())
            .args(["-c", &format!("{CAREFUL}{more}main()\n")])
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("a shell");
        let aws = Self {
            folder,
            port,
            _server: server,
        };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = fs::read_to_string(aws.folder.path().join("out.log")).unwrap_or_default();
            assert!(
                begun.elapsed() < PATIENCE,
                "no moto (`./test` installs it):\n{log}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        aws
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A connection to it, as YAML.
    pub fn connection(&self) -> String {
        self.connection_by(&self.url())
    }

    /// A connection to it by another address, as YAML.
    pub fn connection_by(&self, url: &str) -> String {
        format!(
            "{{ aws: {{ endpoint: \"{url}\", region: eu-west-1, access_key_id: test, secret_access_key: test }} }}"
        )
    }

    /// Runs a script that has `sqs` and `sns` clients and `args`; what it printed.
    pub fn boto(&self, script: &str, args: &[&str]) -> String {
        let url = self.url();
        let mut all = vec![url.as_str()];
        all.extend(args);
        python(&format!("{CLIENTS}{script}"), &all)
    }
}

/// What AWS's own tools would find on this machine is not for these tests to find.
pub fn without_keys(command: &mut Command, nowhere: &Path) {
    command
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_SHARED_CREDENTIALS_FILE", nowhere)
        .env("AWS_CONFIG_FILE", nowhere);
    for name in [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ] {
        command.env_remove(name);
    }
}

/// The Python that has moto.
fn python_path() -> String {
    std::env::var("POINTSMAN_TEST_PYTHON").unwrap_or_else(|_| {
        let home = std::env::var("HOME").unwrap_or_default();
        format!("{home}/.cache/pointsman/venv/bin/python")
    })
}
