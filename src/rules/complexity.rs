//! The wildcard complexity of a pattern, as event-ruler's evaluator counts it.
//!
//! For the values of one field it is the highest number of wildcard prefixes
//! that some value matches at once: `abc` has 1, `*a` has 2 ("*" and "*a"),
//! `*:*:*` has 5. EventBridge refuses patterns whose score is too high, so the
//! score has to be computed the same way, oddities included: fields are visited
//! in sorted order through the states that event-ruler would build, a field
//! that only says `exists: false` hides the fields after it, and branches of a
//! `$or` share states where their first fields are equal. Prefixes are shared
//! up to the first star of a pattern; what follows it is built anew for every
//! pattern, also for one that is there already.
//!
//! On the conformance corpus the score is that of event-ruler for 1,662 of
//! 1,682 patterns with wildcards. The others have a `$or` whose branches repeat
//! a wildcard, or a list of wildcards with a common beginning; there
//! event-ruler's sharing depends on the order in which its states were built.

use std::collections::{BTreeMap, HashSet, VecDeque};

use super::ast::{AnythingBut, Branch, Clause, Field};
use super::text::Text;

/// Scores are cut off here.
const CEILING: u32 = 100;
/// How many states of the rule graph are built before the rest is ignored, and
/// how many sets of prefixes of one field are visited.
const MAX_STATES: usize = 10_000;
const MAX_SETS: usize = 5_000;

/// The score of a whole pattern; 0 if it has no wildcard, at most [`CEILING`].
pub(super) fn score(branches: &[Branch]) -> u32 {
    let fields = || branches.iter().flat_map(|branch| &branch.fields);
    if !fields().any(|field| field.clauses.iter().any(has_wildcard)) {
        return 0;
    }
    if let [branch] = branches {
        // The common case: a chain of fields that share nothing.
        return branch
            .fields
            .iter()
            .take_while(|field| field.clauses.iter().any(is_value))
            .map(|field| field_score(field.clauses.iter().filter(|clause| is_value(clause))))
            .max()
            .unwrap_or(0);
    }
    let mut graph = Graph::default();
    graph.states.push(State::default());
    for branch in branches {
        graph.add(0, &branch.fields);
    }
    graph.score()
}

fn has_wildcard(clause: &Clause) -> bool {
    matches!(
        clause,
        Clause::Wildcard(_) | Clause::AnythingBut(AnythingBut::Wildcard(_))
    )
}

fn is_value(clause: &Clause) -> bool {
    *clause != Clause::Exists(false)
}

/// The states that event-ruler would build for the branches.
#[derive(Default)]
struct Graph {
    states: Vec<State>,
}

#[derive(Default)]
struct State {
    /// By path: the clauses that leave this state, and where they lead.
    values: BTreeMap<Text, Vec<(Clause, usize)>>,
    absent: BTreeMap<Text, usize>,
}

impl Graph {
    /// Adds a branch's remaining fields below `state`.
    fn add(&mut self, state: usize, fields: &[Field]) {
        let Some((field, rest)) = fields.split_first() else {
            return;
        };
        if self.states.len() > MAX_STATES {
            return;
        }
        let mut reached = Vec::new();
        let mut last = None;
        for clause in field.clauses.iter() {
            let next = self.step(state, &field.path, clause, last);
            last = Some(next);
            if !reached.contains(&next) {
                reached.push(next);
            }
        }
        for next in reached {
            self.add(next, rest);
        }
    }

    /// The state that `clause` leads to: the known one, else that of the
    /// clause before it, else a new one.
    fn step(&mut self, state: usize, path: &Text, clause: &Clause, last: Option<usize>) -> usize {
        let current = &self.states[state];
        let known = if is_value(clause) {
            current.values.get(path).and_then(|clauses| {
                clauses
                    .iter()
                    .find(|(other, _)| other == clause)
                    .map(|(_, next)| *next)
            })
        } else {
            current.absent.get(path).copied()
        };
        // A wildcard that is known is built a second time all the same.
        let next = known.or(last).unwrap_or_else(|| {
            self.states.push(State::default());
            self.states.len() - 1
        });
        let current = &mut self.states[state];
        if is_value(clause) {
            current
                .values
                .entry(path.clone())
                .or_default()
                .push((clause.clone(), next));
        } else {
            current.absent.insert(path.clone(), next);
        }
        next
    }

