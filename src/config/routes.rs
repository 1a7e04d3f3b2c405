//! Questions about a whole configuration.

use super::model::{Config, DEFAULT_BUS, Route, Target, To};
use super::sources::Source;
use super::yaml::{word_length, written_at};
use crate::error::Place;
use std::collections::BTreeSet;

impl Config {
    /// Every route of every rule, disabled rules included, ordered by rule; then
    /// those of the subscriptions, ordered by topic.
    #[must_use]
    pub fn routes(&self) -> Vec<Route<'_>> {
        self.rules
            .iter()
            .flat_map(|(name, rule)| {
                rule.targets.iter().map(move |target| Route {
                    rule: name,
                    declared: format!("rules.{name}.targets"),
                    bus: &rule.bus,
                    target,
                    handlers: self.handlers_of(&target.to),
                })
            })
            .chain(self.subscriptions())
            .collect()
    }

    /// Every target of every rule and every subscription.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        let rules = self.rules.values().flat_map(|rule| &rule.targets);
        let topics = self.topics.values();
        let subscribed = topics.flat_map(|t| t.subscriptions.values().map(|s| &s.target));
        rules.chain(subscribed)
    }

    fn subscriptions(&self) -> impl Iterator<Item = Route<'_>> {
        self.topics.iter().flat_map(move |(topic, options)| {
            options
                .subscriptions
                .iter()
                .map(move |(name, subscription)| Route {
                    rule: &subscription.target.route,
                    declared: format!("topics.{topic}.subscriptions.{name}"),
                    bus: &options.bus,
                    target: &subscription.target,
                    handlers: self.handlers_of(&subscription.target.to),
                })
        })
    }

    /// Handlers that work on what is sent to `to`.
    fn handlers_of(&self, to: &To) -> Vec<&str> {
        match to {
            To::Handler(name) => self
                .handlers
                .get_key_value(name)
                .map(|(name, _)| name.as_str())
                .into_iter()
                .collect(),
            To::Queue(queue) => self
                .handlers
                .iter()
                .filter(|(_, handler)| handler.from.contains(queue))
                .map(|(name, _)| name.as_str())
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Every bus that something sends to or listens on; `default` is always there.
    #[must_use]
    pub fn buses(&self) -> BTreeSet<&str> {
        self.named_buses().chain([DEFAULT_BUS]).collect()
    }

    /// The buses that something names, as often as it does.
    fn named_buses(&self) -> impl Iterator<Item = &str> {
        let sources = self.sources.values().map(Source::bus);
        let schedules = self.schedules.values().map(|s| s.bus.as_str());
        let rules = self.rules.values().map(|rule| rule.bus.as_str());
        let targets = self.targets().filter_map(|target| match &target.to {
            To::Bus(bus) => Some(bus.as_str()),
            _ => None,
        });
        sources.chain(schedules).chain(rules).chain(targets)
    }

    /// Whether there is a bus of this name: [`Self::buses`] without the list of them.
    #[must_use]
    pub fn has_bus(&self, name: &str) -> bool {
        name == DEFAULT_BUS || self.named_buses().any(|bus| bus == name)
    }

    /// Where something was written, for a diagnostic about it. `path` is dotted,
    /// for example `handlers.clean-flights.transform.sql`; where that field was
    /// left out, the place of the nearest thing around it.
    #[must_use]
    pub fn place(&self, path: &str) -> Option<Place> {
        let mut path = path;
        loop {
            if let Some(place) = self.places.get(path) {
                return Some(place.clone());
            }
            path = path.rsplit_once('.')?.0;
        }
    }

    /// A place inside a text field: line and column (both from 1) of `text`,
    /// which is the field's value, for example its SQL. Where the text is not in
    /// the file as it is (escapes, references), the place of the whole field.
    #[must_use]
    pub fn place_within(
        &self,
        path: &str,
        text: &str,
        line: usize,
        column: usize,
    ) -> Option<Place> {
        let whole = self.place(path)?;
        let exact = || {
            let source = self.texts.get(&whole.file)?;
            let start: usize = text
                .split_inclusive('\n')
                .take(line.checked_sub(1)?)
                .map(str::len)
                .sum();
            let rest = text.get(start..)?.lines().next().unwrap_or_default();
            let (within, _) = rest.char_indices().nth(column.checked_sub(1)?)?;
            let at = written_at(source, &whole.range(), text, start + within)?;
            let word = word_length(source, at);
            Some(Place::new(&whole.file, source, at..at + word))
        };
        exact().or(Some(whole.clone()))
    }
}
