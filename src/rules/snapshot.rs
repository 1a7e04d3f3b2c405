//! The compiled rules, as readers see them, and the matching of an event.

use std::sync::Arc;

use super::RuleId;
use super::cow::{CowVec, Table};
use super::error::EventError;
use super::eval::{self, Value};
use super::index::PathIndex;
use super::ip::Ip;
use super::judge::{self, Event, State};
use super::keys::{self, IpKey, Space};
use super::number::Number;
use super::paths::{PathId, Trie};
use super::scan::{self, Fault, Kind, Leaf, Leaves, NO_ELEMENT};
use super::slots::{BranchSlot, Entry, FieldSlot, Target, key_hash};
use super::text::Text;
use super::validate;

/// The rules of a bus at one moment. Immutable; cloning is cheap.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub(super) trie: Trie,
    pub(super) indexes: CowVec<Option<Arc<PathIndex>>>,
    pub(super) fields: CowVec<FieldSlot>,
    /// The paths of the fields: asked for when one is removed.
    pub(super) names: CowVec<Text>,
    pub(super) branches: CowVec<BranchSlot>,
    pub(super) entries: CowVec<Entry>,
    pub(super) table: Table,
    /// Branches that no value can lead to: they are always evaluated.
    pub(super) residue: Arc<Vec<u32>>,
    pub(super) rules: usize,
}

/// How an event is checked while it is matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// What no rule looks at is skipped, not checked; what follows the event
    /// is ignored, as EventBridge does.
    #[default]
    Fast,
    /// The whole text must be one well-formed JSON object.
    Validating,
}

/// Working memory for matching; keep one per thread. It may be used with any
/// snapshot.
#[derive(Debug, Default)]
pub struct Scratch {
    leaves: Leaves,
    /// By field: the event's number and what is known of the field.
    memo: Vec<u32>,
    epoch: u32,
    /// By field: the last value it was tried on, see [`Run::serial`].
    tried: Vec<u64>,
    serial: u64,
    lowered: Vec<u8>,
    matched: Vec<RuleId>,
    validator: validate::Stack,
}

impl Scratch {
    /// Empty working memory; it grows with the first events.
    pub fn new() -> Self {
        Self::default()
    }
}

/// A memo's low bits: a state, and whether the field's branches were looked at.
const STATE_BITS: u32 = 3;
const FOLLOWED: u32 = 4;

impl Snapshot {
    /// The number of rules.
    pub fn len(&self) -> usize {
        self.rules
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules == 0
    }

    /// The rules that an event matches, in ascending order, each once.
    ///
    /// # Errors
    ///
    /// If the event is not a JSON object, ends early, is malformed where some
    /// rule looks, or if its arrays are too entangled to decide a rule within
    /// [`MAX_STEPS`](super::MAX_STEPS).
    pub fn matches<'s>(
        &self,
        event: &[u8],
        scratch: &'s mut Scratch,
    ) -> Result<&'s [RuleId], EventError> {
        self.matches_in(Mode::Fast, event, scratch)
    }

    /// [`Snapshot::matches`] with a choice of how much is checked.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::matches`]; in [`Mode::Validating`] also if the event is
    /// malformed anywhere.
    pub fn matches_in<'s>(
        &self,
        mode: Mode,
        event: &[u8],
        scratch: &'s mut Scratch,
    ) -> Result<&'s [RuleId], EventError> {
        scratch.matched.clear();
        self.run(mode, event, scratch)
            .map_err(|(reason, at)| EventError::new(reason, event, at))?;
        Ok(&scratch.matched)
    }

    fn run(&self, mode: Mode, event: &[u8], scratch: &mut Scratch) -> Result<(), Fault> {
        scratch.leaves.index(event)?;
        if mode == Mode::Validating {
            validate::check(event, scratch.leaves.map(), &mut scratch.validator)?;
        }
        let Scratch {
            leaves,
            memo,
            epoch,
            tried,
            serial,
            lowered,
            matched,
            ..
        } = scratch;
        scan::scan(&self.trie, event, leaves)?;
        begin(memo, epoch, self.fields.len());
        if tried.len() < self.fields.len() {
            tried.resize(self.fields.len(), 0);
        }
        let mut run = Run {
            rules: self,
            seen: Event {
                text: event,
                leaves,
            },
            memo,
            epoch: *epoch << STATE_BITS,
            tried,
            serial: *serial,
            lowered,
            matched,
        };
        for leaf in &leaves.leaves {
            run.look_up(leaf)?;
        }
        for branch in self.residue.iter() {
            run.check(*branch)?;
        }
        *serial = run.serial;
        matched.sort_unstable();
        matched.dedup();
        Ok(())
    }

    /// Where a key leads to.
    #[inline]
    pub(super) fn find(&self, space: Space, path: PathId, key: &[u8]) -> Option<Target> {
        let found = self
            .table
            .find(key_hash(space, path, key), |id| match Target::from_id(id) {
                Target::Field(field) => {
                    let field = &self.fields[field];
                    let is = |clause| keys::is_found_by(clause, space, key);
                    field.path == path && field.clauses.iter().any(is)
                }
                Target::Entry(entry) => {
                    let entry = &self.entries[entry];
                    entry.key.as_bytes() == key && entry.path == path && entry.space == space
                }
            });
        found.map(Target::from_id)
    }
}

