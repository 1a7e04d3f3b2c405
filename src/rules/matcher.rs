//! Adding and removing rules.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::RuleId;
use super::ast::{Clause, Field};
use super::cow::Posting;
use super::eval;
use super::keys::{self, Access, Space};
use super::parse::Pattern;
use super::paths::PathId;
use super::slots::{BranchSlot, Entry, FieldSlot, Target, key_hash};
use super::small::{Clauses, Ids};
use super::snapshot::Snapshot;
use super::text::Text;
use super::wildcard::Wildcard;

/// The rules of a bus, compiled into one structure.
///
/// Readers take a [`Snapshot`] and match events with it. Writers change a
/// working copy and publish it by swapping one pointer, so that every reader
/// sees either all of a change or nothing of it. Working copy and snapshot
/// share all parts that did not change: adding or removing one rule copies a
/// few kilobytes, however many rules there are.
#[derive(Debug)]
pub struct Matcher {
    current: ArcSwap<Snapshot>,
    writer: Mutex<RuleSet>,
}

impl Default for Matcher {
    fn default() -> Self {
        Self::new()
    }
}

impl Matcher {
    /// A matcher without rules.
    pub fn new() -> Self {
        Matcher {
            current: ArcSwap::from_pointee(Snapshot::default()),
            writer: Mutex::default(),
        }
    }

    /// Adds a rule, or replaces the rule of the same id.
    pub fn add(&self, id: RuleId, pattern: &Pattern) {
        self.update(|rules| rules.add(id, pattern));
    }

    /// Removes a rule. Returns whether there was one of that id.
    pub fn remove(&self, id: RuleId) -> bool {
        self.update(|rules| rules.remove(id))
    }

    /// Makes several changes and publishes them at once. Use it to add many
    /// rules: what nobody shares yet is changed in place.
    pub fn update<T>(&self, change: impl FnOnce(&mut RuleSet) -> T) -> T {
        let mut writer = self.lock();
        let result = change(&mut writer);
        self.current.store(Arc::new(writer.snapshot()));
        result
    }

    /// The rules as they are now. A snapshot never changes.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    fn lock(&self) -> MutexGuard<'_, RuleSet> {
        // A panic in a writer leaves readers with the last published snapshot.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The working copy of a [`Matcher`]'s rules; see [`Matcher::update`].
#[derive(Debug, Default)]
pub struct RuleSet {
    state: Snapshot,
    /// The branches of every rule.
    rules: HashMap<RuleId, Box<[u32]>>,
    /// Fields by the hash of their path and clauses.
    known: HashMap<u64, Posting, BuildHasherDefault<DefaultHasher>>,
    free_paths: Vec<PathId>,
    free_fields: Vec<u32>,
    free_branches: Vec<u32>,
    free_entries: Vec<u32>,
}

impl RuleSet {
    /// Adds a rule, or replaces the rule of the same id.
    pub fn add(&mut self, id: RuleId, pattern: &Pattern) {
        self.remove(id);
        let branches = pattern
            .branches()
            .iter()
            .map(|branch| self.add_branch(id, branch.fields()));
        let branches: Box<[u32]> = branches.collect();
        self.rules.insert(id, branches);
        self.state.rules = self.rules.len();
    }

    /// Removes a rule. Returns whether there was one of that id.
    pub fn remove(&mut self, id: RuleId) -> bool {
        let Some(branches) = self.rules.remove(&id) else {
            return false;
        };
        for branch in branches {
            self.remove_branch(branch);
        }
        self.state.rules = self.rules.len();
        true
    }

    /// The rules as they are now; shares what it can with the working copy.
    pub fn snapshot(&self) -> Snapshot {
        self.state.clone()
    }

    /// The number of rules.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    fn add_branch(&mut self, rule: RuleId, fields: &[Field]) -> u32 {
        let fields: Vec<u32> = fields.iter().map(|field| self.intern(field)).collect();
        let access = self.most_selective(&fields);
        let slot = BranchSlot {
            rule,
            fields: Ids::from(&fields[..]),
            access,
        };
        let branch = match self.free_branches.pop() {
            Some(branch) => {
                *self.state.branches.get_mut(branch) = slot;
                branch
            }
            None => self.state.branches.push(slot),
        };
        match access {
            Some(field) => {
                if self.state.fields[field].branches.as_slice().is_empty() {
                    self.index(field);
                }
                self.state.fields.get_mut(field).branches.push(branch);
            }
            None => Arc::make_mut(&mut self.state.residue).push(branch),
        }
        branch
    }

