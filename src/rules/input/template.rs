//! Templates: JSON values with variables in them, filled without a tree between.

use super::InputContext;
use super::error::InputError;
use super::extract::{Found, members};
use super::text::{content, minify, offset, quoted};
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

/// The longest template, in characters (AWS: `TransformerInput`, 8192).
pub(super) const MAX_TEMPLATE: usize = 8192;

/// A template, cut at its variables.
#[derive(Clone, Debug, Default)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// Goes out as it is.
    Text(String),
    /// A variable that stands for a whole JSON value.
    Value(Variable),
    /// A variable inside a string.
    Content(Variable),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    /// The value in this slot.
    Slot(usize),
    RuleArn,
    RuleName,
    IngestionTime,
    /// The event without its `detail`.
    Event,
    /// The whole event.
    EventJson,
}

impl Variable {
    /// A reserved variable, by its name.
    fn reserved(name: &str) -> Option<Self> {
        match name {
            "aws.events.rule-arn" => Some(Self::RuleArn),
            "aws.events.rule-name" => Some(Self::RuleName),
            "aws.events.event.ingestion-time" => Some(Self::IngestionTime),
            "aws.events.event" => Some(Self::Event),
            "aws.events.event.json" => Some(Self::EventJson),
            _ => None,
        }
    }
}

impl Template {
    /// Compiles `text`; `slots` are the variables that `paths` defines.
    pub(super) fn compile(
        text: &str,
        slots: &BTreeMap<&str, usize>,
    ) -> Result<Self, Vec<InputError>> {
        let length = text.chars().count();
        if length > MAX_TEMPLATE {
            let reason =
                format!("the template has {length} characters, and {MAX_TEMPLATE} are the most");
            return Err(vec![InputError::template(0, reason)]);
        }
        let mut scan = Scan::new(text, slots);
        scan.run();
        scan.end_of_text();
        // Whatever is wrong with a variable is said once, not again as broken JSON.
        if scan.errors.is_empty()
            && let Err(error) = check_json(&scan.probe)
        {
            scan.errors.push(error);
        }
        if scan.errors.is_empty() {
            Ok(Self {
                pieces: scan.pieces,
            })
        } else {
            Err(scan.errors)
        }
    }

    /// The template with its variables filled in.
    pub(super) fn fill(
        &self,
        found: &Found<'_>,
        event: &str,
        cx: &InputContext<'_>,
    ) -> Result<String, InputError> {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Value(Variable::EventJson) => minify(event, &mut out),
                Piece::Value(Variable::Event) => without_detail(event, &mut out)?,
                Piece::Value(Variable::Slot(slot)) => match found.get(*slot) {
                    Some(Some(json)) => minify(json, &mut out),
                    _ => out.push_str("\"\""),
                },
                Piece::Value(variable) => out.push_str(&quoted(known(*variable, cx))),
                Piece::Content(Variable::Slot(slot)) => {
                    if let Some(Some(json)) = found.get(*slot) {
                        content(json, &mut out);
                    }
                }
                Piece::Content(variable) => content(&quoted(known(*variable, cx)), &mut out),
            }
        }
        Ok(out)
    }
}

/// What the context says.
fn known<'a>(variable: Variable, cx: &InputContext<'a>) -> &'a str {
    match variable {
        Variable::RuleArn => cx.rule_arn,
        Variable::RuleName => cx.rule_name,
        Variable::IngestionTime => cx.ingestion_time,
        Variable::Slot(_) | Variable::Event | Variable::EventJson => "",
    }
}

/// The event's members except `detail`; `detail-type` is called `detailType` here, as on AWS.
fn without_detail(event: &str, out: &mut String) -> Result<(), InputError> {
    let members = members(event)?;
    out.push('{');
    let mut first = true;
    for (name, value) in members.iter().filter(|(name, _)| name != "detail") {
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        out.push_str(&quoted(if name == "detail-type" {
            "detailType"
        } else {
            name
        }));
        out.push(':');
        minify(value, out);
    }
    out.push('}');
    Ok(())
}

/// Reads a template from left to right.
struct Scan<'t> {
    text: &'t str,
    slots: &'t BTreeMap<&'t str, usize>,
    at: usize,
    /// Start of the text that is in no piece yet.
    from: usize,
    /// Where the string around `at` began, and whether a variable is in it.
    string: Option<(usize, bool)>,
    pieces: Vec<Piece>,
    errors: Vec<InputError>,
    /// The template, byte for byte as long, with a plain string for each variable:
    /// where this is JSON, so is the template once it is filled.
    probe: Vec<u8>,
}

impl<'t> Scan<'t> {
    fn new(text: &'t str, slots: &'t BTreeMap<&'t str, usize>) -> Self {
        Self {
            text,
            slots,
            at: 0,
            from: 0,
            string: None,
            pieces: Vec::new(),
            errors: Vec::new(),
            probe: text.as_bytes().to_vec(),
        }
    }

