//! JSONPath as it may be written in `paths` and `input_path`.

use super::error::InputError;
use jsonpath_rust::parser::model::{JpQuery, Segment, Selector};

/// The longest path, in characters (AWS: `TargetInputPath`, 256).
pub(super) const MAX_PATH: usize = 256;
/// How deep parentheses may nest; the parser's time is exponential in it.
const MAX_NESTING: usize = 4;
/// The longest list of selectors, like `[0,1]`.
const MAX_LIST: usize = 8;

/// A path, ready to be looked up.
#[derive(Clone, Debug)]
pub(super) enum Path {
    /// Names and indices only: it names at most one value, which is cut out of the text.
    Exact(Vec<Step>),
    /// Anything else, evaluated by `jsonpath-rust` on a tree; the answer is an array.
    Query(JpQuery),
}

/// One step down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Into a member of an object.
    Name(String),
    /// Into an element of an array; below zero it is counted from the end.
    Index(i64),
    /// Into all members or elements.
    All,
}

/// Compiles the path of `field`.
pub(super) fn compile(field: &str, path: &str) -> Result<Path, InputError> {
    let length = path.chars().count();
    if length > MAX_PATH {
        let reason = format!("the path has {length} characters, and {MAX_PATH} are the most");
        return Err(InputError::refused(field, 0, reason));
    }
    if !path.starts_with('$') {
        return Err(InputError::refused(
            field,
            0,
            format!("`{path}` is not a JSONPath: it must start with `$`"),
        ));
    }
    let stopped = match steps(path) {
        Ok(steps) => return Ok(from_steps(steps)),
        Err(stopped) => stopped,
    };
    bounded(path)
        .map_err(|(at, reason)| InputError::refused(field, at, format!("`{path}` {reason}")))?;
    match jsonpath_rust::parser::parse_json_path(path) {
        Ok(query) => Ok(from_query(query)),
        Err(_) => {
            let rest = &path[stopped..];
            let reason = if rest.is_empty() {
                format!("`{path}` is not a JSONPath: something is missing at its end")
            } else {
                format!("`{path}` is not a JSONPath: `{rest}` cannot be read")
            };
            Err(InputError::refused(field, stopped, reason))
        }
    }
}

fn from_steps(steps: Vec<Step>) -> Path {
    if !steps.contains(&Step::All) {
        return Path::Exact(steps);
    }
    let selectors = steps.into_iter().map(|step| match step {
        Step::Name(name) => Selector::Name(name),
        Step::Index(index) => Selector::Index(index),
        Step::All => Selector::Wildcard,
    });
    Path::Query(JpQuery::new(selectors.map(Segment::Selector).collect()))
}

fn from_query(query: JpQuery) -> Path {
    let steps: Option<Vec<Step>> = query
        .segments
        .iter()
        .map(|segment| match segment {
            Segment::Selector(Selector::Name(name)) => Some(Step::Name(name.clone())),
            Segment::Selector(Selector::Index(index)) => Some(Step::Index(*index)),
            _ => None,
        })
        .collect();
    match steps {
        Some(steps) => Path::Exact(steps),
        None => Path::Query(query),
    }
}

/// What AWS writes: `$`, then `.name` (with dashes, underscores and slashes, which
/// RFC 9535 wants in brackets), `.*`, `[0]`, `[*]`, `['name']`. Else the byte where
/// it is something different.
fn steps(path: &str) -> Result<Vec<Step>, usize> {
    let mut steps = Vec::new();
    let mut at = 1;
    while at < path.len() {
        let rest = &path[at..];
        let (step, width) = if let Some(name) = rest.strip_prefix('.') {
            dotted(name)
        } else {
            bracketed(rest)
        }
        .ok_or(at)?;
        steps.push(step);
        at += width;
    }
    Ok(steps)
}

fn dotted(text: &str) -> Option<(Step, usize)> {
    if text.starts_with('*') {
        return Some((Step::All, 2));
    }
    let fit = |c: char| c.is_ascii_alphanumeric() || "-_/".contains(c) || !c.is_ascii();
    let end = text.find(|c| !fit(c)).unwrap_or(text.len());
    (end > 0).then(|| (Step::Name(text[..end].to_owned()), end + 1))
}

