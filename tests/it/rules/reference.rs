//! The pattern language, written down as plainly as possible.
//!
//! Slow and simple: a tree of JSON values with strings as UTF-16, a list of
//! leaves with their array memberships, a search over all choices. It shares
//! nothing with the engine, and it reads valid patterns and events only.

use std::collections::BTreeMap;

/// A string as UTF-16 code units.
pub type Units = Vec<u16>;

/// A JSON value; numbers keep their spelling, objects their duplicate keys.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(String),
    String(Units),
    Array(Vec<Json>),
    Object(Vec<(Units, Json)>),
}

pub fn units(text: &str) -> Units {
    text.encode_utf16().collect()
}

/// Reads JSON; `None` if it is malformed. What follows the value is ignored.
pub fn parse(text: &str) -> Option<Json> {
    let text: Vec<char> = text.chars().collect();
    Parser { text, at: 0 }.value()
}

struct Parser {
    text: Vec<char>,
    at: usize,
}

impl Parser {
    fn peek(&mut self) -> Option<char> {
        while matches!(self.text.get(self.at), Some(' ' | '\t' | '\n' | '\r')) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn take(&mut self, wanted: char) -> Option<()> {
        let found = self.peek()? == wanted;
        self.at += usize::from(found);
        found.then_some(())
    }

    fn value(&mut self) -> Option<Json> {
        match self.peek()? {
            '{' => {
                let mut members = Vec::new();
                self.list('{', '}', |parser| {
                    parser.peek();
                    let key = parser.string()?;
                    parser.take(':')?;
                    members.push((key, parser.value()?));
                    Some(())
                })?;
                Some(Json::Object(members))
            }
            '[' => {
                let mut items = Vec::new();
                self.list('[', ']', |parser| {
                    items.push(parser.value()?);
                    Some(())
                })?;
                Some(Json::Array(items))
            }
            '"' => self.string().map(Json::String),
            _ => self.scalar(),
        }
    }

    fn list(
        &mut self,
        open: char,
        close: char,
        mut item: impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        self.take(open)?;
        if self.take(close).is_some() {
            return Some(());
        }
        loop {
            item(self)?;
            if self.take(close).is_some() {
                return Some(());
            }
            self.take(',')?;
        }
    }

    fn string(&mut self) -> Option<Units> {
        self.take('"')?;
        let mut units = Vec::new();
        loop {
            let c = *self.text.get(self.at)?;
            self.at += 1;
            let plain = match c {
                '"' => return Some(units),
                '\\' => {
                    let escaped = *self.text.get(self.at)?;
                    self.at += 1;
                    match escaped {
                        '"' | '\\' | '/' => escaped,
                        'b' => '\u{8}',
                        'f' => '\u{C}',
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        'u' => {
                            let digits: String =
                                self.text.get(self.at..self.at + 4)?.iter().collect();
                            units.push(u16::from_str_radix(&digits, 16).ok()?);
                            self.at += 4;
                            continue;
                        }
                        _ => return None,
                    }
                }
                _ => c,
            };
            units.extend_from_slice(plain.encode_utf16(&mut [0; 2]));
        }
    }

    fn scalar(&mut self) -> Option<Json> {
        let rest = self.text[self.at..].iter();
        let word: String = rest.take_while(|c| !",]} \t\r\n".contains(**c)).collect();
        self.at += word.chars().count();
        match word.as_str() {
            "true" => Some(Json::Bool(true)),
            "false" => Some(Json::Bool(false)),
            "null" => Some(Json::Null),
            _ => word
                .starts_with(|c: char| c == '-' || c.is_ascii_digit())
                .then_some(Json::Number(word)),
        }
    }
}

/// A value that is no container, where it is, and which elements of which
/// arrays it lies in.
#[derive(Debug)]
struct Leaf<'j> {
    path: Units,
    value: &'j Json,
    membership: BTreeMap<usize, usize>,
}

/// The leaves of an event.
fn flatten<'j>(
    value: &'j Json,
    path: &Units,
    membership: &BTreeMap<usize, usize>,
    arrays: &mut usize,
    leaves: &mut Vec<Leaf<'j>>,
) {
    match value {
        Json::Object(members) => {
            for (key, value) in members {
                flatten(value, &join(path, key), membership, arrays, leaves);
            }
        }
        Json::Array(items) => {
            let array = *arrays;
            *arrays += 1;
            for (index, item) in items.iter().enumerate() {
                let mut inside = membership.clone();
                // Plain values in the array itself are in no element.
                if matches!(item, Json::Object(_) | Json::Array(_)) {
                    inside.insert(array, index);
                }
                flatten(item, path, &inside, arrays, leaves);
            }
        }
        _ => leaves.push(Leaf {
            path: path.clone(),
            value,
            membership: membership.clone(),
        }),
    }
}

