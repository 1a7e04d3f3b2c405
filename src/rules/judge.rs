//! Fields and branches against the leaves of an event. The matcher and the
//! explanations both ask here, so they cannot disagree.

use super::MAX_STEPS;
use super::arrays::{self, Places};
use super::ast::Clause;
use super::error::EventFault;
use super::eval::{self, Value};
use super::paths::PathId;
use super::scan::{Fault, Leaf, Leaves, NO_ELEMENT};

/// What is known of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum State {
    /// No value matches.
    No = 0,
    /// It matches without reference to any array.
    Yes = 1,
    /// A value inside an array matches.
    InArray = 2,
    /// No value matches, but absence would, and all values are in arrays.
    Unsure = 3,
}

impl State {
    pub fn from_bits(bits: u32) -> State {
        match bits & 3 {
            0 => State::No,
            1 => State::Yes,
            2 => State::InArray,
            _ => State::Unsure,
        }
    }
}

/// The leaves of one event.
#[derive(Clone, Copy)]
pub(super) struct Event<'e> {
    pub text: &'e [u8],
    pub leaves: &'e Leaves,
}

impl<'e> Event<'e> {
    pub fn value(&self, leaf: &Leaf) -> Value<'e> {
        Value {
            kind: leaf.kind,
            bytes: self.leaves.bytes(self.text, leaf),
        }
    }

    /// What is known of a field by itself.
    pub fn state(&self, path: PathId, clauses: &[Clause]) -> State {
        let absence = clauses.contains(&Clause::Exists(false));
        let mut state = if absence { State::Yes } else { State::No };
        for leaf in self.leaves.at(path) {
            let plain = leaf.element == NO_ELEMENT;
            if eval::accepts(clauses, &self.value(leaf)) {
                return if plain { State::Yes } else { State::InArray };
            }
            // A value outside of arrays rules absence out for good.
            state = match state {
                State::No => State::No,
                _ if plain => State::No,
                _ => State::Unsure,
            };
        }
        state
    }

    /// Whether fields, given in the order of their paths, can be matched in
    /// consistent array elements.
    pub fn is_consistent<'c>(
        &self,
        fields: impl Iterator<Item = (PathId, &'c [Clause])>,
    ) -> Result<bool, Fault> {
        let mut all: Vec<Places> = fields
            .map(|(path, clauses)| self.places(path, clauses))
            .collect();
        arrays::consistent(
            &mut all,
            &self.leaves.elements,
            &self.leaves.arrays,
            MAX_STEPS,
        )
        .map_err(|arrays::TooMany| (EventFault::TooManySteps, 0))
    }

    fn places(&self, path: PathId, clauses: &[Clause]) -> Places {
        let mut places = Places::default();
        if clauses.contains(&Clause::Exists(false)) {
            places.present = Some(self.leaves.at(path).map(|leaf| leaf.element).collect());
        }
        for leaf in self.leaves.at(path) {
            if eval::accepts(clauses, &self.value(leaf)) {
                places.matching.push(leaf.element);
            }
        }
        places
    }
}

/// Whether a branch with fields in these states is decided without looking at
/// arrays; `None` if it is not.
pub(super) fn decide(states: impl Iterator<Item = State>) -> Option<bool> {
    let (mut in_arrays, mut unsure) = (0, false);
    for state in states {
        match state {
            State::No => return Some(false),
            State::Yes => {}
            State::InArray => in_arrays += 1,
            State::Unsure => unsure = true,
        }
    }
    (in_arrays < 2 && !unsure).then_some(true)
}