fn bracketed(text: &str) -> Option<(Step, usize)> {
    let inner = text.strip_prefix('[')?;
    if inner.starts_with("*]") {
        return Some((Step::All, 3));
    }
    if let Some(quote) = inner.chars().next().filter(|c| *c == '\'' || *c == '"') {
        let (name, rest) = inner[1..].split_once(quote)?;
        let plain =
            rest.starts_with(']') && !name.contains('\\') && !name.chars().any(char::is_control);
        return plain.then(|| (Step::Name(name.to_owned()), name.len() + 4));
    }
    let (number, _) = inner.split_once(']')?;
    let digits = number.strip_prefix('-').unwrap_or(number);
    let plain = digits == "0" && number == "0" || !digits.is_empty() && !digits.starts_with('0');
    let plain = plain && digits.len() < 16 && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| {
        number
            .parse()
            .ok()
            .map(|index| (Step::Index(index), number.len() + 2))
    })?
}

/// Refuses what would let the work grow faster than the event: what is left visits
/// each value a small, bounded number of times.
fn bounded(path: &str) -> Result<(), (usize, String)> {
    let bare = without_strings(path);
    let in_name = |c: Option<char>| c.is_none_or(|c| c.is_alphanumeric() || c == '_');
    for (at, gap) in bare.match_indices([' ', '\t', '\n', '\r']) {
        let (before, after) = (bare[..at].trim_end(), bare[at + gap.len()..].trim_start());
        // The parser would take the gap as a part of the name.
        if in_name(before.chars().next_back()) && in_name(after.chars().next()) {
            return Err((
                at,
                "is not a JSONPath: a name with a space in it needs brackets and quotes".to_owned(),
            ));
        }
    }
    let nth = |what: &str, n: usize| bare.match_indices(what).nth(n).map(|(at, _)| at);
    let once = [
        ("..", "has more than one `..`"),
        ("?", "has more than one filter"),
        ("$", "has more than one `$`"),
    ];
    for (what, reason) in once {
        if let Some(at) = nth(what, 1) {
            return Err((at, reason.to_owned()));
        }
    }
    for open in bare.match_indices('(').map(|(at, _)| at) {
        let before = bare[..open].trim_end();
        if before.ends_with("match") || before.ends_with("search") {
            return Err((
                open,
                "uses a regular expression, which would be built anew for every value".to_owned(),
            ));
        }
        if bare[..=open].matches('(').count() > MAX_NESTING + bare[..open].matches(')').count() {
            return Err((
                open,
                format!("nests parentheses more than {MAX_NESTING} deep"),
            ));
        }
    }
    if let Some(at) = nth(",", 0) {
        let lists = bare.split(']').filter(|part| part.contains(',')).count();
        if lists > 1 || bare.contains("..") || bare.contains('?') {
            return Err((
                at,
                "has a list of selectors besides another list, a `..` or a filter".to_owned(),
            ));
        }
        if let Some(at) = nth(",", MAX_LIST - 1) {
            return Err((at, format!("has a list of more than {MAX_LIST} selectors")));
        }
    }
    Ok(())
}

