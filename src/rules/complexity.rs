//! The wildcard complexity of a pattern, as event-ruler's evaluator counts it.
//!
//! For the values of one field it is the highest number of wildcard prefixes
//! that some value matches at once: `abc` has 1, `*a` has 2 ("*" and "*a"),
//! `*:*:*` has 5. EventBridge refuses patterns whose score is too high, so the
//! score has to be computed the same way, oddities included. What it counts
//! depends on how event-ruler builds its machines (`ByteMachine.addMatchValue`
//! and `addEndOfMatch`, `GenericMachine.addStep`, `MachineComplexityEvaluator`
//! in <https://github.com/aws/event-ruler>), so this module builds the same
//! states, for wildcards only: nothing else counts.
//!
//! - Fields are visited in sorted order. A field that only says
//!   `exists: false` hides the fields after it, since no value leads there.
//! - The branches of a `$or` share a state where a clause is already there,
//!   unless it is a wildcard that was built anew.
//! - A wildcard follows the states of another one up to the first star, and
//!   behind it as long as the characters have no case: from the first letter on
//!   it is built anew, even if the very same pattern is there.

use std::collections::{BTreeMap, HashSet, VecDeque};

use super::alone;
use super::ast::{AnythingBut, Branch, Clause, Field, Literal, Range};
use super::machine::{Machine, steps};
use super::text::Text;
use super::wildcard::Wildcard;

/// Scores are cut off here.
pub(super) const CEILING: u32 = 100;
/// How many states of the rule graph are built before the rest is ignored, and
/// how many sets of prefixes of one field are visited.
const MAX_STATES: usize = 10_000;
pub(super) const MAX_SETS: usize = 50_000;

/// The score of a whole pattern; 0 if it has no wildcard, at most [`CEILING`].
pub(super) fn score(branches: &[Branch]) -> u32 {
    let fields = || branches.iter().flat_map(|branch| &branch.fields);
    if !fields().any(|field| field.clauses.iter().any(has_wildcard)) {
        return 0;
    }
    if let [branch] = branches {
        // The common case: a chain of fields that share nothing.
        let values = |field: &&Field| {
            field
                .clauses
                .iter()
                .any(|one| *one != Clause::Exists(false))
        };
        let reached = branch.fields.iter().take_while(values);
        return reached.map(field_score).max().unwrap_or(0);
    }
    let mut graph = Graph {
        states: vec![State::default()],
    };
    for branch in branches {
        graph.add(0, &branch.fields);
    }
    graph.score()
}

/// The score of a field that shares nothing with others.
fn field_score(field: &Field) -> u32 {
    let mut all = field.clauses.iter().flat_map(wildcards);
    let alone = match (all.next(), all.next()) {
        (None, _) => Some(0),
        (Some(only), None) => alone::score(&steps(only)),
        _ => None,
    };
    alone.unwrap_or_else(|| {
        let mut machine = Machine::default();
        for clause in field.clauses.iter().filter(|clause| has_wildcard(clause)) {
            machine.add(clause, 0);
        }
        machine.score()
    })
}

fn has_wildcard(clause: &Clause) -> bool {
    !wildcards(clause).is_empty()
}

/// The wildcards of a clause.
pub(super) fn wildcards(clause: &Clause) -> &[Wildcard] {
    match clause {
        Clause::AnythingBut(AnythingBut::Wildcard(all)) => all,
        Clause::Wildcard(one) => std::slice::from_ref(one),
        _ => &[],
    }
}

/// The states that event-ruler would build for the branches.
struct Graph {
    states: Vec<State>,
}

#[derive(Default)]
struct State {
    /// By path: what leaves this state.
    values: BTreeMap<Text, Values>,
    absent: BTreeMap<Text, usize>,
}

/// What leaves a state by the values of one path.
#[derive(Default)]
struct Values {
    /// Clauses without wildcards, and the states that they lead to.
    plain: Vec<(Clause, usize)>,
    wildcards: Machine,
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
        for clause in field.clauses.iter().flat_map(parts) {
            let next = self.step(state, &field.path, &clause, last);
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
        let next = last.unwrap_or_else(|| {
            self.states.push(State::default());
            self.states.len() - 1
        });
        let current = &mut self.states[state];
        if *clause == Clause::Exists(false) {
            return *current.absent.entry(path.clone()).or_insert(next);
        }
        let values = current.values.entry(path.clone()).or_default();
        if has_wildcard(clause) {
            return values.wildcards.add(clause, next);
        }
        let known = values.plain.iter().find(|(other, _)| other == clause);
        if let Some((_, next)) = known {
            return *next;
        }
        values.plain.push((clause.clone(), next));
        next
    }

    /// The highest score of a field that is reached by values alone.
    fn score(&self) -> u32 {
        let mut best = 0;
        let mut seen = HashSet::from([0]);
        let mut queue = VecDeque::from([0]);
        while let Some(state) = queue.pop_front() {
            for values in self.states[state].values.values() {
                best = best.max(values.wildcards.score());
                let plain = values.plain.iter().map(|(_, next)| *next);
                for next in plain.chain(values.wildcards.next_states()) {
                    if seen.insert(next) {
                        queue.push_back(next);
                    }
                }
            }
        }
        best
    }
}

/// A clause as event-ruler's patterns, spelled so that equal ones are equal: a
/// number is its value and its text, a list a sorted one without repetition.
fn parts(clause: &Clause) -> Vec<Clause> {
    let point = |value| {
        Clause::Range(Range {
            lower: Some((value, true)),
            upper: Some((value, true)),
        })
    };
    match clause {
        Clause::Number(literal) => {
            let text = Clause::Number(Literal {
                text: literal.text.clone(),
                value: None,
            });
            literal.value.map(point).into_iter().chain([text]).collect()
        }
        Clause::AnythingBut(AnythingBut::Texts(all)) => {
            vec![Clause::AnythingBut(AnythingBut::Texts(sorted(all)))]
        }
        Clause::AnythingBut(AnythingBut::Prefix(all)) => {
            vec![Clause::AnythingBut(AnythingBut::Prefix(sorted(all)))]
        }
        Clause::AnythingBut(AnythingBut::Suffix(all)) => {
            vec![Clause::AnythingBut(AnythingBut::Suffix(sorted(all)))]
        }
        other => vec![other.clone()],
    }
}

fn sorted(texts: &[Text]) -> Vec<Text> {
    let mut texts = texts.to_vec();
    texts.sort();
    texts.dedup();
    texts
}
