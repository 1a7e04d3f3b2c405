//! What the compiled rules are made of, and where keys lead to.

use super::RuleId;
use super::cow::{Posting, hash};
use super::keys::Space;
use super::paths::PathId;
use super::small::{Clauses, Ids};
use super::text::Text;

/// A field of some rules: a path and the clauses of which one must match.
#[derive(Debug, Clone, Default)]
pub(super) struct FieldSlot {
    pub path: PathId,
    /// How many branches have this field.
    pub refs: u32,
    /// The branches that are found by this field.
    pub branches: Posting,
    pub clauses: Clauses,
}

/// One branch of a rule.
#[derive(Debug, Clone, Default)]
pub(super) struct BranchSlot {
    pub rule: RuleId,
    /// The fields, in the order of their paths.
    pub fields: Ids,
    /// The field that the branch is found by; `None` if it is in the residue.
    pub access: Option<u32>,
}

/// A key and the fields that are registered under it.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    pub space: Space,
    pub path: PathId,
    pub key: Text,
    pub fields: Posting,
}

/// Where a key leads to: most keys belong to one field, and that is in the
/// table itself.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    Field(u32),
    Entry(u32),
}

impl Target {
    const ENTRY: u32 = 1 << 31;

    #[inline(always)]
    pub fn from_id(id: u32) -> Target {
        if id & Self::ENTRY == 0 {
            Target::Field(id)
        } else {
            Target::Entry(id & !Self::ENTRY)
        }
    }

    pub fn id(self) -> u32 {
        match self {
            Target::Field(field) => field,
            Target::Entry(entry) => entry | Self::ENTRY,
        }
    }
}

pub(super) fn key_hash(space: Space, path: PathId, key: &[u8]) -> u64 {
    hash(u64::from(path) << 8 | (space as u64 + 1) << 56, key)
}
