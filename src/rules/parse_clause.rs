//! The elements of a leaf array: literals and match expressions.

use super::ast::{AnythingBut, Clause, Literal, Range};
use super::error::PatternError;
use super::fold::Folded;
use super::ip::{Cidr, Ip};
use super::parse::Parser;
use super::reader::Token;
use super::text::Text;
use super::wildcard::Wildcard;

type Result<T> = std::result::Result<T, PatternError>;

const ONE_KEY: &str = "Only one key allowed in match expression";
const TOO_MANY: &str = "Too many elements in numeric expression";
const IGNORE_CASE: &str = "equals-ignore-case match pattern must be a string";

/// The operators, for "did you mean".
const OPERATORS: [&str; 9] = [
    "prefix",
    "suffix",
    "equals-ignore-case",
    "wildcard",
    "anything-but",
    "numeric",
    "cidr",
    "exists",
    "exactly",
];

/// The clause that begins with `token`.
pub(super) fn clause(parser: &mut Parser<'_>, token: Token) -> Result<Clause> {
    match token {
        Token::StartObject => expression(parser),
        Token::String(text) => Ok(match Ip::parse(text.as_bytes()) {
            Some(ip) => Clause::Ip(ip, text),
            None => Clause::Text(text),
        }),
        Token::Number => Ok(Clause::Number(Literal::new(parser.raw()))),
        Token::True => Ok(Clause::Bool(true)),
        Token::False => Ok(Clause::Bool(false)),
        Token::Null => Ok(Clause::Null),
        _ => Err(parser.error("Match value must be String, number, true, false, or null")),
    }
}

/// A match expression whose `{` was read.
fn expression(parser: &mut Parser<'_>) -> Result<Clause> {
    let Token::Name(name) = parser.next()? else {
        return Err(parser.error("Match expression name not found"));
    };
    match name.as_bytes() {
        b"exactly" => {
            let text = string(parser, "exact match pattern must be a string")?;
            end(parser, ONE_KEY).map(|()| Clause::Text(text))
        }
        b"prefix" => affix(
            parser,
            "prefix",
            "Prefix",
            Clause::Prefix,
            Clause::PrefixIgnoreCase,
        ),
        b"suffix" => affix(
            parser,
            "suffix",
            "Suffix",
            Clause::Suffix,
            Clause::SuffixIgnoreCase,
        ),
        b"numeric" => {
            if parser.next()? != Token::StartArray {
                return Err(parser.hinted(
                    "Value of numeric must be an array.",
                    "for example {\"numeric\": [\">\", 0, \"<=\", 5]}".to_owned(),
                ));
            }
            let range = numeric(parser)?;
            end(parser, TOO_MANY).map(|()| Clause::Range(range))
        }
        b"anything-but" => anything_but(parser).map(Clause::AnythingBut),
        b"exists" => exists(parser),
        b"cidr" => {
            // The odd text is EventBridge's.
            let text = string(parser, "prefix match pattern must be a string")?;
            let cidr = Cidr::parse(&text.to_lossy()).map_err(|reason| parser.error(reason))?;
            end(parser, ONE_KEY).map(|()| Clause::Cidr(cidr))
        }
        b"equals-ignore-case" => {
            let text = string(parser, IGNORE_CASE)?;
            end(parser, ONE_KEY).map(|()| Clause::IgnoreCase(Folded::new(text)))
        }
        b"wildcard" => {
            let text = string(parser, "wildcard match pattern must be a string")?;
            let wildcard = Wildcard::parse(text).map_err(|reason| parser.error(reason))?;
            end(parser, ONE_KEY).map(|()| Clause::Wildcard(wildcard))
        }
        _ => Err(unrecognized(parser, &name)),
    }
}

fn unrecognized(parser: &Parser<'_>, name: &Text) -> PatternError {
    let name = name.to_lossy();
    let mut error = parser.error(format!("Unrecognized match type {name}"));
    error.hint = nearest(&name).map(|operator| format!("did you mean `{operator}`?"));
    error
}

/// A string value, or the given reason.
fn string(parser: &mut Parser<'_>, reason: &str) -> Result<Text> {
    match parser.next()? {
        Token::String(text) => Ok(text),
        _ => Err(parser.error(reason)),
    }
}

/// The closing brace, or the given reason.
fn end(parser: &mut Parser<'_>, reason: &str) -> Result<()> {
    match parser.next()? {
        Token::EndObject => Ok(()),
        _ => Err(parser.error(reason)),
    }
}

