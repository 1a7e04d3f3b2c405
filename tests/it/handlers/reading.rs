//! What files can be: encodings, packings, archives, and the dialects of CSV.

use super::malformed::{read, run, typed};
use super::world::{World, cx, message, options};
use encoding_rs::Encoding;
use globset::Glob;
use pointsman::handlers::transform::options::{Duplicates, Format, Ragged, TransformOptions};
use pointsman::handlers::{Class, Context, Failure, Handler, Progress};
use serde_json::Value;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PLAIN: &str = "id,name,amount\n1,café,1.50\n2,€,2.25\n";

/// What the table has after `content` was read as `key`.
async fn rows_of(key: &str, content: impl AsRef<[u8]>, options: TransformOptions) -> String {
    let world = World::new();
    let event = world.file(key, content);
    if let Err(failure) = run(&world, options, event).await {
        return format!("{}: {}", failure.code, failure.message);
    }
    world
        .csv("select id, name, amount from lake.t order by id")
        .await
}

fn encoded(label: &str) -> TransformOptions {
    let mut options = typed();
    options.read.encoding = Encoding::for_label(label.as_bytes());
    assert!(options.read.encoding.is_some());
    options
}

fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(bytes).collect()
}

const ROWS: &str = "1,café,1.50\n2,€,2.25";

#[tokio::test(flavor = "multi_thread")]
async fn encodings_come_out_as_the_same_text() {
    let marked = |bytes| [bytes, utf16(PLAIN, u16::to_le_bytes)].concat();
    let latin1 = PLAIN
        .replace('é', "\u{1}")
        .replace('€', "\u{2}")
        .into_bytes();
    let latin1: Vec<u8> = latin1
        .iter()
        .map(|b| match b {
            1 => 0xe9,
            2 => 0x80,
            b => *b,
        })
        .collect();
    for (content, options) in [
        (PLAIN.as_bytes().to_vec(), typed()),
        (format!("\u{feff}{PLAIN}").into_bytes(), typed()),
        (format!("\u{feff}{PLAIN}").into_bytes(), encoded("latin1")),
        (marked(vec![0xff, 0xfe]), typed()),
        (marked(vec![0xff, 0xfe]), encoded("latin1")),
        (
            [vec![0xfe, 0xff], utf16(PLAIN, u16::to_be_bytes)].concat(),
            typed(),
        ),
        (utf16(PLAIN, u16::to_le_bytes), encoded("utf-16le")),
        (latin1.clone(), encoded("latin1")),
        (latin1.clone(), encoded("windows-1252")),
    ] {
        assert_eq!(
            rows_of("x.csv", &content, options).await,
            ROWS,
            "{content:?}"
        );
    }
    // Without a word of its encoding, a record that is no UTF-8 is set aside.
    let world = World::new();
    let event = world.file("x.csv", &latin1);
    let (rows, rejects) = read(&world, typed(), event).await;
    assert_eq!(
        (rows, rejects),
        (
            0,
            vec!["2 InvalidUtf8".to_owned(), "3 InvalidUtf8".to_owned()]
        )
    );
    // A lone surrogate breaks its own record.
    let lone = [
        vec![0xff, 0xfe],
        utf16("id,name,amount\n1,", u16::to_le_bytes),
        vec![0, 0xd8],
        utf16(",1\n2,b,2\n", u16::to_le_bytes),
    ]
    .concat();
    let world = World::new();
    let event = world.file("x.csv", lone);
    assert_eq!(
        read(&world, typed(), event).await,
        (1, vec!["2 InvalidUtf8".to_owned()])
    );
    let ndjson = "{\"id\":1,\"name\":\"café\",\"amount\":1.5}\n";
    let ndjson = [vec![0xff, 0xfe], utf16(ndjson, u16::to_le_bytes)].concat();
    assert_eq!(rows_of("x.ndjson", ndjson, typed()).await, "1,café,1.50");
}

fn gz(text: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(text).unwrap();
    out.finish().unwrap()
}

fn bz2(text: &[u8]) -> Vec<u8> {
    let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    out.write_all(text).unwrap();
    out.finish().unwrap()
}

