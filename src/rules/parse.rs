//! From a pattern's text to its branches.

use std::sync::Arc;

use super::ast::{Branch, Clause, Field};
use super::complexity;
use super::error::PatternError;
use super::parse_clause::clause;
use super::reader::{Malformed, Reader, Token};
use super::text::{Text, utf16_cmp};

/// How many combinations `$or` may expand to (AWS documents this limit).
pub const MAX_BRANCHES: usize = 1_000;

/// How many fields all branches together may have. AWS has no such limit of
/// its own (patterns there are at most 2,048 characters long).
pub const MAX_FIELDS: usize = 100_000;

/// The highest complexity that is accepted; see [`Pattern::complexity`].
pub const MAX_COMPLEXITY: u32 = 10;

/// Patterns with at most this many braces and brackets fit on any stack.
const SHALLOW: usize = 100;

/// Stack for the deepest pattern, in bytes.
const DEEP_STACK: usize = 32 << 20;

/// An event pattern that was checked and can be matched.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern {
    branches: Vec<Branch>,
    complexity: u32,
}

impl Pattern {
    /// Reads a pattern from its JSON text.
    ///
    /// The semantics are those of EventBridge; where AWS and the published
    /// event-ruler library differ, those of AWS. Text after the closing brace
    /// is ignored, and of a duplicate key the last one counts.
    ///
    /// # Errors
    ///
    /// Whatever EventBridge refuses, in its words; a `$or` with more than
    /// [`MAX_BRANCHES`] combinations; more than [`MAX_FIELDS`] fields; a
    /// complexity above [`MAX_COMPLEXITY`].
    pub fn parse(text: &str) -> Result<Pattern, PatternError> {
        let pattern = Self::parse_unlimited(text)?;
        if pattern.complexity > MAX_COMPLEXITY {
            return Err(PatternError {
                reason: "Rule is too complex - try using fewer wildcard characters or fewer \
                         repeating character sequences after a wildcard character"
                    .to_owned(),
                offset: 0,
                end: text.len(),
                path: Vec::new(),
                index: None,
                field: String::new(),
                hint: Some(format!(
                    "its wildcard complexity is {}, at most {MAX_COMPLEXITY} is accepted",
                    pattern.complexity
                )),
            });
        }
        Ok(pattern)
    }

    /// [`Pattern::parse`] without the limit on complexity: the engine's own
    /// cost does not depend on it.
    ///
    /// # Errors
    ///
    /// As [`Pattern::parse`], but for the complexity.
    pub fn parse_unlimited(text: &str) -> Result<Pattern, PatternError> {
        let openings = text.bytes().filter(|b| matches!(b, b'{' | b'[')).count();
        if openings <= SHALLOW {
            return Self::parse_here(text);
        }
        // The parser calls itself once a level: what may be deep gets a stack that
        // holds the deepest, whatever the caller's thread has left.
        std::thread::scope(|scope| {
            let deep = std::thread::Builder::new()
                .stack_size(DEEP_STACK)
                .spawn_scoped(scope, || Self::parse_here(text));
            match deep.map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(parsed)) => parsed,
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                Err(_) => Err(Parser::new(text).error("too deep to be read with the memory left")),
            }
        })
    }

    fn parse_here(text: &str) -> Result<Pattern, PatternError> {
        let mut parser = Parser::new(text);
        if text.trim_ascii().is_empty() || parser.next()? != Token::StartObject {
            return Err(parser.error("Filter is not an object"));
        }
        let mut drafts = vec![Draft::default()];
        parser.object(&mut drafts, false)?;
        let branches: Vec<Branch> = drafts.into_iter().map(Draft::finish).collect();
        let complexity = complexity::score(&branches);
        Ok(Pattern {
            branches,
            complexity,
        })
    }

    /// The combinations that `$or` expands to; one if there is none.
    pub fn branches(&self) -> &[Branch] {
        &self.branches
    }

    /// The wildcard complexity: the most wildcard prefixes that some value
    /// could match at once, as event-ruler's evaluator counts them. 0 if no
    /// wildcard is in it. EventBridge refuses high scores (it accepts 7 and
    /// refuses 11; the limit used here is [`MAX_COMPLEXITY`]).
    pub fn complexity(&self) -> u32 {
        self.complexity
    }
}

/// A branch under construction; a later field of the same path replaces the
/// earlier one.
#[derive(Clone, Default)]
struct Draft {
    fields: std::collections::BTreeMap<Text, Arc<[Clause]>>,
}

impl Draft {
    fn finish(self) -> Branch {
        let mut fields: Vec<Field> = self
            .fields
            .into_iter()
            .map(|(path, clauses)| Field { path, clauses })
            .collect();
        fields.sort_by(|a, b| utf16_cmp(a.path.as_bytes(), b.path.as_bytes()));
        Branch { fields }
    }
}

/// Names that cannot be fields inside `$or` (event-ruler's list).
const RESERVED: [&str; 23] = [
    "exactly",
    "equals-ignore-case",
    "prefix",
    "suffix",
    "anything-but",
    "exists",
    "wildcard",
    "numeric",
    "cidr",
    "=",
    "<",
    "<=",
    ">",
    ">=",
    "regex",
    "not-wildcard",
    "not-equals-ignore-case",
    "date-after",
    "date-on-or-after",
    "date-before",
    "date-on-or-before",
    "in-date-range",
    "ip-address-in-range",
];
const RESERVED_LAST: &str = "ip-address-not-in-range";

