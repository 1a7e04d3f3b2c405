//! Input transformers: what a target gets instead of the event as it came.
//!
//! The rules are EventBridge's, as documented at
//! <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-transform-target-input.html>
//! ("the guide") and
//! <https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_InputTransformer.html>
//! ("the API"). Where these are silent, answers of AWS that LocalStack recorded
//! decide (`tests/aws/services/events/test_events_inputs.snapshot.json` there).
//!
//! **Paths.** JSONPath, at most 256 characters (the API). AWS takes dot notation,
//! dashes, underscores, alphanumerics, slashes, array indices and wildcards (the
//! guide), and so do we: `$.detail.instance-id`, `$.resources[0]`, `$.detail.*.id`.
//! The rest of RFC 9535 may be used too (quoted names, indices from the end,
//! slices, lists, `..`, filters), once each where the work would multiply, and
//! without regular expressions. A path of names and indices names one value, which
//! is cut out of the event's text and keeps its spelling; any other gives the array
//! of all that it finds, with numbers as `f64` spells them where they are not integers;
//! it cannot look into an event that nests deeper than 127 levels.
//!
//! **Variables.** At most 100, named with letters, digits, `_` and `-`, at most 256
//! characters, not starting with `AWS` (the API). A template that uses an unknown
//! one is refused (LocalStack's record: "contains invalid placeholder").
//! Reserved are (the guide) `aws.events.rule-arn`, `aws.events.rule-name`,
//! `aws.events.event.ingestion-time` (all text), `aws.events.event` (the event
//! without `detail`; `detail-type` becomes `detailType`, by LocalStack's record) and
//! `aws.events.event.json` (the whole event). The last two are values, never part of
//! a string (the guide), so a template that quotes them is refused.
//!
//! **Missing values.** "If you specify a variable to match a JSON path that doesn't
//! exist in the event, that variable isn't created and won't appear in the output"
//! (the guide). In quotes nothing stands in its place, outside of quotes `""`
//! (LocalStack's record), so that the output stays JSON. `null` is a value.
//!
//! **Templates.** JSON, at most 8192 characters (the API). A variable outside of
//! quotes becomes a JSON value, and text gets its quotes (the guide). In quotes, text
//! goes in as it is, and of objects and arrays everything but the quotes (the guide:
//! "removes any internal quotes to ensure a valid string"). A text of several lines
//! has each line in quotes (the guide), and these quotes are part of the output
//! (LocalStack's record); so a template is one JSON value or several. It cannot
//! compute a member's name (the API). Values lose the space between their tokens,
//! the template keeps its own, so `{"a": <a>}` with a line break behind it writes NDJSON.
//!
//! Two things differ from AWS, both where its output could not be used. AWS "doesn't
//! escape values" (the guide): a quote in a text that stands in quotes breaks the
//! output, and the delivery fails, or forges members of it. Here a text keeps its
//! escapes, so the output always is the JSON that the template shows. And `\<`, `\>` in quotes
//! are angle brackets, for which AWS has no spelling.
//!
//! **Input and input path.** `Input` is constant JSON, at most 8192 characters.
//! `InputPath` delivers the part of the event under it; where there is none, that is
//! an error of the delivery and nothing is sent.

mod error;
mod extract;
mod path;
mod template;
mod text;

pub use error::InputError;

use extract::Extractor;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use template::Template;

/// The most variables in `paths`.
pub const MAX_PATHS: usize = 100;
/// The longest name of a variable, in characters.
pub const MAX_NAME: usize = 256;
/// The longest constant, in characters.
pub const MAX_CONSTANT: usize = 8192;
/// The longest path, in characters.
pub const MAX_PATH: usize = path::MAX_PATH;
/// The longest template, in characters.
pub const MAX_TEMPLATE: usize = template::MAX_TEMPLATE;
/// The variables that are there without being defined.
pub const RESERVED: [&str; 5] = [
    "aws.events.rule-arn",
    "aws.events.rule-name",
    "aws.events.event.ingestion-time",
    "aws.events.event",
    "aws.events.event.json",
];

