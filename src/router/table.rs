//! The rules of every bus, compiled: from an event's bytes to its deliveries.

use super::schema::{Breach, TypeSchema};
use crate::bus::{NewDelivery, RouteId};
use crate::clock::SharedClock;
use crate::event::Event;
use crate::rules::{EventError, Mode, Pattern, RuleId, RuleSet, Scratch, Snapshot};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A rule's end: one route.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where it leads.
    pub route: RouteId,
    /// The route's name.
    pub name: String,
    /// Dotted path of the ordering key in the event.
    pub order_by: Option<String>,
    /// How long a new message waits.
    pub delay: Duration,
}

/// Why the rules cannot be compiled.
#[derive(Debug, thiserror::Error)]
#[error("rule `{rule}`: {reason}")]
pub struct TableError {
    /// The rule.
    pub rule: String,
    /// What is wrong.
    pub reason: String,
}

/// The rules of every bus, compiled. Immutable.
pub struct Table {
    buses: HashMap<String, BusRules>,
    schemas: Vec<TypeSchema>,
    version: u32,
    clock: SharedClock,
}

/// The rules of one bus.
struct BusRules {
    set: RuleSet,
    /// What `set` compiles to; made anew when a rule is added.
    snapshot: Snapshot,
    rules: Vec<Compiled>,
    /// Scratch space of matches that are done, for those to come.
    spare: Mutex<Vec<Scratch>>,
}

struct Compiled {
    name: String,
    pattern: Arc<Pattern>,
    entries: Vec<Entry>,
}

impl Table {
    /// No rules.
    #[must_use]
    pub fn new(version: u32, clock: SharedClock) -> Self {
        Self {
            buses: HashMap::new(),
            schemas: Vec::new(),
            version,
            clock,
        }
    }

    /// Version of the rules.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Adds a rule of `bus`.
    ///
    /// # Errors
    /// When the matcher cannot take the pattern.
    pub fn add(
        &mut self,
        bus: &str,
        name: &str,
        pattern: Arc<Pattern>,
        entries: Vec<Entry>,
    ) -> Result<(), TableError> {
        let rules = self
            .buses
            .entry(bus.to_owned())
            .or_insert_with(BusRules::new);
        let error = |reason: String| TableError {
            rule: name.to_owned(),
            reason,
        };
        let id = u32::try_from(rules.rules.len()).map_err(|e| error(e.to_string()))?;
        rules.set.add(RuleId(id), &pattern);
        rules.snapshot = rules.set.snapshot();
        rules.rules.push(Compiled {
            name: name.to_owned(),
            pattern,
            entries,
        });
        Ok(())
    }

    /// Adds an event type that is checked when it arrives.
    pub fn add_schema(&mut self, schema: TypeSchema) {
        self.schemas.push(schema);
    }

    /// How an event breaks the schema of its type, if it does.
    #[must_use]
    pub fn breach(&self, event: &Event) -> Option<Breach> {
        self.schemas.iter().find_map(|schema| schema.breach(event))
    }

    /// The deliveries of an event, one per target of each rule that matches.
    ///
    /// # Errors
    /// When its arrays are too entangled to decide a rule
    /// ([`MAX_STEPS`](crate::rules::MAX_STEPS)).
    pub fn deliveries(&self, bus: &str, event: &Event) -> Result<Vec<NewDelivery>, EventError> {
        let mut deliveries = Vec::new();
        // What is an event is well-formed: reading it looked at every byte.
        self.matching(bus, Mode::Fast, event.text(), |rule| {
            for entry in &rule.entries {
                deliveries.push(self.delivery(entry, event));
            }
        })?;
        Ok(deliveries)
    }

    /// Names of the routes that an event would take.
    ///
    /// # Errors
    /// When the event is not well-formed JSON.
    pub fn routes(&self, bus: &str, event: &[u8]) -> Result<Vec<String>, EventError> {
        let mut names = Vec::new();
        self.matching(bus, Mode::Validating, event, |rule| {
            names.extend(rule.entries.iter().map(|entry| entry.name.clone()));
        })?;
        Ok(names)
    }

    /// Names and patterns of a bus's rules.
    pub fn patterns(&self, bus: &str) -> impl Iterator<Item = (&str, &Arc<Pattern>)> {
        self.buses
            .get(bus)
            .into_iter()
            .flat_map(|rules| &rules.rules)
            .map(|rule| (rule.name.as_str(), &rule.pattern))
    }

