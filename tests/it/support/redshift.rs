//! A PostgreSQL server that takes Redshift's `COPY ... FROM 's3://...'`: a proxy
//! that reads the manifest and the Parquet files itself and hands the rows on as
//! a `COPY` from the client. Everything else is PostgreSQL's.

use super::seaweedfs::{self, SeaweedFs};
use arrow::datatypes::{DataType, Schema};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// The proxy; it ends with the process.
pub struct Redshift {
    pub port: u16,
    inner: Arc<Inner>,
}

struct Inner {
    /// What was asked to be copied, credentials and all.
    copies: Mutex<Vec<String>>,
    /// `COPY` fails, as Redshift says it.
    refuse: AtomicBool,
    endpoint: String,
}

impl Redshift {
    /// Starts one in front of the PostgreSQL server at `port`.
    pub fn start(port: u16, buckets: &SeaweedFs) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let inner = Arc::new(Inner {
            copies: Mutex::default(),
            refuse: AtomicBool::default(),
            endpoint: buckets.endpoint(),
        });
        let started = Self {
            port: listener.local_addr().expect("an address").port(),
            inner: Arc::clone(&inner),
        };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(("127.0.0.1", port)).expect("a server");
                let both = [&client, &server].map(|s| s.try_clone().expect("a handle"));
                std::thread::spawn(move || {
                    let [client, server] = both;
                    answers(server, client).ok();
                });
                let inner = Arc::clone(&inner);
                std::thread::spawn(move || {
                    let both = Closing([client, server]);
                    requests(&both.0[0], &both.0[1], &inner).ok();
                });
            }
        });
        started
    }

    /// The `COPY` statements so far.
    pub fn copies(&self) -> Vec<String> {
        self.inner.copies.lock().expect("a lock").clone()
    }

    /// Lets every `COPY` fail, or succeed again.
    pub fn refuse(&self, yes: bool) {
        self.inner.refuse.store(yes, Ordering::Relaxed);
    }
}

/// Both ends of a connection: nobody waits for one whose thread has failed.
struct Closing([TcpStream; 2]);

