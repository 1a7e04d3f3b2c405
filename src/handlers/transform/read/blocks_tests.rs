use super::*;
use crate::handlers::transform::options::ReadOptions;
use crate::handlers::transform::read::open::Content;
use crate::handlers::transform::read::{Expected, csv, json};
use arrow::array::AsArray;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::json;

/// Steps of SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

fn declared() -> Expected {
    let schema = json!({"required": ["id"], "properties": {
        "id": {"type": "integer", "minimum": 0}, "note": {"type": "string"}}});
    Expected::of(&Arc::new(RecordSchema::compile(&schema).unwrap()))
}

/// Rows and rejects of a text.
type Found = (Vec<String>, Vec<String>, u64);

fn all(reader: &mut TextReader) -> Found {
    let mut rejects = Rejects::default();
    let mut rows = Vec::new();
    let schema = Arc::clone(&reader.schema);
    let mut feed = Feed::new(schema, &mut rejects);
    loop {
        let more = reader.fill(&mut feed).unwrap();
        if let Some(batch) = feed.take().unwrap() {
            let options = FormatOptions::default();
            let ids = ArrayFormatter::try_new(batch.column(0).as_ref(), &options).unwrap();
            let notes = batch.column(1).as_string::<i32>();
            rows.extend(
                (0..batch.num_rows()).map(|i| format!("{}|{}", ids.value(i), notes.value(i))),
            );
        }
        if !more {
            break;
        }
    }
    let records = feed.records;
    let told = rejects
        .0
        .iter()
        .map(|kept| format!("{:?}", kept.behind(None, 0, 0, 0)));
    (rows, told.collect(), records)
}

fn csv_in(text: &str, block: usize) -> Found {
    let mut lines = Lines::new(Content::of(text)).unwrap();
    let options = ReadOptions::default();
    let (records, layout) = csv::records(&mut lines, &options, &declared()).unwrap();
    all(&mut TextReader::with(
        lines,
        records,
        layout.schema,
        (block, 3),
    ))
}

fn ndjson_in(text: &str, block: usize) -> Found {
    let lines = Lines::new(Content::of(text)).unwrap();
    let schema = declared().declared.unwrap();
    let records = json::records(&schema);
    all(&mut TextReader::with(lines, records, schema, (block, 3)))
}

/// Parts of lines as files have them: sound, broken, quoted over several lines,
/// with quotes that are never closed.
const PARTS: [&str; 14] = [
    "1,plain",
    "2,\"in, quotes\"",
    "3,\"over\ntwo lines\"",
    "4,\"over\r\n\r\nthree\"",
    "-5,low",
    "x,no number",
    "6,\"never closed",
    "7,too,many",
    "8",
    "",
    "9,\"a \"\"doubled\"\" one\"",
    "10,a \"stray",
    "11,\"text\" after",
    "12,\"long long long long long long long\nlong long long long long long long\nlong\"",
];

#[test]
fn blocks_of_any_size_give_what_one_gives() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut text = String::from("id,note\n");
        // Some have no quote that is not closed, some have many.
        let kinds = if seed % 2 == 0 { 6 } else { PARTS.len() as u64 };
        for _ in 0..random.below(200) {
            text.push_str(PARTS[random.below(kinds) as usize]);
            text.push_str(if random.below(5) == 0 { "\r\n" } else { "\n" });
        }
        if random.below(2) == 0 {
            text.pop();
        }
        let whole = csv_in(&text, 1 << 20);
        for block in [1, 7, 16, 50, 200, 700] {
            assert_eq!(
                csv_in(&text, block),
                whole,
                "seed {seed}, blocks of {block}: {text}"
            );
        }
    }
}

#[test]
fn lines_of_json_in_blocks_keep_their_places() {
    let mut text = String::new();
    for n in 0..300 {
        match n % 7 {
            0 => text.push_str("{\"id\": 1.5}\n"),
            1 => text.push('\n'),
            2 => text.push_str("{\"id\": 3, \"other\": 1\n"),
            _ => text.push_str(&format!("{{\"id\":{n},\"note\":\"n{n}\",\"more\":{n}}}\n")),
        }
    }
    let whole = ndjson_in(&text, 1 << 20);
    assert_eq!((whole.0.len(), whole.1.len()), (171, 86));
    for block in [1, 9, 100, 1000] {
        assert_eq!(ndjson_in(&text, block), whole, "blocks of {block}");
    }
}

#[test]
fn a_line_without_an_end_costs_itself_only() {
    let text = format!("id,note\n1,\"open\n2,{}\n3,c\n", "x".repeat(500_000));
    let read = |block| {
        let mut lines = Lines::new(Content::of(text.as_str()))
            .unwrap()
            .with_longest(1_000);
        let options = ReadOptions::default();
        let (records, layout) = csv::records(&mut lines, &options, &declared()).unwrap();
        all(&mut TextReader::with(
            lines,
            records,
            layout.schema,
            (block, 2),
        ))
    };
    for block in [16, 64, 4_096] {
        let (rows, rejects, records) = read(block);
        assert_eq!(
            (rows, records),
            (vec!["3|c".to_owned()], 3),
            "blocks of {block}"
        );
        assert!(
            rejects[0].contains("line: 2") && rejects[0].contains("OpenQuote"),
            "{}",
            rejects[0]
        );
        assert!(rejects[1].contains("line: 3") && rejects[1].contains("RecordTooLong"));
    }
}

#[test]
fn seams_are_where_quotes_are_even() {
    assert_eq!(seam(b"a\nb\nc", b'\n', Some(b'"')), Some(4));
    assert_eq!(seam(b"a\n\"b\nc\"", b'\n', Some(b'"')), Some(2));
    assert_eq!(seam(b"\"a\nb\nc\"", b'\n', Some(b'"')), Some(5));
    assert_eq!(seam(b"a\n\"b\nc\"", b'\n', None), Some(5));
    assert_eq!(seam(b"abc", b'\n', None), None);
}
