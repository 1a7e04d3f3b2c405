//! Tests that users write beside their rules: an event, and the routes that it
//! must go to.

use super::fields::{Kind, Shape, field};
use super::open;
use super::read::{At, Cx, Field};
use crate::error::{Diagnostic, Place, codes, quoted};
use crate::event::{Defaults, Event};
use bytes::Bytes;
use std::path::PathBuf;

/// A test: an event, and the routes that it must go to.
#[derive(Clone, Debug)]
pub struct RuleTest {
    /// For people.
    pub name: String,
    /// The whole envelope as JSON text; what was left out is filled in.
    pub event: Bytes,
    /// Names of routes, `RULE/ID`, each with its place.
    pub routes: Vec<(String, Place)>,
    /// Where the test was written.
    pub place: Place,
}

static TEST: Shape = Shape {
    title: "a rule test",
    fields: &[
        field("name", Kind::Text, "", "for people"),
        field(
            "event",
            Kind::Any,
            "",
            "the event; `id`, `time`, `account`, `region` and `resources` may be left out",
        ),
        field(
            "routes",
            Kind::List(&Kind::Text),
            "[]",
            "the routes that it must go to, `RULE/ID`, and no others",
        ),
    ],
};

/// Reads the tests of these files.
pub(super) fn read(cx: &Cx<'_>, files: &[PathBuf]) -> Vec<RuleTest> {
    let mut tests = Vec::new();
    for path in files {
        let Ok(Some(file)) = open(cx, path) else {
            continue;
        };
        tests.extend(
            file.top(cx)
                .list()
                .unwrap_or_default()
                .iter()
                .filter_map(test),
        );
    }
    tests
}

fn test(field: &Field<'_>) -> Option<RuleTest> {
    let table = field.table(&TEST)?;
    let name = table.need("name");
    let place = name.as_ref().map_or_else(|| field.place(), Field::place);
    let name = name.and_then(|f| f.string());
    let routes = match table.need("routes") {
        Some(routes) => routes.strings(),
        None => None,
    };
    let event_field = table.need("event")?;
    let event = event_field.json()?.to_string();
    let event = match Event::complete(event.as_bytes(), &Defaults::default(), 0) {
        Ok(event) => event,
        Err(error) => {
            let message = format!("the test's event is not an event: {error}");
            field.report(event_field.error(&codes::BAD_TEST, message));
            return None;
        }
    };
    Some(RuleTest {
        name: name?,
        event: event.text().clone(),
        routes: routes?
            .into_iter()
            .map(|At { value, place }| (value, place))
            .collect(),
        place,
    })
}

/// Runs `tests`. `route` gives the routes that an event goes to; `known` are the
/// names of all routes. One diagnostic per test that fails.
pub fn run_tests(
    tests: &[RuleTest],
    known: &[String],
    route: &dyn Fn(&[u8]) -> Vec<String>,
) -> Vec<Diagnostic> {
    tests
        .iter()
        .filter_map(|test| run(test, known, route))
        .collect()
}

fn run(
    test: &RuleTest,
    known: &[String],
    route: &dyn Fn(&[u8]) -> Vec<String>,
) -> Option<Diagnostic> {
    let names = || known.iter().map(String::as_str);
    if let Some((name, place)) = test.routes.iter().find(|(name, _)| !known.contains(name)) {
        let message = format!(
            "the test `{}` expects the route `{name}`, which does not exist",
            test.name
        );
        let diagnostic = Diagnostic::error(&codes::TEST_FAILED, message).at(place.clone());
        return Some(diagnostic.suggest(name, names()));
    }
    let went = route(&test.event);
    let missed: Vec<&(String, Place)> = test
        .routes
        .iter()
        .filter(|(name, _)| !went.contains(name))
        .collect();
    let extra: Vec<&String> = went
        .iter()
        .filter(|name| !test.routes.iter().any(|(expected, _)| expected == *name))
        .collect();
    if missed.is_empty() && extra.is_empty() {
        return None;
    }
    let message = format!("the test `{}` failed", test.name);
    let mut diagnostic = Diagnostic::error(&codes::TEST_FAILED, message).at(test.place.clone());
    for (_, place) in &missed {
        diagnostic = diagnostic.related(place.clone(), "the event does not go here");
    }
    if !extra.is_empty() {
        diagnostic = diagnostic.note(format!("the event also goes to {}", quoted(&extra)));
    }
    Some(
        diagnostic
            .hint("`pointsman match --rules . --explain` shows why each rule matches or does not"),
    )
}
