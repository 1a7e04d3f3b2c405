//! A pattern as data: branches (from `$or`), fields, clauses.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::fold::Folded;
use super::ip::{Cidr, Ip};
use super::number;
use super::text::Text;
use super::wildcard::Wildcard;

/// One way to match a pattern: all its fields must match. A pattern without
/// `$or` has one branch.
#[derive(Debug, Clone, PartialEq)]
pub struct Branch {
    /// The fields, in the order of UTF-16 code units of their paths.
    pub(crate) fields: Vec<Field>,
}

impl Branch {
    /// The fields, sorted by path; no path occurs twice.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }
}

/// A path and the list of clauses of which one must match.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    pub(crate) path: Text,
    pub(crate) clauses: Arc<[Clause]>,
}

impl Field {
    /// The keys joined with ".".
    pub fn path(&self) -> &Text {
        &self.path
    }

    /// The alternatives; at least one.
    pub fn clauses(&self) -> &[Clause] {
        &self.clauses
    }
}

/// One element of a pattern's leaf array.
#[derive(Debug, Clone, PartialEq, Hash)]
pub enum Clause {
    /// `null`: an explicit null.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number literal.
    Number(Literal),
    /// A string literal, or `{"exactly": "..."}`.
    Text(Text),
    /// A string literal that is an IP address: matches any spelling of it.
    Ip(Ip, Text),
    /// `{"prefix": "..."}`.
    Prefix(Text),
    /// `{"suffix": "..."}`.
    Suffix(Text),
    /// `{"equals-ignore-case": "..."}`.
    IgnoreCase(Folded),
    /// `{"prefix": {"equals-ignore-case": "..."}}`.
    PrefixIgnoreCase(Folded),
    /// `{"suffix": {"equals-ignore-case": "..."}}`.
    SuffixIgnoreCase(Folded),
    /// `{"wildcard": "..."}`.
    Wildcard(Wildcard),
    /// `{"numeric": [...]}`.
    Range(Range),
    /// `{"cidr": "..."}`.
    Cidr(Cidr),
    /// `{"exists": true}` or `{"exists": false}`.
    Exists(bool),
    /// `{"anything-but": ...}`.
    AnythingBut(AnythingBut),
}

/// What `anything-but` excludes. The list is never empty, except where
/// EventBridge accepts an empty one (which excludes nothing).
#[derive(Debug, Clone, PartialEq, Hash)]
pub enum AnythingBut {
    /// Strings.
    Texts(Vec<Text>),
    /// Numbers.
    Numbers(Vec<Literal>),
    /// `{"equals-ignore-case": ...}`.
    IgnoreCase(Vec<Folded>),
    /// `{"prefix": ...}`.
    Prefix(Vec<Text>),
    /// `{"suffix": ...}`.
    Suffix(Vec<Text>),
    /// `{"wildcard": ...}`.
    Wildcard(Vec<Wildcard>),
}

/// A number as written, and its value if it can be compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Literal {
    pub(crate) text: Text,
    pub(crate) value: Option<f64>,
}

impl Hash for Literal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Hash for Range {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let bits =
            |bound: Option<(f64, bool)>| bound.map(|(value, included)| (value.to_bits(), included));
        (bits(self.lower), bits(self.upper)).hash(state);
    }
}

impl Literal {
    pub(crate) fn new(text: &str) -> Self {
        Literal {
            text: Text::from(text),
            value: number::comparable(text.as_bytes()),
        }
    }
}

/// A numeric comparison: the value, and whether the bound itself is included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The lower bound.
    pub lower: Option<(f64, bool)>,
    /// The upper bound.
    pub upper: Option<(f64, bool)>,
}

impl Range {
    pub(crate) fn contains(&self, value: f64) -> bool {
        let above = match self.lower {
            None => true,
            Some((bound, included)) => value > bound || (included && value == bound),
        };
        let below = match self.upper {
            None => true,
            Some((bound, included)) => value < bound || (included && value == bound),
        };
        above && below
    }
}