    fn remove_branch(&mut self, branch: u32) {
        let BranchSlot { fields, access, .. } = self.state.branches[branch].clone();
        match access {
            Some(field) => {
                self.state.fields.get_mut(field).branches.remove(branch);
                if self.state.fields[field].branches.as_slice().is_empty() {
                    self.unindex(field);
                }
            }
            None => remove_from(&mut self.state.residue, branch),
        }
        for field in fields.as_slice() {
            self.release(*field);
        }
        self.state.branches.get_mut(branch).fields = Ids::default();
        self.free_branches.push(branch);
    }

    /// The number of a field; equal fields share one.
    fn intern(&mut self, field: &Field) -> u32 {
        let hash = self
            .known
            .hasher()
            .hash_one((&field.path, &field.clauses[..]));
        let path = self
            .state
            .trie
            .add(field.path.as_bytes(), &mut self.free_paths);
        while self.state.indexes.len() <= path as usize {
            self.state.indexes.push(None);
        }
        let known = self.known.entry(hash).or_default();
        for id in known.as_slice() {
            let slot = &self.state.fields[*id];
            if slot.path == path && slot.clauses[..] == field.clauses[..] {
                let id = *id;
                self.state.fields.get_mut(id).refs += 1;
                return id;
            }
        }
        let slot = FieldSlot {
            path,
            clauses: Clauses::from(&field.clauses),
            refs: 1,
            branches: Posting::None,
        };
        let id = match self.free_fields.pop() {
            Some(id) => {
                *self.state.fields.get_mut(id) = slot;
                *self.state.names.get_mut(id) = field.path.clone();
                id
            }
            None => {
                self.state.names.push(field.path.clone());
                self.state.fields.push(slot)
            }
        };
        known.push(id);
        id
    }

    /// Takes back one [`RuleSet::intern`].
    fn release(&mut self, id: u32) {
        let slot = self.state.fields.get_mut(id);
        slot.refs -= 1;
        let (clauses, unused) = (slot.clauses.clone(), slot.refs == 0);
        let name = self.state.names[id].clone();
        self.state
            .trie
            .remove(name.as_bytes(), &mut self.free_paths);
        if !unused {
            return;
        }
        self.state.fields.get_mut(id).clauses = Clauses::default();
        let hash = self.known.hasher().hash_one((&name, &clauses[..]));
        if let Some(known) = self.known.get_mut(&hash) {
            known.remove(id);
            if known.as_slice().is_empty() {
                self.known.remove(&hash);
            }
        }
        self.free_fields.push(id);
    }

    /// The field that the fewest events will lead to: judged by what its
    /// clauses let through, times the number of branches that have the field.
    fn most_selective(&self, fields: &[u32]) -> Option<u32> {
        let cost = |id: &u32| {
            let field = &self.state.fields[*id];
            let breadth: u64 = field
                .clauses
                .iter()
                .map(keys::breadth)
                .sum::<Option<u64>>()?;
            Some((breadth.saturating_mul(u64::from(field.refs)), *id))
        };
        fields
            .iter()
            .filter_map(cost)
            .min_by_key(|(cost, _)| *cost)
            .map(|(_, id)| id)
    }

    /// Registers a field under the keys of its clauses.
    fn index(&mut self, field: u32) {
        let FieldSlot { path, clauses, .. } = self.state.fields[field].clone();
        let accesses: Vec<Access> = clauses.iter().map(Access::of).collect();
        if accesses.contains(&Access::Broad) {
            Arc::make_mut(&mut self.path_index(path).broad).push(field);
            return;
        }
        if clauses.iter().any(|clause| eval::block(clause).is_some()) {
            Arc::make_mut(&mut self.path_index(path).blocks).push(field);
        }
        for (clause, access) in clauses.iter().zip(accesses) {
            match (access, clause) {
                (Access::Key(space, key), _) => self.add_key(space, path, &key, field),
                (Access::Range(range), _) => self.path_index(path).ranges.insert(range, field),
                (Access::Wildcard, Clause::Wildcard(wildcard)) => {
                    let (space, key) = self.rarest(wildcard, path);
                    self.add_key(space, path, &key, field);
                }
                // Fields that absence satisfies are never indexed, and only
                // wildcards are found like wildcards.
                _ => {}
            }
        }
    }

