//! JSON text into JSON text, without a tree between: numbers and strings keep their spelling.

/// The text that JSON's grammar calls insignificant.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Appends `json` without the white space around its tokens. A value that spans
/// lines would otherwise tear a template whose lines are records.
pub(super) fn minify(json: &str, out: &mut String) {
    copy(json, out, Quotes::Keep);
}

/// Appends `json` as the content of a JSON string: a string's characters, a number,
/// `true`, `null`; of objects and arrays everything but the quotes.
pub(super) fn content(json: &str, out: &mut String) {
    match json.as_bytes() {
        [b'"', .., b'"'] => out.push_str(&json[1..json.len() - 1]),
        [b'{' | b'[', ..] => copy(json, out, Quotes::Drop),
        _ => out.push_str(json.trim()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Keep,
    Drop,
}

fn copy(json: &str, out: &mut String, quotes: Quotes) {
    let bytes = json.as_bytes();
    // Everything that is cut at is ASCII, so the pieces are whole characters.
    let (mut from, mut at, mut inside) = (0, 0, false);
    while at < bytes.len() {
        let (width, drop) = match bytes[at] {
            b'"' => {
                inside = !inside;
                (1, quotes == Quotes::Drop)
            }
            b'\\' if inside => {
                let quote = bytes.get(at + 1) == Some(&b'"');
                (2, quote && quotes == Quotes::Drop)
            }
            byte => (1, !inside && is_space(byte)),
        };
        if drop {
            out.push_str(&json[from..at]);
            from = at + width;
        }
        at += width;
    }
    out.push_str(json.get(from..).unwrap_or_default());
}

/// `text` as a JSON string, quotes included.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The byte that serde_json's line and column mean.
pub(super) fn offset(text: &[u8], error: &serde_json::Error) -> usize {
    let lines = error.line().saturating_sub(1);
    let start: usize = text
        .split_inclusive(|b| *b == b'\n')
        .take(lines)
        .map(<[u8]>::len)
        .sum();
    (start + error.column().saturating_sub(1)).min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(with: fn(&str, &mut String), json: &str) -> String {
        let mut out = String::new();
        with(json, &mut out);
        out
    }

    #[test]
    fn only_insignificant_space_goes() {
        let json = "{ \"a b\" : [ 1.0e2 ,\n \" \\\" \\\\\" ] , \"é\\u0020\":\tnull }";
        assert_eq!(
            said(minify, json),
            "{\"a b\":[1.0e2,\" \\\" \\\\\"],\"é\\u0020\":null}"
        );
        assert_eq!(said(minify, " 12 "), "12");
    }

    #[test]
    fn the_content_of_a_string_is_its_text() {
        assert_eq!(
            said(content, r#""say \"hi\" \u00e9""#),
            r#"say \"hi\" \u00e9"#
        );
        assert_eq!(said(content, r#""""#), "");
        assert_eq!(said(content, "-1.50"), "-1.50");
    }

    #[test]
    fn objects_and_arrays_lose_their_quotes() {
        let json = "{ \"a\": [ \"x \\\"y\\\" \\\\ \\n\", 1 ] }";
        assert_eq!(said(content, json), "{a:[x y \\\\ \\n,1]}");
    }
}