/// Starts a new event: nothing is known of any field.
fn begin(memo: &mut Vec<u32>, epoch: &mut u32, fields: usize) {
    if memo.len() < fields {
        memo.resize(fields, 0);
    }
    *epoch += 1;
    if *epoch == 1 << (32 - STATE_BITS) {
        memo.fill(0);
        *epoch = 1;
    }
}

/// The matching of one event.
struct Run<'r> {
    rules: &'r Snapshot,
    seen: Event<'r>,
    memo: &'r mut [u32],
    /// The event's number, shifted to leave room for a state.
    epoch: u32,
    tried: &'r mut [u64],
    /// The number of the value being looked up; never used twice.
    serial: u64,
    lowered: &'r mut Vec<u8>,
    matched: &'r mut Vec<RuleId>,
}

impl Run<'_> {
    /// Finds the fields that a value may lead to.
    fn look_up(&mut self, leaf: &Leaf) -> Result<(), Fault> {
        let rules = self.rules;
        let Some(index) = rules.indexes[leaf.path].as_deref() else {
            return Ok(());
        };
        self.serial += 1;
        let value = self.seen.value(leaf);
        let bytes = value.bytes;
        match leaf.kind {
            Kind::Plain | Kind::Unescaped => self.look_up_text(index, leaf, bytes)?,
            Kind::Number => {
                self.look_up_number(index, leaf, bytes)?;
                for field in index.blocks.iter() {
                    self.likely(*field, leaf, &value)?;
                }
            }
            Kind::True => self.proven(Space::Word, leaf, b"t")?,
            Kind::False => self.proven(Space::Word, leaf, b"f")?,
            Kind::Null => self.proven(Space::Word, leaf, b"n")?,
        }
        for field in index.broad.iter() {
            self.likely(*field, leaf, &value)?;
        }
        Ok(())
    }

    fn look_up_text(&mut self, index: &PathIndex, leaf: &Leaf, text: &[u8]) -> Result<(), Fault> {
        if index.has(Space::Exact) {
            self.proven(Space::Exact, leaf, text)?;
        }
        self.affixes(index, leaf, text, [Space::Prefix, Space::Suffix])?;
        let folded = [Space::ExactFolded, Space::PrefixFolded, Space::SuffixFolded];
        if folded.iter().any(|space| index.has(*space)) {
            let mut lowered = std::mem::take(self.lowered);
            lowered.clear();
            lowered.extend(text.iter().map(u8::to_ascii_lowercase));
            if index.has(Space::ExactFolded) {
                self.proven(Space::ExactFolded, leaf, &lowered)?;
            }
            self.affixes(
                index,
                leaf,
                &lowered,
                [Space::PrefixFolded, Space::SuffixFolded],
            )?;
            *self.lowered = lowered;
        }
        let (v4, v6) = (index.has(Space::Ip4), index.has(Space::Ip6));
        if (v4 || v6)
            && let Some(ip) = Ip::parse(text)
        {
            let space = if matches!(ip, Ip::V4(_)) {
                Space::Ip4
            } else {
                Space::Ip6
            };
            for mask in index.lengths(space) {
                let mask = mask as u8;
                let key = IpKey::new(ip.masked(mask), Some(mask));
                self.proven(key.space, leaf, key.key())?;
            }
        }
        self.look_up_wildcards(index, leaf, text)
    }

    fn look_up_wildcards(
        &mut self,
        index: &PathIndex,
        leaf: &Leaf,
        text: &[u8],
    ) -> Result<(), Fault> {
        for len in index
            .lengths(Space::WildcardPrefix)
            .take_while(|len| *len <= text.len())
        {
            self.likely_key(Space::WildcardPrefix, leaf, &text[..len], text)?;
        }
        for len in index
            .lengths(Space::WildcardSuffix)
            .take_while(|len| *len <= text.len())
        {
            self.likely_key(Space::WildcardSuffix, leaf, &text[text.len() - len..], text)?;
        }
        let mut result = Ok(());
        for len in index.lengths(Space::Gram) {
            index.grams.find(text, len, |gram| {
                if result.is_ok() {
                    result = self.likely_key(Space::Gram, leaf, gram, text);
                }
            });
        }
        result
    }

    /// Looks up the beginnings and the ends of a string.
    fn affixes(
        &mut self,
        index: &PathIndex,
        leaf: &Leaf,
        text: &[u8],
        [prefix, suffix]: [Space; 2],
    ) -> Result<(), Fault> {
        for len in index.lengths(prefix).take_while(|len| *len <= text.len()) {
            self.proven(prefix, leaf, &text[..len])?;
        }
        for len in index.lengths(suffix).take_while(|len| *len <= text.len()) {
            self.proven(suffix, leaf, &text[text.len() - len..])?;
        }
        Ok(())
    }

    fn look_up_number(&mut self, index: &PathIndex, leaf: &Leaf, text: &[u8]) -> Result<(), Fault> {
        if index.has(Space::NumberText) {
            self.proven(Space::NumberText, leaf, text)?;
        }
        if !index.has(Space::Number) && index.ranges.is_empty() {
            return Ok(());
        }
        let Some(mut number) = Number::read(text) else {
            return Ok(());
        };
        // Whether the number can be compared at all is asked only if it would
        // make a difference.
        if index.has_point(number.bounds()) {
            let key = keys::number_key(number.value());
            if let Some(target) = self.rules.find(Space::Number, leaf.path, &key)
                && number.is_comparable()
            {
                self.found(target, leaf)?;
            }
        }
        let mut result = Ok(());
        index.ranges.containing(&mut number, |field, number| {
            if result.is_ok() && !self.is_followed(field) && number.is_comparable() {
                result = self.satisfied(field, leaf);
            }
        });
        result
    }

    /// A key that proves the clauses registered under it.
    #[inline]
    fn proven(&mut self, space: Space, leaf: &Leaf, key: &[u8]) -> Result<(), Fault> {
        match self.rules.find(space, leaf.path, key) {
            Some(target) => self.found(target, leaf),
            None => Ok(()),
        }
    }

    #[inline]
    fn found(&mut self, target: Target, leaf: &Leaf) -> Result<(), Fault> {
        let rules = self.rules;
        let fields = match &target {
            Target::Field(field) => std::slice::from_ref(field),
            Target::Entry(entry) => rules.entries[*entry].fields.as_slice(),
        };
        for field in fields {
            if !self.is_followed(*field) {
                self.satisfied(*field, leaf)?;
            }
        }
        Ok(())
    }

    /// A key that makes the clauses registered under it likely.
    fn likely_key(
        &mut self,
        space: Space,
        leaf: &Leaf,
        key: &[u8],
        text: &[u8],
    ) -> Result<(), Fault> {
        let rules = self.rules;
        // Such keys always have an entry.
        let Some(Target::Entry(entry)) = rules.find(space, leaf.path, key) else {
            return Ok(());
        };
        let value = Value {
            kind: leaf.kind,
            bytes: text,
        };
        for field in rules.entries[entry].fields.as_slice() {
            self.likely(*field, leaf, &value)?;
        }
        Ok(())
    }

    /// Many parts of one value may lead to a field: it is tried once.
    #[inline]
    fn likely(&mut self, field: u32, leaf: &Leaf, value: &Value<'_>) -> Result<(), Fault> {
        if !self.is_followed(field)
            && std::mem::replace(&mut self.tried[field as usize], self.serial) != self.serial
            && eval::accepts(&self.rules.fields[field].clauses, value)
        {
            self.satisfied(field, leaf)?;
        }
        Ok(())
    }

    /// Whether the branches found by this field were looked at already.
    #[inline]
    fn is_followed(&self, field: u32) -> bool {
        self.memo[field as usize] & !3 == self.epoch | FOLLOWED
    }

    /// A value satisfies a field: its branches are looked at.
    fn satisfied(&mut self, field: u32, leaf: &Leaf) -> Result<(), Fault> {
        let state = if leaf.element == NO_ELEMENT {
            State::Yes
        } else {
            State::InArray
        };
        self.memo[field as usize] = self.epoch | FOLLOWED | state as u32;
        let rules = self.rules;
        for branch in rules.fields[field].branches.as_slice() {
            self.check(*branch)?;
        }
        Ok(())
    }

    /// Decides a branch, and notes its rule if it matches.
    fn check(&mut self, branch: u32) -> Result<(), Fault> {
        let rules = self.rules;
        let branch = &rules.branches[branch];
        let matches = match judge::decide(
            branch
                .fields
                .as_slice()
                .iter()
                .map(|field| self.state(*field)),
        ) {
            Some(decided) => decided,
            None => self
                .seen
                .is_consistent(branch.fields.as_slice().iter().map(|field| {
                    let field = &rules.fields[*field];
                    (field.path, &field.clauses[..])
                }))?,
        };
        if matches {
            self.matched.push(branch.rule);
        }
        Ok(())
    }

    #[inline]
    fn state(&mut self, field: u32) -> State {
        let memo = self.memo[field as usize];
        if memo & !(3 | FOLLOWED) == self.epoch {
            return State::from_bits(memo);
        }
        let slot = &self.rules.fields[field];
        let state = self.seen.state(slot.path, &slot.clauses);
        self.memo[field as usize] = self.epoch | state as u32;
        state
    }
}