fn xz(text: &[u8]) -> Vec<u8> {
    let mut out = liblzma::write::XzEncoder::new(Vec::new(), 1);
    out.write_all(text).unwrap();
    out.finish().unwrap()
}

fn zst(text: &[u8]) -> Vec<u8> {
    zstd::encode_all(text, 1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn packings_are_told_by_their_first_bytes() {
    let (head, tail) = PLAIN.split_at(PLAIN.len() / 2 + 3);
    for (ending, pack) in [
        (".gz", gz as fn(&[u8]) -> Vec<u8>),
        (".bz2", bz2),
        (".xz", xz),
        (".zst", zst),
    ] {
        let whole = pack(PLAIN.as_bytes());
        // Several members one after the other, as parallel packers write them.
        let several = [pack(head.as_bytes()), pack(tail.as_bytes())].concat();
        for (key, packed) in [
            (format!("x.csv{ending}"), &whole),
            ("x.csv".to_owned(), &whole),
            (format!("x.csv{ending}"), &several),
            ("x.csv.gz".to_owned(), &several),
        ] {
            assert_eq!(
                rows_of(&key, packed, typed()).await,
                ROWS,
                "{key} as {ending}"
            );
        }
        let cut = rows_of("x.csv", &whole[..whole.len() - 6], typed()).await;
        assert!(cut.starts_with("CorruptInput"), "{ending}: {cut}");
    }
    assert_eq!(rows_of("x.csv.gz", PLAIN, typed()).await, ROWS);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_unpacks_to_too_much_is_refused() {
    let bomb = xz(&vec![b'a'; 4 << 20]);
    assert!(bomb.len() < 4096);
    let mut small = typed();
    small.read.max_unpacked = 1 << 20;
    for key in ["x.csv.xz", "x.csv"] {
        let said = rows_of(key, &bomb, small.clone()).await;
        assert_eq!(
            said,
            format!(
                "TooLarge: `{key}` unpacks to more than 1048576 bytes; `read.max_unpacked` allows no more"
            )
        );
    }
    let zip = zip(&[("a.csv", PLAIN.as_bytes()), ("b.csv", &vec![b'a'; 4 << 20])]);
    let said = rows_of("x.zip", zip, small).await;
    assert!(said.starts_with("TooLarge"), "{said}");
}

fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in members {
        let options = zip::write::SimpleFileOptions::default();
        out.start_file(*name, options).unwrap();
        out.write_all(content).unwrap();
    }
    out.finish().unwrap().into_inner()
}

fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        // A name as a hostile packer writes it.
        header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        out.append(&header, *content).unwrap();
    }
    out.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_archives_are_read_one_by_one() {
    let more = gz(b"amount,id,name\n3.5,3,c\nx,4,d\n");
    let members: [(&str, &[u8]); 4] = [
        ("a.csv", PLAIN.as_bytes()),
        ("__MACOSX/._a.csv", b"\0\x05\x16\x07"),
        ("../../evil/b.csv.gz", &more),
        ("sub/.hidden.csv", b"\0\0"),
    ];
    let (zip, tar) = (zip(&members), tar(&members));
    for (key, packed) in [
        ("x.zip", zip.clone()),
        ("x.csv", zip),
        ("x.tar", tar.clone()),
        ("x.tar.gz", gz(&tar)),
        ("x.tgz", xz(&tar)),
    ] {
        let world = World::new();
        let event = world.file(key, packed);
        let done = run(&world, typed(), event)
            .await
            .unwrap_or_else(|e| panic!("{key}: {e:?}"));
        let rows = world
            .csv("select id, name, amount from lake.t order by id")
            .await;
        assert_eq!(rows, format!("{ROWS}\n3,c,3.50"), "{key}");
        let path = done.summary["rejects"]["path"].as_str().unwrap();
        let reject: Value =
            serde_json::from_str(std::fs::read_to_string(path).unwrap().trim()).unwrap();
        assert_eq!(
            (&reject["member"], &reject["line"], &reject["column"]),
            (
                &Value::from("../../evil/b.csv.gz"),
                &Value::from(3),
                &Value::from("amount")
            ),
            "{key}"
        );
        assert_eq!(
            world.csv("select member from rejects").await,
            "../../evil/b.csv.gz"
        );
        let made: Vec<String> = std::fs::read_dir(world.dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(!made.iter().any(|name| name.contains("evil")), "{made:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_that_cannot_be_read_say_why() {
    let readme = zip(&[("a.csv", PLAIN.as_bytes()), ("README.md", b"hello")]);
    let said = rows_of("x.zip", &readme, typed()).await;
    assert!(
        said.starts_with("UnknownFormat: the name of `x.zip!README.md`"),
        "{said}"
    );
    let mut chosen = typed();
    chosen.read.members = vec![Glob::new("*.csv").unwrap().compile_matcher()];
    assert_eq!(rows_of("x.zip", &readme, chosen).await, ROWS);
    let nested = zip(&[("a.zip", &readme)]);
    let said = rows_of("x.zip", nested, typed()).await;
    assert!(
        said.starts_with("WrongFormat: `x.zip!a.zip` is an archive in an archive"),
        "{said}"
    );
    let said = rows_of("x.zip", zip(&[]), typed()).await;
    assert!(said.starts_with("NoMembers"), "{said}");
    let packed = tar(&[
        ("a.csv", PLAIN.as_bytes()),
        ("b.csv", &vec![b'\n'; 100_000]),
    ]);
    for cut in [&packed[..30_000], &readme[..readme.len() - 30]] {
        let said = rows_of("x.tar", cut, typed()).await;
        assert!(said.starts_with("CorruptInput"), "{said}");
    }
    let other = zip(&[("a.csv", b"id,name\n1,a\n"), ("b.csv", b"id,title\n1,a\n")]);
    let said = rows_of("x.zip", other, options()).await;
    assert_eq!(
        said,
        "SchemaMismatch: the columns of `x.zip!b.csv` do not fit the schema: unexpected `title`"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_itself_says_whether_it_is_parquet() {
    let world = World::new();
    let event = world.file("x.csv", PLAIN);
    run(&world, options(), event).await.unwrap();
    let file = world
        .files("lake")
        .into_iter()
        .find(|f| f.ends_with(".parquet"))
        .unwrap();
    let parquet = std::fs::read(world.path("lake").join(file)).unwrap();
    assert_eq!(rows_of("x.csv", &parquet, typed()).await, ROWS);
    let mut csv = typed();
    csv.read.format = Some(Format::Csv);
    let said = rows_of("x.csv", &parquet, csv).await;
    assert_eq!(
        said,
        "WrongFormat: `x.csv` is a Parquet file, not text; set `read.format: parquet`"
    );
    let said = rows_of("x.parquet", PLAIN, typed()).await;
    assert!(
        said.starts_with("CorruptInput: `x.parquet` is not a sound Parquet file"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dialects_of_csv_are_read_as_they_are_meant() {
    let mut comments = typed();
    comments.read.comment = Some(b'#');
    comments.read.skip = 2;
    let report =
        "Report of the day\n\n# the header comes now\nid,name,amount\n1,a,1\n#2,b,2\n3,#c,3\n";
    assert_eq!(
        rows_of("x.csv", report, comments).await,
        "1,a,1.00\n3,#c,3.00"
    );
    let mut escaped = typed();
    escaped.read.escape = Some(b'\\');
    let text = "id,name,amount\n1,\"a \\\"b\\\" \\\\, c\",1\n2,\"two\\\nlines\",2\n3,a\\b,3\n";
    assert_eq!(
        rows_of("x.csv", text, escaped).await,
        "1,\"a \"\"b\"\" \\, c\",1.00\n2,\"two\nlines\",2.00\n3,a\\b,3.00"
    );
    let mut named = typed();
    named.read.names = ["name", "id", "amount"].map(str::to_owned).to_vec();
    assert_eq!(
        rows_of("x.csv", "Name,Number,Amount\na,1,1\n", named.clone()).await,
        "1,a,1.00"
    );
    let said = rows_of("x.csv", "Name,Number\na,1\n", named.clone()).await;
    assert_eq!(
        said,
        "SchemaMismatch: `x.csv` has 2 columns, but 3 names are given"
    );
    named.read.header = false;
    assert_eq!(rows_of("x.csv", "a,1,1\n", named).await, "1,a,1.00");
    let mut tabs = typed();
    (tabs.read.delimiter, tabs.read.quote) = (b'\t', b'\'');
    assert_eq!(
        rows_of("x.tsv", "id\tname\tamount\n1\t'a\tb'\t1\n", tabs).await,
        "1,a\tb,1.00"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ragged_records_and_double_names_are_taken_if_asked() {
    let text = "id,name,amount\n1\n2,b\n3,c,3,,\n4,d,4,x\n,e\n";
    let world = World::new();
    let event = world.file("x.csv", text);
    let mut ragged = typed();
    ragged.read.ragged = Ragged::Fill;
    let (rows, rejects) = read(&world, ragged, event).await;
    assert_eq!(
        (rows, rejects),
        (
            3,
            vec!["5 TooManyFields".to_owned(), "6 Missing".to_owned()]
        )
    );
    assert_eq!(
        world
            .csv("select id, name, amount from lake.t order by id")
            .await,
        "1,,\n2,b,\n3,c,3.00"
    );
    let mut twice = options();
    twice.read.duplicates = Duplicates::Rename;
    let world = World::new();
    let event = world.file("x.csv", "a,b,a,,a\n1,2,3,4,5\n");
    run(&world, twice, event).await.unwrap();
    assert_eq!(
        world
            .csv("select a, b, a_2, column_4, a_3 from lake.t")
            .await,
        "1,2,3,4,5"
    );
}

/// A file large enough that it is not read at once.
fn large() -> String {
    let mut text = String::from("id,name,amount\n");
    for id in 0..200_000 {
        text += &format!("{id},name {id},{id}.25\n");
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_in_bytes_and_rows() {
    let text = large();
    let (plain, packed) = (text.len() as u64, zip(&[("a.csv", text.as_bytes())]));
    for (key, content) in [("x.csv", text.as_bytes()), ("x.zip", &packed)] {
        let world = World::new();
        let event = world.file(key, content);
        let told: Arc<Mutex<Vec<Progress>>> = Arc::default();
        let listener = Arc::clone(&told);
        let cx = Context {
            progress: Arc::new(move |p| listener.lock().unwrap().push(p)),
            ..cx()
        };
        let outcome = world
            .transform(typed())
            .handle(&[message(event)], &cx)
            .await;
        assert!(outcome.results[0].is_ok());
        let told = told.lock().unwrap();
        let total = content.len() as u64;
        assert!(told.len() > 2, "{told:?}");
        assert!(
            told.iter()
                .all(|p| p.what == key && p.total_bytes == Some(total) && p.bytes <= total),
            "{told:?}"
        );
        assert!(
            told.windows(2)
                .all(|w| w[0].rows <= w[1].rows && w[0].bytes <= w[1].bytes),
            "{told:?}"
        );
        assert!(
            told.last().unwrap().rows > 8192 && told.last().unwrap().bytes > total / 4,
            "{plain} {told:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_stops_in_the_middle_when_its_time_is_over() {
    let world = World::new();
    let event = world.file("x.csv", large());
    let cx = cx();
    // Stops at the first word of progress, so in the middle of the file.
    let cancel = cx.cancel.clone();
    let stopping = Context {
        progress: Arc::new(move |_| cancel.cancel()),
        ..cx
    };
    let outcome = world
        .transform(typed())
        .handle(&[message(event.clone())], &stopping)
        .await;
    let failure: &Failure = outcome.results[0].as_ref().unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.class),
        ("Cancelled", Class::Transient)
    );
    assert_eq!(
        (world.files("lake"), world.files("rejects")),
        (vec![], vec![])
    );
    let again = tokio::time::timeout(Duration::from_secs(60), run(&world, typed(), event)).await;
    assert_eq!(again.unwrap().unwrap().summary["rows_out"], 200_000);
}