/// An input as written.
#[derive(Clone, Copy, Debug)]
pub enum TargetInputSpec<'a> {
    /// The event as it came.
    Event,
    /// This JSON text (`Input`).
    Constant(&'a str),
    /// The part of the event under this JSONPath (`InputPath`).
    Path(&'a str),
    /// A template filled from paths (`InputTransformer`).
    Transformer {
        /// Variables: name -> JSONPath into the event.
        paths: &'a BTreeMap<String, String>,
        /// The text, with `<name>` where a variable goes.
        template: &'a str,
    },
}

/// What the reserved variables say, besides the event itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct InputContext<'a> {
    /// Name of the rule that matched.
    pub rule_name: &'a str,
    /// Its ARN, see [`rule_arn`].
    pub rule_arn: &'a str,
    /// When the bus took the event, RFC 3339.
    pub ingestion_time: &'a str,
}

/// An input, compiled.
#[derive(Clone, Debug)]
pub struct Input(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Event,
    Constant(String),
    Path {
        path: String,
        extractor: Extractor,
    },
    Transformer {
        extractor: Extractor,
        template: Template,
    },
}

impl Input {
    /// Compiles an input.
    ///
    /// # Errors
    ///
    /// The first of the errors that [`Input::check`] finds.
    pub fn compile(spec: &TargetInputSpec<'_>) -> Result<Self, InputError> {
        match compile(spec) {
            Ok(kind) => Ok(Self(kind)),
            Err(errors) => {
                let none = || InputError::refused("input", 0, "cannot be compiled");
                Err(errors.into_iter().next().unwrap_or_else(none))
            }
        }
    }

    /// Everything that is wrong with an input.
    #[must_use]
    pub fn check(spec: &TargetInputSpec<'_>) -> Vec<InputError> {
        compile(spec).err().unwrap_or_default()
    }

    /// Whether the target gets the event as it came, so that nothing need be copied.
    #[must_use]
    pub fn is_event(&self) -> bool {
        matches!(self.0, Kind::Event)
    }

    /// What the target gets for the event `event`. Always JSON, or several JSON
    /// values where the template has several.
    ///
    /// # Errors
    ///
    /// When the event is not JSON, or there is nothing under the input path.
    pub fn apply(&self, event: &[u8], cx: &InputContext<'_>) -> Result<Vec<u8>, InputError> {
        match &self.0 {
            Kind::Event => Ok(event.to_vec()),
            Kind::Constant(text) => Ok(text.clone().into_bytes()),
            Kind::Path { path, extractor } => {
                let found = extractor.find(event)?;
                let Some(Some(json)) = found.first() else {
                    return Err(InputError::NoMatch { path: path.clone() });
                };
                let mut out = String::with_capacity(json.len());
                text::minify(json, &mut out);
                Ok(out.into_bytes())
            }
            Kind::Transformer {
                extractor,
                template,
            } => {
                let found = extractor.find(event)?;
                let event = std::str::from_utf8(event).map_err(|e| InputError::Event {
                    reason: e.to_string(),
                })?;
                template
                    .fill(&found, event.trim(), cx)
                    .map(String::into_bytes)
            }
        }
    }
}

/// The ARN of a rule, as AWS builds it: the bus is left out where it is the default one.
#[must_use]
pub fn rule_arn(region: &str, account: &str, bus: &str, rule: &str) -> String {
    match bus {
        "default" => format!("arn:aws:events:{region}:{account}:rule/{rule}"),
        _ => format!("arn:aws:events:{region}:{account}:rule/{bus}/{rule}"),
    }
}

fn compile(spec: &TargetInputSpec<'_>) -> Result<Kind, Vec<InputError>> {
    match spec {
        TargetInputSpec::Event => Ok(Kind::Event),
        TargetInputSpec::Constant(text) => constant(text).map_err(|error| vec![error]),
        TargetInputSpec::Path(path) => {
            let mut extractor = Extractor::default();
            extractor.add(path::compile("input_path", path).map_err(|error| vec![error])?);
            Ok(Kind::Path {
                path: (*path).to_owned(),
                extractor,
            })
        }
        TargetInputSpec::Transformer { paths, template } => transformer(paths, template),
    }
}