    /// The rule that leads to a route, and its pattern, for events of the past.
    #[must_use]
    pub fn route(&self, name: &str) -> Option<RouteRule<'_>> {
        self.buses.iter().find_map(|(bus, rules)| {
            rules.rules.iter().find_map(|rule| {
                let entry = rule.entries.iter().find(|entry| entry.name == name)?;
                Some(RouteRule {
                    bus,
                    pattern: &rule.pattern,
                    entry,
                })
            })
        })
    }

    /// Names of all routes.
    #[must_use]
    pub fn route_names(&self) -> Vec<&str> {
        let rules = self.buses.values().flat_map(|rules| &rules.rules);
        let entries = rules.flat_map(|rule| &rule.entries);
        let mut names: Vec<&str> = entries.map(|entry| entry.name.as_str()).collect();
        names.sort_unstable();
        names
    }

    fn matching(
        &self,
        bus: &str,
        mode: Mode,
        event: &[u8],
        mut each: impl FnMut(&Compiled),
    ) -> Result<(), EventError> {
        let Some(rules) = self.buses.get(bus) else {
            return Ok(());
        };
        let mut scratch = rules.scratch();
        let matched = rules.snapshot.matches_in(mode, event, &mut scratch);
        let result = matched.map(|ids| {
            for id in ids {
                if let Some(rule) = rules.rules.get(id.0 as usize) {
                    each(rule);
                }
            }
        });
        rules.give_back(scratch);
        result
    }

    fn delivery(&self, entry: &Entry, event: &Event) -> NewDelivery {
        let delay = i64::try_from(entry.delay.as_millis()).unwrap_or(i64::MAX);
        NewDelivery {
            route: entry.route,
            key: entry
                .order_by
                .as_ref()
                // A missing value keeps no order.
                .and_then(|path| event.text_at(path)),
            not_before_ms: (delay > 0).then(|| self.clock.now_ms().saturating_add(delay)),
        }
    }
}

/// One route, with what decides which events it gets.
#[derive(Clone, Copy)]
pub struct RouteRule<'a> {
    /// The bus that the rule listens on.
    pub bus: &'a str,
    /// What it matches.
    pub pattern: &'a Pattern,
    /// The route.
    pub entry: &'a Entry,
}

impl RouteRule<'_> {
    /// The ordering key of an event on this route.
    #[must_use]
    pub fn key(&self, event: &Event) -> Option<String> {
        let path = self.entry.order_by.as_ref()?;
        event.text_at(path)
    }
}

impl BusRules {
    fn new() -> Self {
        Self {
            set: RuleSet::default(),
            snapshot: Snapshot::default(),
            rules: Vec::new(),
            spare: Mutex::new(Vec::new()),
        }
    }

    fn scratch(&self) -> Scratch {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        spare.pop().unwrap_or_default()
    }

    fn give_back(&self, scratch: Scratch) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        spare.push(scratch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Defaults;

    /// [`Table::deliveries`] relies on it.
    #[test]
    fn whatever_passes_as_an_event_is_well_formed() {
        let event = r#"{"id":"a","source":"s","detail-type":"T","detail":{"a":[-0.5e1,{"b":"\ud83d\n","c":[]}],"d":null}}"#;
        let pieces = [
            "", "{", "}", "[", "]", ",", ":", "\"", "0", "-", ".", "e", "t", "null", "\"k\":1",
            " ", "\u{1}", "\\", "\\u", "\\ud800", "\u{b}", "é", "{}", "1e999", "\n{}",
        ];
        let (rules, mut scratch) = (Snapshot::default(), Scratch::new());
        let (mut passed, mut refused) = (0, 0);
        for at in 0..=event.len() {
            for len in 0..4 {
                let Some(rest) = event.get(at + len..) else {
                    continue;
                };
                for piece in pieces {
                    // Cut bytes, too: texts are not always UTF-8.
                    let mut text = event.as_bytes()[..at].to_vec();
                    text.extend_from_slice(piece.as_bytes());
                    text.extend_from_slice(rest.as_bytes());
                    if len == 3 {
                        text.insert(at, 0xc3);
                    }
                    match Event::complete(&text, &Defaults::default(), 0) {
                        Ok(event) => {
                            passed += 1;
                            let found =
                                rules.matches_in(Mode::Validating, event.text(), &mut scratch);
                            assert!(found.is_ok(), "{}", String::from_utf8_lossy(&text));
                        }
                        Err(_) => refused += 1,
                    }
                }
            }
        }
        assert!(passed > 500 && refused > 500, "{passed} {refused}");
    }
}