/// Shows a clause in the pattern's own language.
impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Clause::Null => f.write_str("null"),
            Clause::Bool(value) => write!(f, "{value}"),
            Clause::Number(literal) => write!(f, "{}", literal.text),
            Clause::Text(text) | Clause::Ip(_, text) => Quoted(text).fmt(f),
            Clause::Prefix(text) => operator(f, "prefix", &Quoted(text)),
            Clause::Suffix(text) => operator(f, "suffix", &Quoted(text)),
            Clause::IgnoreCase(folded) => operator(f, "equals-ignore-case", &Quoted(folded.text())),
            Clause::PrefixIgnoreCase(folded) => {
                write!(f, "{{\"prefix\":{}}}", Clause::IgnoreCase(folded.clone()))
            }
            Clause::SuffixIgnoreCase(folded) => {
                write!(f, "{{\"suffix\":{}}}", Clause::IgnoreCase(folded.clone()))
            }
            Clause::Wildcard(wildcard) => operator(f, "wildcard", &Quoted(&wildcard.text())),
            Clause::Range(range) => write!(f, "{{\"numeric\":{range}}}"),
            Clause::Cidr(cidr) => write!(f, "{{\"cidr\":\"{cidr}\"}}"),
            Clause::Exists(wanted) => write!(f, "{{\"exists\":{wanted}}}"),
            Clause::AnythingBut(but) => write!(f, "{{\"anything-but\":{but}}}"),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some((low, true)), Some((high, true))) = (self.lower, self.upper)
            && low == high
        {
            return write!(f, "[\"=\",{low}]");
        }
        let lower = self
            .lower
            .map(|(bound, included)| (if included { ">=" } else { ">" }, bound));
        let upper = self
            .upper
            .map(|(bound, included)| (if included { "<=" } else { "<" }, bound));
        f.write_str("[")?;
        for (i, (sign, bound)) in lower.into_iter().chain(upper).enumerate() {
            write!(f, "{}\"{sign}\",{bound}", if i == 0 { "" } else { "," })?;
        }
        f.write_str("]")
    }
}

impl fmt::Display for AnythingBut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnythingBut::Texts(texts) => list(f, texts.iter().map(Quoted)),
            AnythingBut::Numbers(numbers) => list(f, numbers.iter().map(|number| &number.text)),
            AnythingBut::Prefix(texts) => nested(f, "prefix", texts.iter().map(Quoted)),
            AnythingBut::Suffix(texts) => nested(f, "suffix", texts.iter().map(Quoted)),
            AnythingBut::IgnoreCase(folded) => nested(
                f,
                "equals-ignore-case",
                folded.iter().map(|one| Quoted(one.text())),
            ),
            AnythingBut::Wildcard(wildcards) => {
                let texts: Vec<Text> = wildcards.iter().map(Wildcard::text).collect();
                nested(f, "wildcard", texts.iter().map(Quoted))
            }
        }
    }
}

/// A string as a JSON string.
struct Quoted<'a>(&'a Text);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(self.0.as_bytes());
        // A string can always be written as JSON.
        f.write_str(&serde_json::to_string(&text).unwrap_or_default())
    }
}

fn operator(f: &mut fmt::Formatter<'_>, name: &str, operand: &dyn fmt::Display) -> fmt::Result {
    write!(f, "{{\"{name}\":{operand}}}")
}

fn nested(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    items: impl ExactSizeIterator<Item = impl fmt::Display>,
) -> fmt::Result {
    write!(f, "{{\"{name}\":")?;
    list(f, items)?;
    f.write_str("}")
}

/// One item stands alone, several (or none) in brackets.
fn list(
    f: &mut fmt::Formatter<'_>,
    items: impl ExactSizeIterator<Item = impl fmt::Display>,
) -> fmt::Result {
    let single = items.len() == 1;
    if !single {
        f.write_str("[")?;
    }
    for (i, item) in items.enumerate() {
        write!(f, "{}{item}", if i == 0 { "" } else { "," })?;
    }
    f.write_str(if single { "" } else { "]" })
}