fn constant(text: &str) -> Result<Kind, InputError> {
    let length = text.chars().count();
    if length > MAX_CONSTANT {
        let reason = format!("the input has {length} characters, and {MAX_CONSTANT} are the most");
        return Err(InputError::refused("input", 0, reason));
    }
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(Kind::Constant(text.to_owned())),
        Err(error) => {
            let said = error.to_string();
            let reason = said.split(" at line ").next().unwrap_or_default();
            let at = text::offset(text.as_bytes(), &error);
            Err(InputError::refused(
                "input",
                at,
                format!("the input is not JSON: {reason}"),
            ))
        }
    }
}

fn transformer(paths: &BTreeMap<String, String>, template: &str) -> Result<Kind, Vec<InputError>> {
    let mut errors = Vec::new();
    if paths.len() > MAX_PATHS {
        let reason = format!(
            "there are {} variables, and {MAX_PATHS} are the most",
            paths.len()
        );
        errors.push(InputError::refused("paths", 0, reason));
    }
    let mut extractor = Extractor::default();
    let mut slots = BTreeMap::new();
    for (name, path) in paths {
        let field = format!("paths.{name}");
        errors.extend(name_fault(name).map(|(at, reason)| InputError::refused(&field, at, reason)));
        let slot = match path::compile(&field, path) {
            Ok(path) => extractor.add(path),
            // It is defined, if badly; the template need not be blamed as well.
            Err(error) => {
                errors.push(error);
                0
            }
        };
        slots.insert(name.as_str(), slot);
    }
    match Template::compile(template, &slots) {
        Ok(template) if errors.is_empty() => Ok(Kind::Transformer {
            extractor,
            template,
        }),
        Ok(_) => Err(errors),
        Err(more) => {
            errors.extend(more);
            Err(errors)
        }
    }
}

