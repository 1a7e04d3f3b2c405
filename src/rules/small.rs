//! Short lists that lie where they are used instead of somewhere else in
//! memory: with many rules, every place visited is a wait for memory.

use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use super::ast::Clause;

/// An immutable list of numbers.
#[derive(Debug, Clone)]
pub(super) enum Ids {
    Here { len: u8, ids: [u32; HERE] },
    There(Arc<[u32]>),
}

const HERE: usize = 7;

impl Ids {
    #[inline(always)]
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Ids::Here { len, ids } => &ids[..usize::from(*len)],
            Ids::There(ids) => ids,
        }
    }
}

impl Default for Ids {
    fn default() -> Self {
        Ids::from(&[][..])
    }
}

impl From<&[u32]> for Ids {
    fn from(all: &[u32]) -> Self {
        let mut ids = [0; HERE];
        match ids.get_mut(..all.len()) {
            Some(here) => {
                here.copy_from_slice(all);
                let len = all.len() as u8;
                Ids::Here { len, ids }
            }
            None => Ids::There(Arc::from(all)),
        }
    }
}

impl PartialEq for Ids {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Ids {}

impl Hash for Ids {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

/// The clauses of a field, of which there is mostly one.
#[derive(Debug, Clone)]
pub(super) enum Clauses {
    One(Clause),
    Many(Arc<[Clause]>),
}

impl Default for Clauses {
    fn default() -> Self {
        Clauses::Many(Arc::default())
    }
}

impl Deref for Clauses {
    type Target = [Clause];

    #[inline(always)]
    fn deref(&self) -> &[Clause] {
        match self {
            Clauses::One(clause) => std::slice::from_ref(clause),
            Clauses::Many(clauses) => clauses,
        }
    }
}

impl From<&Arc<[Clause]>> for Clauses {
    fn from(clauses: &Arc<[Clause]>) -> Self {
        match &clauses[..] {
            [clause] => Clauses::One(clause.clone()),
            _ => Clauses::Many(clauses.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_lists_are_alike() {
        for len in [0, 1, 7, 8, 100] {
            let ids: Vec<u32> = (0..len).collect();
            assert_eq!(Ids::from(&ids[..]).as_slice(), ids);
            assert_eq!(Ids::from(&ids[..]), Ids::from(&ids[..]));
        }
        assert_ne!(Ids::from(&[1][..]), Ids::from(&[1, 2][..]));
    }
}
