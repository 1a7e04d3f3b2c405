//! Loops, found without running anything: a rule whose pattern matches what its
//! own handler emits, and buses that forward to each other in a circle.

use super::model::{Config, HandlerKind, Route, Rule, To};
use super::pattern::{self, Overlap};
use crate::emit;
use crate::error::{Diagnostic, codes};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// `detail-type` of what a transform emits.
const READY: &str = "Analytics Ready";

/// A way from one rule to another.
struct Edge<'a> {
    to: &'a str,
    /// What lies between, for the message.
    through: String,
    /// Whether every such event takes this way.
    always: bool,
}

type Graph<'a> = BTreeMap<&'a str, Vec<Edge<'a>>>;

/// One diagnostic per loop.
pub(super) fn check(config: &Config) -> Vec<Diagnostic> {
    let mut graph: Graph<'_> = Graph::new();
    let mut fed = Fed::new();
    for route in config.routes() {
        let Some(rule) = config.rules.get(route.rule).filter(|rule| rule.enabled) else {
            continue;
        };
        let found = edges(config, &route, rule, &mut fed);
        graph.entry(route.rule).or_default().extend(found);
    }
    let mut seen = BTreeSet::new();
    let mut diagnostics = Vec::new();
    for start in graph.keys() {
        let Some(way) = shortest_loop(&graph, start) else {
            continue;
        };
        let members: BTreeSet<&str> = way.iter().map(|edge| edge.to).collect();
        if seen.insert(members) {
            diagnostics.push(describe(config, start, &way));
        }
    }
    diagnostics
}

fn enabled(config: &Config) -> impl Iterator<Item = (&str, &Rule)> {
    config
        .rules
        .iter()
        .filter(|(_, rule)| rule.enabled)
        .map(|(name, rule)| (name.as_str(), rule))
}

/// Bus and table -> the rules that match what a transform emits, and whether always.
type Fed<'a> = BTreeMap<(&'a str, &'a str), Vec<(&'a str, bool)>>;

/// Rules on `bus` that match what a transform into `table` emits.
fn fed_by<'a>(config: &'a Config, bus: &'a str, table: &'a str) -> Vec<(&'a str, bool)> {
    let emitted = [
        ("source", emit::SOURCE),
        ("detail-type", READY),
        ("detail.table", table),
    ];
    enabled(config)
        .filter(|(_, rule)| rule.bus == bus)
        .map(|(name, rule)| (name, pattern::overlap(&rule.pattern, &emitted)))
        .filter(|(_, overlap)| *overlap > Overlap::Never)
        .map(|(name, overlap)| (name, overlap == Overlap::Always))
        .collect()
}

fn edges<'a>(
    config: &'a Config,
    route: &Route<'a>,
    rule: &'a Rule,
    fed: &mut Fed<'a>,
) -> Vec<Edge<'a>> {
    let mut edges = Vec::new();
    for handler in &route.handlers {
        let kind = config.handlers.get(*handler).map(|h| &h.kind);
        let Some(transform) = kind.and_then(HandlerKind::transform) else {
            continue;
        };
        let table = transform.write.table.as_str();
        // What a handler emits goes onto the bus that its cause came by.
        let bus = rule.bus.as_str();
        for (to, always) in fed
            .entry((bus, table))
            .or_insert_with(|| fed_by(config, bus, table))
        {
            let through = format!("handler `{handler}` emits `{READY}` of table `{table}`");
            edges.push(Edge {
                to,
                through,
                always: *always,
            });
        }
    }
    for (bus, through, filtered) in forwards(config, &route.target.to) {
        for (other, target) in enabled(config).filter(|(_, other)| other.bus == bus) {
            if !pattern::disjoint(&rule.pattern, &target.pattern) {
                edges.push(Edge {
                    to: other,
                    through: through.clone(),
                    always: !filtered && rule.pattern_text == target.pattern_text,
                });
            }
        }
    }
    edges
}

/// Buses that an event sent to `to` comes to: their names, the way, and whether a
/// filter stands in it.
fn forwards<'a>(config: &'a Config, to: &'a To) -> Vec<(&'a str, String, bool)> {
    match to {
        To::Bus(bus) => vec![(bus, format!("the event goes to bus `{bus}`"), false)],
        To::Topic(topic) => {
            let subscriptions = config.topics.get(topic).into_iter();
            subscriptions
                .flat_map(|t| t.subscriptions.values())
                .filter_map(|subscription| {
                    let To::Bus(bus) = &subscription.target.to else {
                        return None;
                    };
                    let through = format!("topic `{topic}` sends the event to bus `{bus}`");
                    Some((bus.as_str(), through, subscription.filter.is_some()))
                })
                .collect()
        }
        _ => Vec::new(),
    }
}

/// The shortest way from `start` back to it.
fn shortest_loop<'a, 'g>(graph: &'g Graph<'a>, start: &str) -> Option<Vec<&'g Edge<'a>>> {
    let mut queue: VecDeque<Vec<&Edge<'a>>> =
        graph.get(start)?.iter().map(|edge| vec![edge]).collect();
    let mut visited = BTreeSet::new();
    while let Some(way) = queue.pop_front() {
        let last = way.last()?.to;
        if last == start {
            return Some(way);
        }
        if visited.insert(last) {
            for edge in graph.get(last).into_iter().flatten() {
                let mut longer = way.clone();
                longer.push(edge);
                queue.push_back(longer);
            }
        }
    }
    None
}

fn describe(config: &Config, start: &str, way: &[&Edge<'_>]) -> Diagnostic {
    let message = match way.len() {
        1 => format!("the rule `{start}` is fed by what it causes"),
        n => format!("the rule `{start}` is fed by what it causes, through {n} rules"),
    };
    let mut diagnostic = match way.iter().all(|edge| edge.always) {
        true => Diagnostic::error(&codes::LOOP, message),
        false => Diagnostic::warning(&codes::LOOP, message),
    };
    diagnostic = diagnostic.at(config.place(&format!("rules.{start}.pattern")));
    let mut chain = format!("rule `{start}`");
    for edge in way {
        chain.push_str(&format!(" -> {} -> rule `{}`", edge.through, edge.to));
    }
    diagnostic
        .note(chain)
        .hint("make the pattern narrower, for example by `source` or by `table` in `detail`")
}
