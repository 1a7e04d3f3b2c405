//! SeaweedFS, a real server that speaks S3: one per test process, and others
//! for tests that stop it.

use super::{PATIENCE, python};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub const KEY: &str = "pointsman";
pub const SECRET: &str = "pointsman-secret";

/// A server; killed when dropped, and when the test process ends.
pub struct SeaweedFs {
    folder: PathBuf,
    ports: Ports,
    child: Option<Child>,
    _temporary: Option<tempfile::TempDir>,
}

#[derive(Clone, Copy)]
struct Ports {
    master: u16,
    volume: u16,
    filer: u16,
    s3: u16,
    metrics: u16,
}

/// The server that all tests of this process share.
pub fn shared() -> &'static SeaweedFs {
    static SERVER: OnceLock<SeaweedFs> = OnceLock::new();
    SERVER.get_or_init(SeaweedFs::start)
}

/// A name that no other test has.
pub fn bucket_name(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A bucket of the server at `endpoint`.
pub fn store(bucket: &str, endpoint: &str) -> AmazonS3 {
    AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region("us-east-1")
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_access_key_id(KEY)
        .with_secret_access_key(SECRET)
        .build()
        .expect("a store")
}

impl SeaweedFs {
    /// Starts a server on free ports.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Starts one that posts a notification of every change to this URL.
    pub fn start_notifying(url: &str) -> Self {
        Self::start_with(&format!(
            "[notification.webhook]\nenabled = true\nendpoint = \"{url}\"\npath_prefixes = [\"/buckets/\"]\n"
        ))
    }

    fn start_with(notification: &str) -> Self {
        let temporary = tempfile::tempdir().expect("a folder");
        let mut server = Self {
            folder: temporary.path().to_owned(),
            ports: Ports::free(),
            child: None,
            _temporary: Some(temporary),
        };
        let identities = serde_json::json!({ "identities": [{
            "name": KEY,
            "credentials": [{ "accessKey": KEY, "secretKey": SECRET }],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }]});
        fs::write(server.folder.join("s3.json"), identities.to_string()).expect("a file");
        // It looks for this file where it is started.
        fs::write(server.folder.join("notification.toml"), notification).expect("a file");
        fs::create_dir(server.folder.join("data")).expect("a folder");
        server.resume();
        server
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.s3)
    }

    /// The connection as YAML.
    pub fn connection(&self) -> String {
        format!(
            "{{ aws: {{ endpoint: \"{}\", access_key_id: {KEY}, secret_access_key: {SECRET} }} }}",
            self.endpoint()
        )
    }

    /// Kills it; its data stay.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a kill");
            child.wait().expect("an end");
        }
    }

    /// Starts it again on the same ports.
    pub fn resume(&mut self) {
        self.child = Some(spawn(&self.folder, self.ports));
        let begun = Instant::now();
        let log = || fs::read_to_string(self.folder.join("weed.log")).unwrap_or_default();
        // Ready is when it takes an object.
        while !self.answers() {
            assert!(begun.elapsed() < PATIENCE, "weed is not ready:\n{}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn answers(&self) -> bool {
        let address = SocketAddr::from(([127, 0, 0, 1], self.ports.s3));
        if TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err() {
            return false;
        }
        let script = "
try:
    s3.create_bucket(Bucket='ready')
except s3.exceptions.ClientError as e:
    assert e.response['Error']['Code'] in ('BucketAlreadyOwnedByYou', 'BucketAlreadyExists'), e
try:
    s3.put_object(Bucket='ready', Key='k', Body=b'x')
    print('yes')
except Exception:
    print('no')
";
        self.boto(script, &[]).contains("yes")
    }

    /// Makes a bucket of a name of its own.
    pub fn bucket(&self, what: &str) -> String {
        let name = bucket_name(what);
        self.boto("s3.create_bucket(Bucket=sys.argv[2])", &[&name]);
        name
    }

    /// A bucket of it, by another client than the program's.
    pub fn store(&self, bucket: &str) -> AmazonS3 {
        store(bucket, &self.endpoint())
    }

    /// Runs Python with `s3`, a client of somebody else's.
    pub fn boto(&self, script: &str, args: &[&str]) -> String {
        let head = format!(
            "import boto3, sys, json
from botocore.config import Config
s3 = boto3.client('s3', endpoint_url=sys.argv[1], aws_access_key_id='{KEY}',
  aws_secret_access_key='{SECRET}', region_name='us-east-1',
  config=Config(s3={{'addressing_style': 'path'}}, retries={{'max_attempts': 2}}))
"
        );
        let endpoint = self.endpoint();
        let mut all = vec![endpoint.as_str()];
        all.extend(args);
        python(&format!("{head}{script}"), &all)
    }
}

impl Drop for SeaweedFs {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Ports {
    /// Ports that are free now, with those 10,000 above, which are for gRPC.
    fn free() -> Self {
        let mut found = Vec::new();
        while found.len() < 5 {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let port = listener.local_addr().expect("an address").port() % 20_000 + 10_000;
            let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
            if is_free(port) && is_free(port + 10_000) && !found.contains(&port) {
                found.push(port);
            }
        }
        Self {
            master: found[0],
            volume: found[1],
            filer: found[2],
            s3: found[3],
            metrics: found[4],
        }
    }
}

/// Starts `weed` so that it dies with this process: the kernel kills it when the
/// thread that started it ends, which sleeps for ever.
fn spawn(folder: &Path, ports: Ports) -> Child {
    let (folder, (child, started)) = (folder.to_owned(), mpsc::channel());
    std::thread::spawn(move || {
        child.send(run(&folder, ports)).expect("somebody waits");
        loop {
            std::thread::park();
        }
    });
    started.recv().expect("a child")
}

fn run(folder: &Path, ports: Ports) -> Child {
    let python = std::env::var("POINTSMAN_TEST_PYTHON").unwrap_or_default();
    let beside = Path::new(&python).with_file_name("weed");
    let weed = match beside.exists() {
        true => beside,
        false => PathBuf::from("weed"),
    };
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("weed.log"))
        .expect("a log");
    let flag = |name: &str, value: &dyn std::fmt::Display| format!("-{name}={value}");
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .arg(weed)
        .arg("server")
        .args([
            flag("dir", &folder.join("data").display()),
            flag("ip", &"127.0.0.1"),
            flag("ip.bind", &"127.0.0.1"),
            flag("master.port", &ports.master),
            flag("master.volumeSizeLimitMB", &64),
            flag("volume.port", &ports.volume),
            // A bucket takes some volumes for itself.
            flag("volume.max", &5000),
            flag("filer.port", &ports.filer),
            flag("s3.port", &ports.s3),
            // Buckets may stand in the host name: `BUCKET.s3.test`.
            flag("s3.domainName", &"s3.test"),
            flag("s3.config", &folder.join("s3.json").display()),
            flag("metricsPort", &ports.metrics),
            "-filer".to_owned(),
            "-s3".to_owned(),
            "-iam=false".to_owned(),
            // Ports that would be the same for every server.
            "-s3.port.iceberg=0".to_owned(),
            "-s3.port.lance=0".to_owned(),
        ])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a handle"))
        .stderr(log)
        .spawn()
        .expect("`./test` installs weed")
}