impl Drop for Closing {
    fn drop(&mut self) {
        for stream in &self.0 {
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

/// A message of the protocol; the first one of a connection has no tag.
fn message(from: &mut TcpStream, tagged: bool) -> io::Result<(u8, Vec<u8>)> {
    let mut tag = [0];
    if tagged {
        from.read_exact(&mut tag)?;
    }
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    from.read_exact(&mut body)?;
    Ok((tag[0], body))
}

fn send(to: &mut TcpStream, tag: u8, body: &[u8]) -> io::Result<()> {
    let mut all = Vec::with_capacity(body.len() + 5);
    if tag != 0 {
        all.push(tag);
    }
    let length = u32::try_from(body.len() + 4).expect("a length");
    all.extend(length.to_be_bytes());
    all.extend(body);
    to.write_all(&all)
}

/// Passes the server's answers on, without its word that it is ready for rows.
fn answers(mut server: TcpStream, mut client: TcpStream) -> io::Result<()> {
    loop {
        let (tag, body) = message(&mut server, true)?;
        if tag != b'G' {
            send(&mut client, tag, &body)?;
        }
    }
}

fn requests(client: &TcpStream, server: &TcpStream, inner: &Inner) -> io::Result<()> {
    let (mut client, mut server) = (client.try_clone()?, server.try_clone()?);
    let (_, start) = message(&mut client, false)?;
    send(&mut server, 0, &start)?;
    let mut stage = String::new();
    loop {
        let (tag, body) = message(&mut client, true)?;
        let sql = String::from_utf8_lossy(&body);
        if tag == b'Q' && sql.starts_with("create temp table pointsman_stage") {
            stage = sql.trim_end_matches('\0').to_owned();
        }
        if tag != b'Q' || !sql.starts_with("copy pointsman_stage from 's3://") {
            send(&mut server, tag, &body)?;
            continue;
        }
        let sql = sql.trim_end_matches('\0').to_owned();
        inner.copies.lock().expect("a lock").push(sql.clone());
        if inner.refuse.load(Ordering::Relaxed) {
            let error = "raise exception 'Load into table ''pointsman_stage'' failed.  Check ''sys_load_error_detail'' system table for details.'";
            fail(&mut server, error)?;
            continue;
        }
        let Some(rows) = rows(&sql, &stage, &inner.endpoint) else {
            let error = "raise exception 'S3ServiceException:The specified key does not exist.,Status 404,Error NoSuchKey' using errcode = 'XX000'";
            fail(&mut server, error)?;
            continue;
        };
        let copy = "copy pointsman_stage from stdin (format csv)\0";
        send(&mut server, b'Q', copy.as_bytes())?;
        for piece in rows.chunks(1 << 16) {
            send(&mut server, b'd', piece)?;
        }
        send(&mut server, b'c', &[])?;
    }
}

/// Has the server answer with an error.
fn fail(server: &mut TcpStream, raise: &str) -> io::Result<()> {
    let error = format!("do $$ begin {raise}; end $$\0");
    send(server, b'Q', error.as_bytes())
}

/// The rows of the staged files as CSV; `None` where one is not there. As strict as Redshift: the files have
/// the sizes that the manifest tells, and exactly the columns of the table.
fn rows(sql: &str, stage: &str, endpoint: &str) -> Option<Vec<u8>> {
    let lines: Vec<&str> = sql.lines().collect();
    assert_eq!(lines[lines.len() - 2..], ["format as parquet", "manifest"]);
    let address = lines[0]
        .strip_prefix("copy pointsman_stage from 's3://")
        .and_then(|rest| rest.strip_suffix('\''))
        .expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let fetch = |address: &str| -> Option<Bytes> {
        let (bucket, key) = address.split_once('/').expect("a bucket");
        let store = seaweedfs::store(bucket, endpoint);
        match runtime.block_on(async { store.get(&Path::from(key)).await?.bytes().await }) {
            Ok(bytes) => Some(bytes),
            Err(object_store::Error::NotFound { .. }) => None,
            Err(e) => panic!("{address}: {e}"),
        }
    };
    let manifest: Value = serde_json::from_slice(&fetch(address)?).expect("a manifest");
    let mut csv = arrow::csv::WriterBuilder::new()
        .with_header(false)
        .build(Vec::new());
    for entry in manifest["entries"].as_array().expect("entries") {
        assert_eq!(entry["mandatory"], true, "{entry}");
        let url = entry["url"].as_str().expect("a url");
        let file = fetch(url.strip_prefix("s3://").expect("an s3 url"))?;
        assert_eq!(entry["meta"]["content_length"], file.len(), "{entry}");
        let file = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet");
        assert_eq!(declared(stage), columns(file.schema()), "{stage}");
        for batch in file.build().expect("rows") {
            csv.write(&batch.expect("a batch")).expect("CSV");
        }
    }
    Some(csv.into_inner())
}

/// Names and types of the staging table.
fn declared(stage: &str) -> Vec<String> {
    let lines = stage.lines().skip(1).take_while(|line| *line != ")");
    lines
        .map(|line| line.trim().trim_end_matches(',').to_owned())
        .collect()
}

/// Names and types of a file, in the words of the staging table.
fn columns(schema: &Schema) -> Vec<String> {
    let kind = |kind: &DataType| match kind {
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int16 => "smallint".to_owned(),
        DataType::Int32 => "integer".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double precision".to_owned(),
        DataType::Decimal128(p, s) => format!("numeric({p},{s})"),
        DataType::Date32 => "date".to_owned(),
        DataType::Timestamp(_, None) => "timestamp".to_owned(),
        DataType::Utf8 => "varchar(65535)".to_owned(),
        other => panic!("Redshift copies no {other}"),
    };
    let fields = schema.fields().iter();
    fields
        .map(|f| format!("\"{}\" {}", f.name(), kind(f.data_type())))
        .collect()
}

/// Whether a bucket is empty.
pub fn keys(buckets: &SeaweedFs, bucket: &str) -> Vec<String> {
    use futures::TryStreamExt as _;
    let store = buckets.store(bucket);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let listed = runtime.block_on(store.list(None).try_collect::<Vec<_>>());
    let listed = listed.expect("a listing");
    listed.iter().map(|o| o.location.to_string()).collect()
}