/// What is wrong with the name of a variable, and where in it.
fn name_fault(name: &str) -> Option<(usize, String)> {
    let fit = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if name.is_empty() {
        Some((0, "the name of a variable is empty".to_owned()))
    } else if name.chars().count() > MAX_NAME {
        Some((
            0,
            format!("the name of a variable has more than {MAX_NAME} characters"),
        ))
    } else if let Some((at, c)) = name.char_indices().find(|(_, c)| !fit(*c)) {
        Some((
            at,
            format!("`{c}` cannot be in the name of a variable; letters, digits, `-` and `_` can"),
        ))
    } else if name
        .get(..3)
        .is_some_and(|start| start.eq_ignore_ascii_case("aws"))
    {
        Some((
            0,
            "the name of a variable cannot start with `aws`".to_owned(),
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &[u8] = br#"{"id":"1", "detail":{"n": 1.50, "s":"x", "list":[1, 2]}}"#;

    fn paths(paths: &[(&str, &str)]) -> BTreeMap<String, String> {
        paths
            .iter()
            .map(|(name, path)| ((*name).to_owned(), (*path).to_owned()))
            .collect()
    }

    fn applied(spec: &TargetInputSpec<'_>) -> Result<String, InputError> {
        let output = Input::compile(spec)?.apply(EVENT, &InputContext::default())?;
        Ok(String::from_utf8(output).unwrap())
    }

    #[test]
    fn each_kind_of_input() {
        assert_eq!(applied(&TargetInputSpec::Event).unwrap().as_bytes(), EVENT);
        assert_eq!(
            applied(&TargetInputSpec::Constant("{\"a\": 1 }")).unwrap(),
            "{\"a\": 1 }"
        );
        assert_eq!(
            applied(&TargetInputSpec::Path("$.detail")).unwrap(),
            r#"{"n":1.50,"s":"x","list":[1,2]}"#
        );
        assert_eq!(
            applied(&TargetInputSpec::Path("$.detail.list[*]")).unwrap(),
            "[1,2]"
        );
        let paths = paths(&[("n", "$.detail.n")]);
        let spec = TargetInputSpec::Transformer {
            paths: &paths,
            template: "{\"n\": <n>}",
        };
        assert_eq!(applied(&spec).unwrap(), "{\"n\": 1.50}");
        assert!(Input::compile(&TargetInputSpec::Event).unwrap().is_event());
        assert!(!Input::compile(&spec).unwrap().is_event());
    }

    #[test]
    fn an_input_path_without_a_match_is_an_error() {
        let error = applied(&TargetInputSpec::Path("$.detail.none")).unwrap_err();
        assert_eq!(
            error,
            InputError::NoMatch {
                path: "$.detail.none".to_owned()
            }
        );
        assert_eq!((error.field(), error.offset()), (Some("input_path"), None));
    }

    #[test]
    fn an_event_that_is_not_json_is_an_error() {
        let paths = BTreeMap::new();
        let spec = TargetInputSpec::Transformer {
            paths: &paths,
            template: "\"x\"",
        };
        let error = Input::compile(&spec)
            .unwrap()
            .apply(b"{\"a\": nul}", &InputContext::default())
            .unwrap_err();
        assert!(matches!(error, InputError::Event { .. }), "{error}");
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let long = "n".repeat(MAX_NAME + 1);
        let paths = paths(&[
            ("", "$.a"),
            ("aws-x", "$.a"),
            ("a.b", "$.a"),
            ("bad", "$.a["),
            ("fine", "$.a-b"),
            (&long, "$"),
        ]);
        let spec = TargetInputSpec::Transformer {
            paths: &paths,
            template: "{\"x\": <bad>, \"y\": <fin>}",
        };
        let errors = Input::check(&spec);
        let said: Vec<String> = errors
            .iter()
            .map(|e| e.to_string().replace(&long, "LONG"))
            .collect();
        insta::assert_snapshot!(said.join("\n"), @r"
        paths.: the name of a variable is empty (byte 0)
        paths.a.b: `.` cannot be in the name of a variable; letters, digits, `-` and `_` can (byte 1)
        paths.aws-x: the name of a variable cannot start with `aws` (byte 0)
        paths.bad: `$.a[` is not a JSONPath: `[` cannot be read (byte 3)
        paths.LONG: the name of a variable has more than 256 characters (byte 0)
        template: `<fin>` is used, and `paths` does not define it (byte 18)
        ");
        assert_eq!(Input::compile(&spec).err(), errors.into_iter().next());
    }

    #[test]
    fn limits_are_aws_limits() {
        let many: BTreeMap<String, String> = (0..=MAX_PATHS)
            .map(|n| (format!("v{n}"), "$".to_owned()))
            .collect();
        let full: BTreeMap<String, String> = many
            .iter()
            .take(MAX_PATHS)
            .map(|(n, p)| (n.clone(), p.clone()))
            .collect();
        let text = |n: usize| format!("\"{}\"", "é".repeat(n - 2));
        let path = format!("$.{}", "a".repeat(MAX_PATH - 2));
        fn transformer(paths: &BTreeMap<String, String>, template: &str) -> Vec<InputError> {
            Input::check(&TargetInputSpec::Transformer { paths, template })
        }
        assert_eq!(transformer(&full, &text(MAX_TEMPLATE)), []);
        assert_eq!(transformer(&many, "1").len(), 1);
        assert_eq!(transformer(&full, &text(MAX_TEMPLATE + 1)).len(), 1);
        assert_eq!(
            Input::check(&TargetInputSpec::Constant(&text(MAX_CONSTANT))),
            []
        );
        assert_eq!(
            Input::check(&TargetInputSpec::Constant(&text(MAX_CONSTANT + 1))).len(),
            1
        );
        assert_eq!(Input::check(&TargetInputSpec::Path(&path)), []);
        assert_eq!(
            Input::check(&TargetInputSpec::Path(&format!("{path}a"))).len(),
            1
        );
    }

    #[test]
    fn a_constant_must_be_json() {
        let error = Input::compile(&TargetInputSpec::Constant("{\"a\":\n [1, x]}")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "input: the input is not JSON: expected value (byte 11)"
        );
    }

    #[test]
    fn an_arn_names_the_bus_unless_it_is_the_default() {
        assert_eq!(
            rule_arn("local", "000000000000", "default", "r"),
            "arn:aws:events:local:000000000000:rule/r"
        );
        assert_eq!(
            rule_arn("eu", "1", "b", "r"),
            "arn:aws:events:eu:1:rule/b/r"
        );
    }
}