    /// Takes back [`RuleSet::index`].
    fn unindex(&mut self, field: u32) {
        let FieldSlot { path, clauses, .. } = self.state.fields[field].clone();
        let accesses: Vec<Access> = clauses.iter().map(Access::of).collect();
        if accesses.contains(&Access::Broad) {
            remove_from(&mut self.path_index(path).broad, field);
            return;
        }
        if clauses.iter().any(|clause| eval::block(clause).is_some()) {
            remove_from(&mut self.path_index(path).blocks, field);
        }
        for (clause, access) in clauses.iter().zip(accesses) {
            match (access, clause) {
                (Access::Key(space, key), _) => self.remove_key(space, path, &key, field),
                (Access::Range(range), _) => self.path_index(path).ranges.remove(range, field),
                (Access::Wildcard, Clause::Wildcard(wildcard)) => {
                    let under = keys::wildcard_keys(wildcard)
                        .into_iter()
                        .find(|(space, key)| self.registered(*space, path, key).contains(&field));
                    if let Some((space, key)) = under {
                        self.remove_key(space, path, key, field);
                    }
                }
                _ => {}
            }
        }
    }

    fn path_index(&mut self, path: PathId) -> &mut super::index::PathIndex {
        Arc::make_mut(self.state.indexes.get_mut(path).get_or_insert_default())
    }

    /// The fields under a key.
    fn registered(&self, space: Space, path: PathId, key: &[u8]) -> &[u32] {
        match self.state.find(space, path, key) {
            Some(Target::Entry(entry)) => self.state.entries[entry].fields.as_slice(),
            // Keys of wildcards, which this is asked for, always have an entry.
            Some(Target::Field(_)) | None => &[],
        }
    }

    /// The key of a wildcard that the fewest others have; its ends are cheaper
    /// to look up, so they win if hardly anybody has them.
    fn rarest(&self, wildcard: &Wildcard, path: PathId) -> (Space, Vec<u8>) {
        let cost = |(space, key): &(Space, &[u8])| {
            let others = self.registered(*space, path, key).len();
            let weight = if *space == Space::Gram { 4 } else { 1 };
            (others + weight, std::cmp::Reverse(key.len()))
        };
        let best = keys::wildcard_keys(wildcard).into_iter().min_by_key(cost);
        // Only patterns that have some literal are indexed.
        best.map_or((Space::Gram, Vec::new()), |(space, key)| {
            (space, key.to_vec())
        })
    }

    fn add_key(&mut self, space: Space, path: PathId, key: &[u8], field: u32) {
        let hash = key_hash(space, path, key);
        match self.state.find(space, path, key) {
            Some(Target::Entry(entry)) => self.state.entries.get_mut(entry).fields.push(field),
            Some(known @ Target::Field(first)) => {
                let mut fields = Posting::One(first);
                fields.push(field);
                let entry = self.entry(space, path, key, fields);
                self.state.table.remove(hash, known.id());
                self.state.table.insert(hash, entry.id());
            }
            None => {
                let target = if keys::is_in_clause(space) {
                    Target::Field(field)
                } else {
                    self.entry(space, path, key, Posting::One(field))
                };
                self.state.table.insert(hash, target.id());
                self.path_index(path).add(space, key);
            }
        }
    }

    fn entry(&mut self, space: Space, path: PathId, key: &[u8], fields: Posting) -> Target {
        let entry = Entry {
            space,
            path,
            key: Text::from_bytes(key),
            fields,
        };
        Target::Entry(match self.free_entries.pop() {
            Some(id) => {
                *self.state.entries.get_mut(id) = entry;
                id
            }
            None => self.state.entries.push(entry),
        })
    }

    fn remove_key(&mut self, space: Space, path: PathId, key: &[u8], field: u32) {
        let Some(target) = self.state.find(space, path, key) else {
            return;
        };
        if let Target::Entry(id) = target {
            let entry = self.state.entries.get_mut(id);
            entry.fields.remove(field);
            if !entry.fields.as_slice().is_empty() {
                return;
            }
            entry.key = Text::default();
            self.free_entries.push(id);
        }
        self.state
            .table
            .remove(key_hash(space, path, key), target.id());
        self.path_index(path).remove(space, key);
    }
}

/// Removes one number from a shared list; the order does not matter.
fn remove_from(list: &mut Arc<Vec<u32>>, id: u32) {
    let list = Arc::make_mut(list);
    if let Some(at) = list.iter().position(|other| *other == id) {
        list.swap_remove(at);
    }
}