/// The start of every path is marked with a dot, so that an empty first key
/// is told apart from no key.
fn join(path: &Units, key: &[u16]) -> Units {
    let mut joined = path.clone();
    joined.push(u16::from(b'.'));
    joined.extend_from_slice(key);
    joined
}

/// Fields by path, in the order of code units.
type Branch = BTreeMap<Units, Vec<Json>>;

/// The combinations of a pattern.
fn expand(members: &[(Units, Json)], path: &Units, branches: &mut Vec<Branch>) {
    for (key, value) in members {
        match value {
            Json::Array(options) if *key == units("$or") => {
                let before = std::mem::take(branches);
                for option in options {
                    let Json::Object(members) = option else {
                        panic!("valid patterns only")
                    };
                    let mut forked = before.clone();
                    expand(members, path, &mut forked);
                    branches.append(&mut forked);
                }
            }
            Json::Array(clauses) => {
                for branch in branches.iter_mut() {
                    branch.insert(join(path, key), clauses.clone());
                }
            }
            Json::Object(members) => expand(members, &join(path, key), branches),
            _ => panic!("valid patterns only"),
        }
    }
}

/// Whether a valid pattern matches a valid event. `None` if the search is too
/// long for this simple evaluator.
pub fn matches(pattern: &Json, event: &Json) -> Option<bool> {
    let Json::Object(members) = pattern else {
        panic!("valid patterns only")
    };
    let mut branches = vec![Branch::new()];
    expand(members, &Vec::new(), &mut branches);
    let mut leaves = Vec::new();
    flatten(event, &Vec::new(), &BTreeMap::new(), &mut 0, &mut leaves);
    let mut steps = 0;
    for branch in &branches {
        let fields: Vec<(&Units, &Vec<Json>)> = branch.iter().collect();
        if search(&fields, &leaves, &BTreeMap::new(), &mut steps)? {
            return Some(true);
        }
    }
    Some(false)
}

/// Field by field, in order, every choice.
fn search(
    fields: &[(&Units, &Vec<Json>)],
    leaves: &[Leaf<'_>],
    chosen: &BTreeMap<usize, usize>,
    steps: &mut usize,
) -> Option<bool> {
    let Some(((path, clauses), rest)) = fields.split_first() else {
        return Some(true);
    };
    let agrees = |leaf: &&Leaf<'_>| {
        leaf.membership
            .iter()
            .all(|(array, index)| chosen.get(array).is_none_or(|i| i == index))
    };
    let candidates: Vec<&Leaf<'_>> = leaves
        .iter()
        .filter(|leaf| leaf.path == **path)
        .filter(agrees)
        .collect();
    *steps += leaves.len();
    if *steps > 2_000_000 {
        return None;
    }
    for leaf in &candidates {
        if clauses
            .iter()
            .any(|clause| accepts(clauses, clause, leaf.value))
        {
            let mut chosen = chosen.clone();
            chosen.extend(&leaf.membership);
            if search(rest, leaves, &chosen, steps)? {
                return Some(true);
            }
        }
    }
    if candidates.is_empty() && clauses.iter().any(is_absence) {
        return search(rest, leaves, chosen, steps);
    }
    Some(false)
}

fn is_absence(clause: &Json) -> bool {
    operator(clause) == Some(("exists".to_owned(), &Json::Bool(false)))
}

/// The one member of a match expression.
fn operator(clause: &Json) -> Option<(String, &Json)> {
    match clause {
        Json::Object(members) => {
            let (name, operand) = members.first().expect("valid patterns only");
            Some((String::from_utf16(name).expect("a known operator"), operand))
        }
        _ => None,
    }
}

/// Whether a clause accepts a value; `clauses` are all of the field.
fn accepts(clauses: &[Json], clause: &Json, value: &Json) -> bool {
    let Some((name, operand)) = operator(clause) else {
        return literal(clauses, clause, value);
    };
    match name.as_str() {
        "exists" => *operand == Json::Bool(true),
        "exactly" => value == operand,
        "numeric" => numeric(operand, value),
        "anything-but" => anything_but(operand, value),
        "cidr" => in_block(clauses, &text(operand), value),
        _ => match value {
            Json::String(value) => string_operator(&name, operand, value),
            _ => false,
        },
    }
}