/// `prefix` or `suffix`, plain or with `equals-ignore-case` inside.
fn affix(
    parser: &mut Parser<'_>,
    name: &str,
    title: &str,
    plain: fn(Text) -> Clause,
    folded: fn(Folded) -> Clause,
) -> Result<Clause> {
    match parser.next()? {
        Token::String(text) => end(parser, ONE_KEY).map(|()| plain(text)),
        Token::StartObject => {
            let Token::Name(inner) = parser.next()? else {
                return Err(parser.error(format!("{title} expression name not found")));
            };
            if inner.as_bytes() != b"equals-ignore-case" {
                return Err(parser.error(format!("Unsupported {name} pattern: {inner}")));
            }
            let text = string(parser, IGNORE_CASE)?;
            end(parser, ONE_KEY)?;
            end(parser, ONE_KEY).map(|()| folded(Folded::new(text)))
        }
        _ => Err(parser.error(format!("{name} match pattern must be a string"))),
    }
}

fn exists(parser: &mut Parser<'_>) -> Result<Clause> {
    let wanted = match parser.next()? {
        Token::True => true,
        Token::False => false,
        _ => return Err(parser.error("exists match pattern must be either true or false.")),
    };
    end(parser, ONE_KEY).map(|()| Clause::Exists(wanted))
}

/// A numeric expression whose `[` was read.
fn numeric(parser: &mut Parser<'_>) -> Result<Range> {
    let Token::String(operator) = parser.next()? else {
        return Err(parser.error(format!("Invalid member in numeric match: {}", parser.raw())));
    };
    let (name, lower, included) = match operator.as_bytes() {
        b"=" => ("equals", None, true),
        b">=" => (">=", Some(true), true),
        b">" => (">", Some(true), false),
        b"<=" => ("<=", Some(false), true),
        b"<" => ("<", Some(false), false),
        _ => {
            let reason = format!("Unrecognized numeric range operator: {operator}");
            return Err(parser.hinted(reason, "use =, <, <=, > or >=".to_owned()));
        }
    };
    let first = bound(parser, name)?;
    let next = parser.next()?;
    if lower == Some(true) && next != Token::EndArray {
        return upper_bound(parser, next, first, included);
    }
    if next != Token::EndArray {
        return Err(parser.error(TOO_MANY));
    }
    let value = comparable(parser, &first)?;
    let bound = Some((value, included));
    Ok(match lower {
        None => Range {
            lower: bound,
            upper: bound,
        },
        Some(true) => Range {
            lower: bound,
            upper: None,
        },
        Some(false) => Range {
            lower: None,
            upper: bound,
        },
    })
}

/// The second half of a range.
fn upper_bound(
    parser: &mut Parser<'_>,
    token: Token,
    bottom: Literal,
    bottom_included: bool,
) -> Result<Range> {
    let Token::String(operator) = token else {
        return Err(parser.error(format!("Bad value in numeric range: {}", parser.raw())));
    };
    let included = match operator.as_bytes() {
        b"<" => false,
        b"<=" => true,
        _ => return Err(parser.error(format!("Bad numeric range operator: {operator}"))),
    };
    let top = bound(parser, &operator.to_lossy())?;
    if parser.next()? != Token::EndArray {
        return Err(parser.error("Too many terms in numeric range expression"));
    }
    let (bottom, top) = (comparable(parser, &bottom)?, comparable(parser, &top)?);
    if bottom >= top {
        return Err(parser.error("Bottom must be less than top"));
    }
    Ok(Range {
        lower: Some((bottom, bottom_included)),
        upper: Some((top, included)),
    })
}

fn bound(parser: &mut Parser<'_>, operator: &str) -> Result<Literal> {
    match parser.next()? {
        Token::Number => Ok(Literal::new(parser.raw())),
        _ => Err(parser.error(format!("Value of {operator} must be numeric"))),
    }
}

fn comparable(parser: &Parser<'_>, literal: &Literal) -> Result<f64> {
    literal.value.ok_or_else(|| {
        parser.hinted(
            format!("Cannot compare number : {}", literal.text),
            "only numbers that a double holds exactly as written can be compared".to_owned(),
        )
    })
}

