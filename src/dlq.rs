//! The end of the road: what failed for good, why, and the way back.
//!
//! A dead letter is the event, whole, with the error of every attempt. It is
//! looked at, redriven (to its own route or another) or purged with a reason.

use crate::bus::{Bus, BusError, DeadFilter, DeadLetter, RouteId};
use crate::rules::{self, Pattern};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::time::Duration;

/// Dead letters read at a time.
const PAGE: usize = 200;

/// Which dead letters are meant.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only those of this route.
    pub route: Option<String>,
    /// Only this event, by sequence number.
    pub seq: Option<u64>,
    /// Only events that this pattern matches.
    pub filter: Option<Pattern>,
    /// Only those whose last error has this code (`SchemaMismatch`) or class.
    pub cause: Option<String>,
    /// At most this many; `None`: all.
    pub limit: Option<usize>,
}

/// A dead letter, for people and programs.
#[derive(Debug, Serialize)]
pub struct Letter {
    /// The route that it failed on.
    pub route: String,
    /// Sequence number of the event.
    pub seq: u64,
    /// The event's id.
    pub id: Option<String>,
    /// When it was given up, RFC 3339.
    pub failed_at: String,
    /// How often it was tried.
    pub attempts: u32,
    /// The error of every attempt, oldest first.
    pub errors: Vec<Attempt>,
    /// Handler, queue, rules' version, reason and trace.
    pub context: Value,
    /// The event as it came; absent where its bytes cannot be read any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Box<RawValue>>,
}

/// One failed attempt.
#[derive(Debug, Serialize)]
pub struct Attempt {
    /// `permanent`, `transient` or `throttled`.
    pub class: String,
    /// What happened, beginning with the error's code.
    pub message: String,
    /// The causes below it, outermost first.
    pub chain: Vec<String>,
    /// When, RFC 3339.
    pub at: String,
    /// Which handler.
    pub handler: String,
}

/// Dead letters that have one cause.
#[derive(Debug, Serialize)]
pub struct Group {
    /// The route.
    pub route: String,
    /// Code of the last error.
    pub cause: String,
    /// How many.
    pub count: u64,
    /// An example's message.
    pub example: String,
    /// Sequence number of the example.
    pub seq: u64,
}

/// Why a request on dead letters cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum DlqError {
    /// No route has this name.
    #[error("no route is named `{0}`")]
    UnknownRoute(String),
    /// It is not among the dead letters.
    #[error("event {0} is not among the dead letters")]
    Gone(u64),
    /// It lies on several routes.
    #[error("event {0} lies on several routes: {names}; name one", names = .1.join(", "))]
    Several(u64, Vec<String>),
    /// The log does not answer.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// Dead letters that are meant, oldest first within a route.
///
/// # Errors
/// When the route is unknown or the log cannot be read.
pub fn list(bus: &Bus, selection: &Selection) -> Result<Vec<Letter>, DlqError> {
    let names = names(bus);
    let mut letters = Vec::new();
    each(bus, selection, |dead| letters.push(letter(&names, dead)))?;
    Ok(letters)
}

/// Dead letters that are meant, by route and cause, the most frequent first.
///
/// # Errors
/// When the route is unknown or the log cannot be read.
pub fn groups(bus: &Bus, selection: &Selection) -> Result<Vec<Group>, DlqError> {
    let names = names(bus);
    let mut groups: BTreeMap<(RouteId, String), Group> = BTreeMap::new();
    each(bus, selection, |dead| {
        let cause = cause(&dead);
        let example = dead.errors.last().map_or("", |e| e.message.as_str());
        groups
            .entry((dead.route, cause.clone()))
            .or_insert_with(|| Group {
                route: name(&names, dead.route),
                cause,
                count: 0,
                example: example.to_owned(),
                seq: dead.seq,
            })
            .count += 1;
    })?;
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.route.cmp(&b.route)));
    Ok(groups)
}

/// Makes dead letters pending again, attempts starting anew, at most
/// `per_second` of them a second. Answers how many.
///
/// # Errors
/// When a route is unknown or the log does not answer.
pub async fn redrive(
    bus: &Bus,
    selection: &Selection,
    to: Option<&str>,
    per_second: Option<f64>,
) -> Result<u64, DlqError> {
    let to = to.map(|name| route_id(bus, name)).transpose()?;
    let chunk = per_second.map_or(1_000, |rate| (rate.ceil().clamp(1.0, 1_000.0)) as usize);
    let mut redriven = 0;
    for (route, seqs) in chosen(bus, selection)? {
        for seqs in seqs.chunks(chunk) {
            redriven += bus.redrive(route, seqs, to).await?.redriven;
            if let Some(rate) = per_second {
                let pause = Duration::try_from_secs_f64(seqs.len() as f64 / rate);
                tokio::time::sleep(pause.unwrap_or_default()).await;
            }
        }
    }
    Ok(redriven)
}