fn literal(clauses: &[Json], wanted: &Json, value: &Json) -> bool {
    match (wanted, value) {
        (Json::Number(wanted), Json::Number(found)) => {
            wanted == found
                || (comparable(wanted).is_some() && comparable(wanted) == comparable(found))
        }
        (Json::String(wanted), _) if address(&lossy(wanted)).is_some() => {
            in_block(clauses, &lossy(wanted), value)
        }
        _ => wanted == value,
    }
}

fn string_operator(name: &str, operand: &Json, value: &[u16]) -> bool {
    let folded = match operand {
        Json::Object(_) => operator(operand).map(|(_, operand)| operand),
        _ => None,
    };
    let pattern = match folded.unwrap_or(operand) {
        Json::String(pattern) => pattern,
        _ => panic!("valid patterns only"),
    };
    match (name, folded.is_some()) {
        ("prefix", false) => value.starts_with(pattern),
        ("suffix", false) => value.ends_with(pattern),
        ("prefix", true) => (0..=value.len()).any(|end| equal_folded(pattern, &value[..end])),
        ("suffix", true) => (0..=value.len()).any(|start| equal_folded(pattern, &value[start..])),
        ("equals-ignore-case", _) => equal_folded(pattern, value),
        ("wildcard", _) => wildcard(pattern, value),
        _ => panic!("valid patterns only"),
    }
}

fn anything_but(operand: &Json, value: &Json) -> bool {
    if let Some((name, inner)) = operator(operand) {
        let Json::String(value) = value else {
            return true;
        };
        return !items(inner)
            .iter()
            .any(|item| string_operator(&name, item, value));
    }
    !items(operand).iter().any(|item| match (item, value) {
        (Json::Number(item), Json::Number(found)) => {
            comparable(found).is_some() && comparable(item) == comparable(found)
        }
        _ => item == value,
    })
}

fn items(operand: &Json) -> Vec<Json> {
    match operand {
        Json::Array(items) => items.clone(),
        one => vec![one.clone()],
    }
}

fn numeric(operand: &Json, value: &Json) -> bool {
    let (Json::Array(terms), Json::Number(found)) = (operand, value) else {
        return false;
    };
    let Some(found) = comparable(found) else {
        return false;
    };
    terms.chunks(2).all(|term| {
        let Json::Number(bound) = &term[1] else {
            panic!("valid patterns only")
        };
        let bound = comparable(bound).expect("valid patterns only");
        match text(&term[0]).as_str() {
            "=" => found == bound,
            "<" => found < bound,
            "<=" => found <= bound,
            ">" => found > bound,
            ">=" => found >= bound,
            other => panic!("no such operator: {other}"),
        }
    })
}

/// The double, if its shortest text says the same decimal.
fn comparable(number: &str) -> Option<f64> {
    let double: f64 = number.parse().ok()?;
    let shortest = (0..17)
        .map(|places| format!("{double:.places$e}"))
        .find(|text| text.parse() == Ok(double))?;
    (decimal(number) == decimal(&shortest)).then_some(double + 0.0)
}

/// Sign, digits without zeros at the ends, exponent of the last digit.
fn decimal(number: &str) -> (bool, String, i64) {
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse().unwrap_or(i64::MAX / 2)),
        None => (number, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{}{fraction}", whole.trim_start_matches('-'));
    let digits = all.trim_end_matches('0');
    let zeros = (all.len() - digits.len()) as i64;
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return (false, String::new(), 0);
    }
    (
        number.starts_with('-'),
        digits.to_owned(),
        exponent + zeros - fraction.len() as i64,
    )
}

/// `*` is any run, a backslash takes the next character as it is. Goes through
/// the pattern with all the places in the value that it may have come to.
fn wildcard(pattern: &[u16], value: &[u16]) -> bool {
    let mut places = vec![false; value.len() + 1];
    places[0] = true;
    let mut rest = pattern.iter();
    while let Some(unit) = rest.next() {
        if *unit == u16::from(b'*') {
            let first = places
                .iter()
                .position(|place| *place)
                .unwrap_or(places.len());
            places[first..].fill(true);
            continue;
        }
        let escaped = *unit == u16::from(b'\\');
        let unit = if escaped {
            rest.next().expect("valid patterns only")
        } else {
            unit
        };
        for at in (0..places.len()).rev() {
            places[at] = at > 0 && places[at - 1] && value[at - 1] == *unit;
        }
    }
    places[value.len()]
}