pub(super) struct Parser<'t> {
    reader: Reader<'t>,
    /// The path of keys in the pattern's own document.
    document: Vec<String>,
    /// The keys that make up the event path.
    keys: Vec<Text>,
    /// The element of the leaf array being read.
    pub(super) index: Option<usize>,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str) -> Self {
        Parser {
            reader: Reader::new(text),
            document: Vec::new(),
            keys: Vec::new(),
            index: None,
        }
    }

    pub(super) fn next(&mut self) -> Result<Token, PatternError> {
        self.reader.next().map_err(
            |Malformed {
                 reason,
                 offset,
                 end,
             }| PatternError {
                offset,
                end,
                ..self.error(reason)
            },
        )
    }

    /// The spelling of the current token.
    pub(super) fn raw(&self) -> &'t str {
        self.reader.raw()
    }

    /// An error at the current token.
    pub(super) fn error(&self, reason: impl Into<String>) -> PatternError {
        let (offset, end) = self.reader.span();
        PatternError {
            reason: reason.into(),
            offset,
            end,
            path: self.document.clone(),
            index: self.index,
            field: String::from_utf8_lossy(&self.path(None)).into_owned(),
            hint: None,
        }
    }

    pub(super) fn hinted(&self, reason: impl Into<String>, hint: String) -> PatternError {
        PatternError {
            hint: Some(hint),
            ..self.error(reason)
        }
    }

    fn path(&self, last: Option<&Text>) -> Vec<u8> {
        let keys: Vec<&[u8]> = self.keys.iter().chain(last).map(Text::as_bytes).collect();
        keys.join(&b'.')
    }

    /// The members of an object whose `{` was read.
    fn object(&mut self, drafts: &mut Vec<Draft>, inside_or: bool) -> Result<(), PatternError> {
        let mut empty = true;
        loop {
            let name = match self.next()? {
                Token::Name(name) => name,
                _ if empty => return Err(self.error("Empty objects are not allowed")),
                _ => return Ok(()),
            };
            empty = false;
            self.document.push(name.to_lossy());
            if name.as_bytes() == b"$or" {
                self.alternatives(drafts)?;
            } else {
                self.member(name, drafts, inside_or)?;
            }
            self.document.pop();
        }
    }

    fn member(
        &mut self,
        name: Text,
        drafts: &mut Vec<Draft>,
        inside_or: bool,
    ) -> Result<(), PatternError> {
        let lossy = name.to_lossy();
        if inside_or && (RESERVED.contains(&lossy.as_str()) || lossy == RESERVED_LAST) {
            self.keys.push(name);
            return Err(self.error(format!(
                "{lossy} is Ruler reserved fieldName which cannot be used inside $or."
            )));
        }
        match self.next()? {
            Token::StartObject => {
                self.keys.push(name);
                self.object(drafts, inside_or)?;
                self.keys.pop();
            }
            Token::StartArray => self.leaf(name, drafts)?,
            _ => {
                let written = self.raw();
                self.keys.push(name);
                return Err(self.hinted(
                    format!("\"{lossy}\" must be an object or an array"),
                    format!("put the value in an array: [{written}]"),
                ));
            }
        }
        Ok(())
    }

    /// The branches of a `$or`: each starts from everything read so far.
    fn alternatives(&mut self, drafts: &mut Vec<Draft>) -> Result<(), PatternError> {
        if self.next()? != Token::StartArray {
            return Err(self.error("It must be an Array followed with $or."));
        }
        let so_far = std::mem::take(drafts);
        let mut count = 0;
        loop {
            match self.next()? {
                Token::EndArray => break,
                Token::StartObject => {}
                _ => {
                    return Err(
                        self.error("Only JSON object is allowed in array of $or relationship.")
                    );
                }
            }
            self.document.push(count.to_string());
            count += 1;
            self.check_size(drafts.len() + so_far.len(), drafts, &so_far)?;
            let mut forked = so_far.clone();
            self.object(&mut forked, true)?;
            self.check_size(drafts.len() + forked.len(), drafts, &forked)?;
            drafts.append(&mut forked);
            self.document.pop();
        }
        if count < 2 {
            return Err(self.error("There must have at least 2 Objects in $or relationship."));
        }
        Ok(())
    }

    fn check_size(
        &self,
        branches: usize,
        done: &[Draft],
        more: &[Draft],
    ) -> Result<(), PatternError> {
        if branches > MAX_BRANCHES {
            return Err(self.hinted(
                format!("$or expands to more than {MAX_BRANCHES} combinations"),
                "split the pattern into several rules".to_owned(),
            ));
        }
        let fields: usize = done
            .iter()
            .chain(more)
            .map(|draft| draft.fields.len())
            .sum();
        if fields > MAX_FIELDS {
            return Err(self.error(format!("Pattern has more than {MAX_FIELDS} fields")));
        }
        Ok(())
    }

    /// A leaf array whose `[` was read.
    fn leaf(&mut self, name: Text, drafts: &mut [Draft]) -> Result<(), PatternError> {
        self.keys.push(name);
        let mut clauses = Vec::new();
        loop {
            self.index = Some(clauses.len());
            match self.next()? {
                Token::EndArray => break,
                token => clauses.push(clause(self, token)?),
            }
        }
        self.index = None;
        if clauses.is_empty() {
            return Err(self.hinted(
                "Empty arrays are not allowed",
                "write [{\"exists\": true}] to match any value".to_owned(),
            ));
        }
        let path = Text::from_bytes(&self.path(None));
        self.keys.pop();
        let clauses: Arc<[Clause]> = clauses.into();
        for draft in drafts {
            draft.fields.insert(path.clone(), clauses.clone());
        }
        Ok(())
    }
}