/// `anything-but` whose name was read.
fn anything_but(parser: &mut Parser<'_>) -> Result<AnythingBut> {
    const WRONG_VALUE: &str =
        "Value of anything-but must be an array or single string/number value.";
    let token = parser.next()?;
    if token == Token::StartObject {
        let Token::Name(operator) = parser.next()? else {
            return Err(parser.error("Anything-But expression name not found"));
        };
        let known: [&[u8]; 4] = [b"equals-ignore-case", b"prefix", b"suffix", b"wildcard"];
        if !known.contains(&operator.as_bytes()) {
            return Err(parser.error(format!("Unsupported anything-but pattern: {operator}")));
        }
        let token = parser.next()?;
        if !matches!(token, Token::StartArray | Token::String(_) | Token::Number) {
            return Err(parser.error(WRONG_VALUE));
        }
        let but = nested(parser, operator.as_bytes(), token)?;
        end(parser, TOO_MANY)?;
        return end(parser, TOO_MANY).map(|()| but);
    }
    let but = match token {
        Token::StartArray => excluded_list(parser)?,
        Token::String(text) => AnythingBut::Texts(vec![text]),
        Token::Number => {
            let literal = Literal::new(parser.raw());
            comparable(parser, &literal)?;
            AnythingBut::Numbers(vec![literal])
        }
        _ => return Err(parser.error(WRONG_VALUE)),
    };
    end(parser, TOO_MANY).map(|()| but)
}

/// The list of a plain `anything-but`: all strings or all numbers.
fn excluded_list(parser: &mut Parser<'_>) -> Result<AnythingBut> {
    let (mut texts, mut numbers) = (Vec::new(), Vec::new());
    loop {
        match parser.next()? {
            Token::EndArray => break,
            Token::String(text) => texts.push(text),
            Token::Number => {
                let literal = Literal::new(parser.raw());
                comparable(parser, &literal)?;
                numbers.push(literal);
            }
            _ => {
                return Err(
                    parser.error("Inside anything but list, start|null|boolean is not supported.")
                );
            }
        }
    }
    match (texts.is_empty(), numbers.is_empty()) {
        (false, true) => Ok(AnythingBut::Texts(texts)),
        (true, false) => Ok(AnythingBut::Numbers(numbers)),
        _ => Err(parser.error(
            "Inside anything but list, either all values are number or string, mixed type is not \
             supported",
        )),
    }
}

/// The operand of an operator inside `anything-but`: a string or a list.
fn nested(parser: &mut Parser<'_>, operator: &[u8], token: Token) -> Result<AnythingBut> {
    let mut texts = Vec::new();
    if token == Token::StartArray {
        loop {
            match parser.next()? {
                Token::EndArray => break,
                token => texts.push(nested_text(parser, operator, token)?),
            }
        }
    } else {
        texts.push(nested_text(parser, operator, token)?);
    }
    Ok(match operator {
        b"equals-ignore-case" => {
            AnythingBut::IgnoreCase(texts.into_iter().map(Folded::new).collect())
        }
        b"prefix" => AnythingBut::Prefix(texts),
        b"suffix" => AnythingBut::Suffix(texts),
        _ => {
            let parsed: std::result::Result<_, String> =
                texts.into_iter().map(Wildcard::parse).collect();
            AnythingBut::Wildcard(parsed.map_err(|reason| parser.error(reason))?)
        }
    })
}

fn nested_text(parser: &Parser<'_>, operator: &[u8], token: Token) -> Result<Text> {
    let affix = operator == b"prefix" || operator == b"suffix";
    match token {
        Token::String(text) if affix && text.is_empty() => {
            Err(parser.error("Null prefix/suffix not allowed"))
        }
        Token::String(text) => Ok(text),
        _ if affix => Err(parser.error("prefix/suffix match pattern must be a string")),
        _ if operator == b"wildcard" => {
            Err(parser.error("wildcard match pattern must be a string"))
        }
        _ => Err(parser.error(
            "Inside anything-but/equals-ignore-case list, number|start|null|boolean is not \
             supported.",
        )),
    }
}

/// The operator that `name` was probably meant to be.
fn nearest(name: &str) -> Option<&'static str> {
    let wanted = name.to_lowercase().replace(['_', ' '], "-");
    let alias = match wanted.as_str() {
        "not" | "not-in" | "ne" | "!=" | "anythingbut" => Some("anything-but"),
        "startswith" | "starts-with" | "begins-with" => Some("prefix"),
        "endswith" | "ends-with" => Some("suffix"),
        "contains" | "regex" | "glob" | "like" => Some("wildcard"),
        "ip" | "ip-address" => Some("cidr"),
        "ignore-case" | "equalsignorecase" | "equals-ignorecase" => Some("equals-ignore-case"),
        "range" | "number" | ">" | "<" | ">=" | "<=" | "=" => Some("numeric"),
        _ => None,
    };
    alias.or_else(|| {
        let (distance, operator) = OPERATORS
            .iter()
            .map(|operator| (edit_distance(&wanted, operator), *operator))
            .min()?;
        (distance <= 2).then_some(operator)
    })
}

/// Levenshtein's distance in bytes; the first 40 bytes decide.
pub(super) fn edit_distance(a: &str, b: &str) -> usize {
    let b = &b.as_bytes()[..b.len().min(40)];
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().take(40).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