/// The path with the content of its strings blanked out, byte for byte.
fn without_strings(path: &str) -> String {
    let (mut quote, mut skip) = (None, false);
    let mut bare = String::with_capacity(path.len());
    for c in path.chars() {
        let inside = quote.is_some();
        match quote {
            Some(_) if std::mem::take(&mut skip) => {}
            Some(_) if c == '\\' => skip = true,
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            _ => {}
        }
        // Neither a space nor a mark: what is in a string means nothing here.
        if inside {
            bare.extend(std::iter::repeat_n('x', c.len_utf8()))
        } else {
            bare.push(c)
        }
    }
    bare
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(path: &str) -> Vec<Step> {
        match compile("input_path", path) {
            Ok(Path::Exact(steps)) => steps,
            other => panic!("{path}: {other:?}"),
        }
    }

    fn name(name: &str) -> Step {
        Step::Name(name.to_owned())
    }

    fn refused(path: &str) -> String {
        compile("paths.x", path)
            .map(|path| format!("{path:?}"))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn dots_take_dashes_slashes_and_digits() {
        assert_eq!(exact("$"), []);
        assert_eq!(exact("$.detail-type"), [name("detail-type")]);
        assert_eq!(
            exact("$.detail.a/b_c.2x[0].é"),
            [
                name("detail"),
                name("a/b_c"),
                name("2x"),
                Step::Index(0),
                name("é")
            ]
        );
        assert_eq!(
            exact("$['a.b'][-1][\"it's\"]"),
            [name("a.b"), Step::Index(-1), name("it's")]
        );
        assert_eq!(exact(r"$['it\'s']"), [name("it's")]);
    }

    #[test]
    fn wildcards_and_the_rest_of_the_rfc_are_queries() {
        for path in [
            "$.*",
            "$.a-b[*].c",
            "$..a",
            "$.a[1:3]",
            "$.a[?@.b == 'c,?$..' && (@.d > 1)]",
            "$.a['b','c']",
        ] {
            assert!(matches!(compile("x", path), Ok(Path::Query(_))), "{path}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_where_it_starts() {
        let said: Vec<String> = [
            "detail", "", "$detail", "$.", "$.a.", "$.a[", "$.a[01]", "$.a[-0]", "$.a b", "$.a['b",
        ]
        .into_iter()
        .map(refused)
        .collect();
        insta::assert_snapshot!(said.join("\n"), @r"
        paths.x: `detail` is not a JSONPath: it must start with `$` (byte 0)
        paths.x: `` is not a JSONPath: it must start with `$` (byte 0)
        paths.x: `$detail` is not a JSONPath: `detail` cannot be read (byte 1)
        paths.x: `$.` is not a JSONPath: `.` cannot be read (byte 1)
        paths.x: `$.a.` is not a JSONPath: `.` cannot be read (byte 3)
        paths.x: `$.a[` is not a JSONPath: `[` cannot be read (byte 3)
        paths.x: `$.a[01]` is not a JSONPath: `[01]` cannot be read (byte 3)
        paths.x: `$.a[-0]` is not a JSONPath: `[-0]` cannot be read (byte 3)
        paths.x: `$.a b` is not a JSONPath: a name with a space in it needs brackets and quotes (byte 3)
        paths.x: `$.a['b` is not a JSONPath: `['b` cannot be read (byte 3)
        ");
    }

    #[test]
    fn what_would_blow_up_is_refused() {
        let long = format!("$.{}", "a".repeat(MAX_PATH));
        let deep = format!("$[?{}@.a{}]", "(".repeat(5), ")".repeat(5));
        let calls = format!("$[?{}@.a", "length(".repeat(30));
        let said: Vec<String> = [
            "$..a..b",
            "$[?@.a[?@.b]]",
            "$[?@.a == $.b]",
            "$[0,1][0,1]",
            "$..[0,1]",
            "$[0,1,2,3,4,5,6,7,8]",
            "$[?match(@.a, 'x')]",
            &long,
            &deep,
            &calls,
        ]
        .into_iter()
        .map(refused)
        .collect();
        insta::assert_snapshot!(said.join("\n"), @r"
        paths.x: `$..a..b` has more than one `..` (byte 4)
        paths.x: `$[?@.a[?@.b]]` has more than one filter (byte 7)
        paths.x: `$[?@.a == $.b]` has more than one `$` (byte 10)
        paths.x: `$[0,1][0,1]` has a list of selectors besides another list, a `..` or a filter (byte 3)
        paths.x: `$..[0,1]` has a list of selectors besides another list, a `..` or a filter (byte 5)
        paths.x: `$[0,1,2,3,4,5,6,7,8]` has a list of more than 8 selectors (byte 17)
        paths.x: `$[?match(@.a, 'x')]` uses a regular expression, which would be built anew for every value (byte 8)
        paths.x: the path has 258 characters, and 256 are the most (byte 0)
        paths.x: `$[?(((((@.a)))))]` nests parentheses more than 4 deep (byte 7)
        paths.x: `$[?length(length(length(length(length(length(length(length(length(length(length(length(length(length(length(length(length(length(length(length(length(length(length(length(length(length(length(length(length(length(@.a` nests parentheses more than 4 deep (byte 37)
        ");
    }
}