/// Every character of the pattern stands for itself, its lower and its upper
/// case.
fn equal_folded(pattern: &[u16], value: &[u16]) -> bool {
    let Some(first) = char::decode_utf16(pattern.iter().copied()).next() else {
        return value.is_empty();
    };
    let (len, mut spellings) = match first {
        Ok(c) => {
            let all = [
                c.to_string(),
                c.to_lowercase().to_string(),
                c.to_uppercase().to_string(),
            ];
            (c.len_utf16(), all.map(|spelling| units(&spelling)).to_vec())
        }
        Err(lone) => (1, vec![vec![lone.unpaired_surrogate()]]),
    };
    spellings.sort();
    spellings.dedup();
    spellings.iter().any(|spelling| {
        value
            .strip_prefix(&spelling[..])
            .is_some_and(|rest| equal_folded(&pattern[len..], rest))
    })
}

/// Whether a string is an address in a block (or equal to an address), or a
/// number's spelling leads into its range of hex digits.
fn in_block(clauses: &[Json], block: &str, value: &Json) -> bool {
    let (base, free) = match block.split_once('/') {
        Some((base, mask)) => {
            let base = address(base).expect("valid patterns only");
            let mask: usize = mask
                .trim_end_matches('/')
                .parse()
                .expect("valid patterns only");
            let free = base.len() * 4 - mask;
            (base, free)
        }
        None => (address(block).expect("an address"), 0),
    };
    let bits = u128::from_str_radix(&base, 16).expect("hex digits");
    let host = if free == 128 {
        u128::MAX
    } else {
        (1 << free) - 1
    };
    let width = base.len();
    let (low, high) = (
        format!("{:0width$X}", bits & !host),
        format!("{:0width$X}", bits | host),
    );
    match value {
        Json::String(value) => match address(&lossy(value)) {
            Some(found) => found.len() == width && low <= found && found <= high,
            None => false,
        },
        Json::Number(found) => {
            let hex: String = found
                .chars()
                .take_while(|c| "0123456789ABCDEF".contains(*c))
                .take(width)
                .collect();
            let (from, to) = (&low[..hex.len()], &high[..hex.len()]);
            let inside = if hex.len() == width {
                from <= &hex[..] && &hex[..] <= to
            } else {
                from < &hex[..] && &hex[..] < to
            };
            let numeric = clauses.iter().any(|clause| match operator(clause) {
                Some((name, operand)) => {
                    name == "numeric"
                        || (name == "anything-but"
                            && items(operand)
                                .iter()
                                .any(|item| matches!(item, Json::Number(_))))
                }
                None => matches!(clause, Json::Number(number) if comparable(number).is_some()),
            });
            inside && !(numeric && comparable(found).is_some())
        }
        _ => false,
    }
}

/// An address as hex digits: 8 or 32.
fn address(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split('.').collect();
    let is_number =
        |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if parts.len() == 4 && parts.iter().all(is_number) {
        if text.len() > 15 {
            return None;
        }
        let bytes: Result<Vec<u8>, _> = parts.iter().map(|part| part.parse::<u8>()).collect();
        return bytes
            .ok()
            .map(|bytes| bytes.iter().map(|byte| format!("{byte:02X}")).collect());
    }
    if !text.contains(':') || !text.chars().all(|c| c == ':' || c.is_ascii_hexdigit()) {
        return None;
    }
    // The standard library takes no zeros to spare.
    let groups = text
        .split(':')
        .map(|group| match group.trim_start_matches('0') {
            "" if group.is_empty() => "",
            "" => "0",
            digits => digits,
        });
    let spelled = groups.collect::<Vec<_>>().join(":");
    let v6: std::net::Ipv6Addr = spelled.parse().ok()?;
    Some(match v6.to_ipv4_mapped() {
        Some(v4) => format!("{:08X}", u32::from(v4)),
        None => format!("{:032X}", u128::from(v6)),
    })
}

fn lossy(text: &[u16]) -> String {
    String::from_utf16_lossy(text)
}

fn text(value: &Json) -> String {
    match value {
        Json::String(text) => lossy(text),
        _ => panic!("valid patterns only"),
    }
}