/// The one dead letter of an event, on `route` or wherever it lies, with the name
/// of its route.
///
/// # Errors
/// When there is none, or more than one.
pub fn one(bus: &Bus, seq: u64, route: Option<&str>) -> Result<(String, DeadLetter), DlqError> {
    let selection = Selection {
        route: route.map(str::to_owned),
        seq: Some(seq),
        ..Selection::default()
    };
    let mut found = Vec::new();
    each(bus, &selection, |dead| found.push(dead))?;
    let names = names(bus);
    let of = |dead: &DeadLetter| name(&names, dead.route);
    if found.len() > 1 {
        return Err(DlqError::Several(seq, found.iter().map(of).collect()));
    }
    let dead = found.pop().ok_or(DlqError::Gone(seq))?;
    Ok((of(&dead), dead))
}

/// Drops dead letters, for a reason that the log keeps. Answers how many.
///
/// # Errors
/// When the route is unknown or the log does not answer.
pub async fn purge(bus: &Bus, selection: &Selection, why: &str) -> Result<u64, DlqError> {
    let mut purged = 0;
    for (route, seqs) in chosen(bus, selection)? {
        purged += bus.purge(route, &seqs, why).await?;
    }
    Ok(purged)
}

/// Sequence numbers of the dead letters that are meant, by route.
fn chosen(bus: &Bus, selection: &Selection) -> Result<BTreeMap<RouteId, Vec<u64>>, DlqError> {
    let mut chosen: BTreeMap<RouteId, Vec<u64>> = BTreeMap::new();
    each(bus, selection, |dead| {
        chosen.entry(dead.route).or_default().push(dead.seq);
    })?;
    Ok(chosen)
}

fn each(
    bus: &Bus,
    selection: &Selection,
    mut visit: impl FnMut(DeadLetter),
) -> Result<(), DlqError> {
    let routes = match &selection.route {
        None => Vec::new(),
        Some(name) => vec![route_id(bus, name)?],
    };
    let mut left = selection.limit.unwrap_or(usize::MAX);
    let mut filter = DeadFilter {
        routes,
        limit: PAGE,
        ..DeadFilter::default()
    };
    loop {
        let page = bus.dead(&filter)?;
        for dead in page.letters {
            if left == 0 {
                return Ok(());
            }
            if meant(selection, &dead) {
                left -= 1;
                visit(dead);
            }
        }
        match page.next {
            None => return Ok(()),
            next => filter.after = next,
        }
    }
}

fn meant(selection: &Selection, dead: &DeadLetter) -> bool {
    let by_seq = selection.seq.is_none_or(|seq| seq == dead.seq);
    let by_cause = selection.cause.as_ref().is_none_or(|wanted| {
        *wanted == cause(dead) || dead.errors.last().is_some_and(|e| e.class == *wanted)
    });
    let by_filter = selection.filter.as_ref().is_none_or(|pattern| {
        let event = dead.event.as_ref();
        event.is_some_and(|e| rules::matches(pattern, &e.payload).unwrap_or(false))
    });
    by_seq && by_cause && by_filter
}

/// The code at the beginning of the last error's message.
fn cause(dead: &DeadLetter) -> String {
    let message = dead.errors.last().map_or("", |e| e.message.as_str());
    match message.split_once(": ") {
        Some((code, _)) => code.to_owned(),
        None => "Unknown".to_owned(),
    }
}

fn letter(names: &BTreeMap<RouteId, String>, dead: DeadLetter) -> Letter {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Letter {
        route: name(names, dead.route),
        seq: dead.seq,
        id: dead.event.as_ref().map(|e| e.id.clone()),
        failed_at: crate::event::rfc3339(dead.dead_at_ms),
        attempts: dead.attempts,
        errors: dead
            .errors
            .into_iter()
            .map(|e| Attempt {
                class: e.class,
                message: e.message,
                chain: e.chain,
                at: crate::event::rfc3339(e.at_ms),
                handler: e.handler,
            })
            .collect(),
        context: serde_json::from_slice(&dead.context).unwrap_or(Value::Null),
        event: dead
            .event
            .and_then(|e| RawValue::from_string(text(&e.payload)).ok()),
    }
}

fn names(bus: &Bus) -> BTreeMap<RouteId, String> {
    bus.routes().into_iter().map(|r| (r.id, r.name)).collect()
}

fn name(names: &BTreeMap<RouteId, String>, id: RouteId) -> String {
    names.get(&id).cloned().unwrap_or_default()
}

fn route_id(bus: &Bus, name: &str) -> Result<RouteId, DlqError> {
    bus.route_id(name)
        .ok_or_else(|| DlqError::UnknownRoute(name.to_owned()))
}