    fn run(&mut self) {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            match (byte, self.string) {
                (b'"', None) => self.string = Some((self.at, false)),
                (b'"', Some((_, filled))) => {
                    self.string = None;
                    if filled {
                        self.no_name(self.at + 1);
                    }
                }
                (b'\\', Some(_)) => {
                    match bytes.get(self.at + 1) {
                        Some(b'<' | b'>') => self.literal(),
                        _ => self.at += 1,
                    };
                }
                (b'<', _) => {
                    if let Some(name) = variable(&self.text[self.at..]) {
                        self.fill(name);
                        continue;
                    }
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    fn end_of_text(&mut self) {
        self.cut(self.text.len());
        if let Some((start, _)) = self.string.take()
            && self.errors.is_empty()
        {
            self.errors.push(InputError::template(
                start,
                "the string that begins here does not end",
            ));
        }
    }

    /// `\<` and `\>` are text without the backslash.
    fn literal(&mut self) {
        self.cut(self.at);
        self.from = self.at + 1;
        self.probe[self.at..self.at + 2].fill(b'x');
        self.at += 1;
    }

    /// Takes the variable at the current place.
    fn fill(&mut self, name: &'t str) {
        let (start, end) = (self.at, self.at + name.len() + 2);
        self.cut(start);
        self.probe[start..end].fill(b'x');
        if self.string.is_none() {
            self.probe[start] = b'"';
            self.probe[end - 1] = b'"';
            self.stands_alone(start, end);
        }
        match self
            .slots
            .get(name)
            .map(|slot| Variable::Slot(*slot))
            .or_else(|| Variable::reserved(name))
        {
            None => self.errors.push(InputError::Unknown {
                offset: start,
                name: name.to_owned(),
            }),
            Some(variable) => self.piece(variable, name, start),
        }
        self.at = end;
        self.from = end;
    }

    fn piece(&mut self, variable: Variable, name: &str, start: usize) {
        let Some((_, filled)) = &mut self.string else {
            self.pieces.push(Piece::Value(variable));
            return;
        };
        *filled = true;
        if matches!(variable, Variable::Event | Variable::EventJson) {
            let reason = format!("`<{name}>` is a JSON object and cannot stand inside a string");
            self.errors.push(InputError::template(start, reason));
        }
        self.pieces.push(Piece::Content(variable));
    }

    /// A variable outside of strings is a whole value: nothing may touch it.
    fn stands_alone(&mut self, start: usize, end: usize) {
        let bytes = self.text.as_bytes();
        let apart = |byte: Option<&u8>, marks: &[u8]| {
            byte.is_none_or(|b| b.is_ascii_whitespace() || marks.contains(b))
        };
        let before = start.checked_sub(1).and_then(|at| bytes.get(at));
        if self.no_name(end) && !(apart(before, b",:[{") && apart(bytes.get(end), b",]}")) {
            let reason = "a variable outside of quotes stands for a whole value; put quotes around it and what it touches";
            self.errors.push(InputError::template(start, reason));
        }
    }

    /// What ends at `end` must not be a member's name.
    fn no_name(&mut self, end: usize) -> bool {
        let is_name = self.text[end..].trim_start().starts_with(':');
        if is_name {
            let at = self.text[end..].find(':').map_or(end, |at| end + at);
            self.errors.push(InputError::template(
                at,
                "a variable cannot be in the name of a member, before a `:`",
            ));
        }
        !is_name
    }

    fn cut(&mut self, end: usize) {
        let text = self.text.get(self.from..end).unwrap_or_default();
        match self.pieces.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Text(last)) => last.push_str(text),
            _ => self.pieces.push(Piece::Text(text.to_owned())),
        }
        self.from = end;
    }
}

/// The name in `<name>` at the start of `text`. Other angle brackets are text.
fn variable(text: &str) -> Option<&str> {
    let (name, _) = text.strip_prefix('<')?.split_once('>')?;
    let fit = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (!name.is_empty() && name.bytes().all(fit)).then_some(name)
}

/// A template is one JSON value, or several one after the other: a text of several
/// lines has each line in quotes.
fn check_json(probe: &[u8]) -> Result<(), InputError> {
    let mut any = false;
    for value in serde_json::Deserializer::from_slice(probe).into_iter::<IgnoredAny>() {
        any = true;
        let Err(error) = value else { continue };
        let at = offset(probe, &error);
        let said = error.to_string();
        let reason = said.split(" at line ").next().unwrap_or_default();
        let structured = matches!(probe.trim_ascii_start().first(), Some(b'{' | b'['));
        let hint = if structured {
            ""
        } else {
            "; text needs double quotes around each of its lines"
        };
        return Err(InputError::template(
            at,
            format!("the template is not JSON: {reason}{hint}"),
        ));
    }
    if any {
        Ok(())
    } else {
        Err(InputError::template(0, "the template is empty"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"detail-type": "T", "id": "i", "detail": {"a": 1}}"#;

    fn compiled(text: &str) -> Result<Template, String> {
        let slots = BTreeMap::from([("s", 0), ("n", 1), ("o", 2), ("gone", 3)]);
        Template::compile(text, &slots).map_err(|errors| {
            errors
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        })
    }

    fn filled(text: &str) -> String {
        let cx = InputContext {
            rule_name: "r",
            rule_arn: "arn:r",
            ingestion_time: "2026-01-01T00:00:00Z",
        };
        let values = [r#""a \"q\" \\""#, "1.0", r#"{"k": ["v \"w\""]}"#];
        let mut found: Found<'_> = values.iter().map(|text| Some((*text).into())).collect();
        found.push(None);
        compiled(text).unwrap().fill(&found, EVENT, &cx).unwrap()
    }

    #[test]
    fn outside_of_quotes_a_variable_is_a_json_value() {
        assert_eq!(
            filled("[<s>, <n>,<o> , <gone>]"),
            r#"["a \"q\" \\", 1.0,{"k":["v \"w\""]} , ""]"#
        );
        assert_eq!(filled("<o>\n"), "{\"k\":[\"v \\\"w\\\"\"]}\n");
        assert_eq!(
            filled("{\"r\": <aws.events.rule-arn>}"),
            r#"{"r": "arn:r"}"#
        );
    }

    #[test]
    fn inside_quotes_a_variable_is_text() {
        assert_eq!(
            filled(r#""<s>|<n>|<o>|<gone>|""#),
            r#""a \"q\" \\|1.0|{k:[v w]}||""#
        );
        assert_eq!(
            filled(r#"{"a": "x\\\"<aws.events.rule-name>\""}"#),
            r#"{"a": "x\\\"r\""}"#
        );
    }

    #[test]
    fn angle_brackets_can_be_text() {
        assert_eq!(
            filled(r#""1 < 2 > 0 \<s\> </b> <> <s""#),
            r#""1 < 2 > 0 <s> </b> <> <s""#
        );
    }

    #[test]
    fn the_event_goes_in_whole_or_without_its_detail() {
        assert_eq!(
            filled("<aws.events.event.json>"),
            r#"{"detail-type":"T","id":"i","detail":{"a":1}}"#
        );
        assert_eq!(
            filled("[<aws.events.event>]"),
            r#"[{"detailType":"T","id":"i"}]"#
        );
    }

    #[test]
    fn what_cannot_work_is_refused_where_it_is() {
        let texts = [
            "",
            "  \n",
            "hello <s>",
            "\"a\nb\"",
            "{\"a\": <s>",
            "{\"a\": \"<s>}",
            "{<s>: 1}",
            "{\"x<s>\" : 1}",
            "{\"a\": 1<n>}",
            "[<n><n>]",
            "[<s>\"\"]",
            "{\"a\": \"<aws.events.event.json>\"}",
            "{\"a\": <b>, \"c\": \"<aws.events.rule>\"}",
            "{\"a\": \"\\x\"}",
            "{\"a\":\n tru}",
        ];
        let said: Vec<String> = texts
            .iter()
            .map(|text| format!("{text:?}\n  {}", compiled(text).unwrap_err()))
            .collect();
        insta::assert_snapshot!(said.join("\n"), @r#"
        ""
          template: the template is empty (byte 0)
        "  \n"
          template: the template is empty (byte 0)
        "hello <s>"
          template: the template is not JSON: expected value; text needs double quotes around each of its lines (byte 0)
        "\"a\nb\""
          template: the template is not JSON: control character (\u0000-\u001F) found while parsing a string; text needs double quotes around each of its lines (byte 1)
        "{\"a\": <s>"
          template: the template is not JSON: EOF while parsing an object (byte 8)
        "{\"a\": \"<s>}"
          template: the string that begins here does not end (byte 6)
        "{<s>: 1}"
          template: a variable cannot be in the name of a member, before a `:` (byte 4)
        "{\"x<s>\" : 1}"
          template: a variable cannot be in the name of a member, before a `:` (byte 8)
        "{\"a\": 1<n>}"
          template: a variable outside of quotes stands for a whole value; put quotes around it and what it touches (byte 7)
        "[<n><n>]"
          template: a variable outside of quotes stands for a whole value; put quotes around it and what it touches (byte 1)
        template: a variable outside of quotes stands for a whole value; put quotes around it and what it touches (byte 4)
        "[<s>\"\"]"
          template: a variable outside of quotes stands for a whole value; put quotes around it and what it touches (byte 1)
        "{\"a\": \"<aws.events.event.json>\"}"
          template: `<aws.events.event.json>` is a JSON object and cannot stand inside a string (byte 7)
        "{\"a\": <b>, \"c\": \"<aws.events.rule>\"}"
          template: `<b>` is used, and `paths` does not define it (byte 6)
        template: `<aws.events.rule>` is used, and `paths` does not define it (byte 17)
        "{\"a\": \"\\x\"}"
          template: the template is not JSON: invalid escape (byte 8)
        "{\"a\":\n tru}"
          template: the template is not JSON: expected ident (byte 10)
        "#);
    }
}