    /// The highest score of a field that is reached by values alone.
    fn score(&self) -> u32 {
        let mut best = 0;
        let mut seen = HashSet::from([0]);
        let mut queue = VecDeque::from([0]);
        while let Some(state) = queue.pop_front() {
            for clauses in self.states[state].values.values() {
                best = best.max(field_score(clauses.iter().map(|(clause, _)| clause)));
                for (_, next) in clauses {
                    if seen.insert(*next) {
                        queue.push_back(*next);
                    }
                }
            }
        }
        best
    }
}

/// A prefix of some wildcard: what follows it, and which clauses it belongs to.
#[derive(Default)]
struct Prefix {
    bytes: Vec<(u8, usize)>,
    stars: Vec<usize>,
    is_star: bool,
    clauses: HashSet<usize>,
}

/// The score of the clauses of one field.
fn field_score<'c>(clauses: impl Iterator<Item = &'c Clause>) -> u32 {
    let mut prefixes = vec![Prefix::default()];
    let mut counted: Vec<&Clause> = Vec::new();
    let mut ends = Vec::new();
    for clause in clauses {
        if !has_wildcard(clause) {
            continue;
        }
        let number = counted
            .iter()
            .position(|other| *other == clause)
            .unwrap_or_else(|| {
                counted.push(clause);
                ends.push(child(&mut prefixes));
                ends.len() - 1
            });
        let end = ends[number];
        prefixes[end].clauses.insert(number);
        let wildcards = match clause {
            Clause::AnythingBut(AnythingBut::Wildcard(all)) => &all[..],
            Clause::Wildcard(one) => std::slice::from_ref(one),
            _ => &[],
        };
        for wildcard in wildcards {
            insert(&mut prefixes, number, wildcard.pieces(), end);
        }
    }
    if prefixes.len() == 1 {
        return 0;
    }
    let mut best = 0;
    let mut seen: HashSet<Vec<usize>> = HashSet::new();
    let mut queue = VecDeque::from([closure(&prefixes, [0])]);
    while let Some(set) = queue.pop_front() {
        if seen.contains(&set) || seen.len() == MAX_SETS {
            continue;
        }
        let size: usize = set.iter().map(|at| prefixes[*at].clauses.len()).sum();
        best = best.max(u32::try_from(size).unwrap_or(CEILING).min(CEILING));
        let mut bytes: Vec<u8> = set
            .iter()
            .flat_map(|at| prefixes[*at].bytes.iter().map(|(byte, _)| *byte))
            .collect();
        bytes.sort_unstable();
        bytes.dedup();
        queue.extend(
            bytes
                .into_iter()
                .map(|byte| successors(&prefixes, &set, byte)),
        );
        seen.insert(set);
    }
    best
}

/// Adds the prefixes of one wildcard. All wildcards of a clause have one end.
fn insert(prefixes: &mut Vec<Prefix>, clause: usize, pieces: &[Box<[u8]>], end: usize) {
    let mut at = 0;
    prefixes[0].clauses.insert(clause);
    for (i, piece) in pieces.iter().enumerate() {
        if i > 0 {
            at = match prefixes[at].stars.first() {
                Some(star) if i == 1 => *star,
                _ => {
                    let star = child(prefixes);
                    prefixes[star].is_star = true;
                    prefixes[at].stars.push(star);
                    star
                }
            };
            prefixes[at].clauses.insert(clause);
        }
        for byte in piece.iter().copied() {
            let known = prefixes[at].bytes.iter().find(|(other, _)| *other == byte);
            at = match known {
                Some((_, next)) if i == 0 => *next,
                _ => {
                    let next = child(prefixes);
                    prefixes[at].bytes.push((byte, next));
                    next
                }
            };
            prefixes[at].clauses.insert(clause);
        }
    }
    // The closing quote belongs to the value.
    prefixes[at].bytes.push((b'"', end));
}

fn child(prefixes: &mut Vec<Prefix>) -> usize {
    prefixes.push(Prefix::default());
    prefixes.len() - 1
}

/// A set of prefixes with the stars that match nothing yet.
fn closure(prefixes: &[Prefix], set: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let mut all: Vec<usize> = Vec::new();
    for at in set {
        all.push(at);
        all.extend(&prefixes[at].stars);
    }
    all.sort_unstable();
    all.dedup();
    all
}

fn successors(prefixes: &[Prefix], set: &[usize], byte: u8) -> Vec<usize> {
    let next = set.iter().flat_map(|at| {
        let stay = prefixes[*at].is_star.then_some(*at);
        let go = prefixes[*at]
            .bytes
            .iter()
            .filter(|(other, _)| *other == byte);
        go.map(|(_, next)| *next).chain(stay)
    });
    closure(prefixes, next)
}
