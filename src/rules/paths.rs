//! The trie of wanted paths.
//!
//! Edges are single segments, without dots. A path of a pattern is cut at its
//! dots, and so is an event's key, because EventBridge joins keys with "." and
//! compares the joined paths: `{"a": {"b": 1}}` and `{"a.b": 1}` are the same.

use super::cow::{CowVec, hash};

pub(super) type PathId = u32;
pub(super) const ROOT: PathId = 0;

#[derive(Debug, Clone)]
pub(super) struct Trie {
    nodes: CowVec<Node>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    /// How many fields want a leaf here.
    leaves: u32,
    /// How many wanted leaves are here or below.
    live: u32,
    children: Children,
}

/// The children of a node, by segment.
#[derive(Debug, Clone, Default)]
struct Children {
    entries: Vec<Child>,
    /// Bit n is set if some segment has n bytes (63: 63 or more).
    lengths: u64,
    /// Open addressing over `entries` (index + 1, 0 is free), kept once there
    /// are more than a few.
    slots: Vec<u32>,
}

#[derive(Debug, Clone)]
struct Child {
    /// The first 8 bytes, so that most comparisons are one.
    head: u64,
    segment: Box<[u8]>,
    node: PathId,
}

impl Child {
    #[inline(always)]
    fn is(&self, head: u64, segment: &[u8]) -> bool {
        self.head == head
            && self.segment.len() == segment.len()
            && (segment.len() <= 8 || self.segment[8..] == segment[8..])
    }
}

/// The first 8 bytes as a number, padded with zeros.
#[inline(always)]
fn head(segment: &[u8]) -> u64 {
    match segment.first_chunk() {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => segment
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

/// Up to this many children are looked at one after the other.
const FEW: usize = 4;

impl Default for Trie {
    fn default() -> Self {
        let mut nodes = CowVec::default();
        nodes.push(Node::default());
        Trie { nodes }
    }
}

impl Trie {
    /// The number of nodes, free ones included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether some field wants the leaves at this path.
    pub fn is_wanted(&self, node: PathId) -> bool {
        self.nodes[node].leaves > 0
    }

    /// Whether some field wants a path below this one.
    pub fn has_children(&self, node: PathId) -> bool {
        !self.nodes[node].children.entries.is_empty()
    }

    /// The node that an event's key leads to; the key's escapes are resolved.
    #[inline]
    pub fn child(&self, node: PathId, key: &[u8]) -> Option<PathId> {
        let children = &self.nodes[node].children;
        if let Some(child) = children.find(key) {
            return Some(child);
        }
        // A key with dots may stand for several segments.
        let dot = memchr::memchr(b'.', key)?;
        let mut at = children.find(&key[..dot])?;
        for segment in key[dot + 1..].split(|byte| *byte == b'.') {
            at = self.nodes[at].children.find(segment)?;
        }
        Some(at)
    }

    /// Registers one more field that wants `path`; free nodes are taken from
    /// `free`.
    pub fn add(&mut self, path: &[u8], free: &mut Vec<PathId>) -> PathId {
        let mut at = ROOT;
        self.nodes.get_mut(at).live += 1;
        for segment in path.split(|byte| *byte == b'.') {
            at = match self.nodes[at].children.find(segment) {
                Some(child) => child,
                None => {
                    let child = match free.pop() {
                        Some(child) => child,
                        None => self.nodes.push(Node::default()),
                    };
                    self.nodes.get_mut(at).children.insert(segment, child);
                    child
                }
            };
            self.nodes.get_mut(at).live += 1;
        }
        self.nodes.get_mut(at).leaves += 1;
        at
    }

    /// Takes back one [`Trie::add`]; nodes that nobody wants go to `free`.
    pub fn remove(&mut self, path: &[u8], free: &mut Vec<PathId>) {
        let mut at = ROOT;
        self.nodes.get_mut(at).live -= 1;
        for segment in path.split(|byte| *byte == b'.') {
            let Some(child) = self.nodes[at].children.find(segment) else {
                return;
            };
            self.nodes.get_mut(child).live -= 1;
            if self.nodes[child].live == 0 {
                self.nodes.get_mut(at).children.remove(segment);
                free.push(child);
            }
            at = child;
        }
        self.nodes.get_mut(at).leaves -= 1;
    }
}

impl Children {
    #[inline]
    fn find(&self, segment: &[u8]) -> Option<PathId> {
        if self.lengths >> segment.len().min(63) & 1 == 0 {
            return None;
        }
        let head = head(segment);
        if self.slots.is_empty() {
            let child = self.entries.iter().find(|child| child.is(head, segment))?;
            return Some(child.node);
        }
        let mask = self.slots.len() - 1;
        let mut at = hash(0, segment) as usize & mask;
        loop {
            let child = &self.entries[(self.slots[at] as usize).checked_sub(1)?];
            if child.is(head, segment) {
                return Some(child.node);
            }
            at = (at + 1) & mask;
        }
    }

    fn insert(&mut self, segment: &[u8], node: PathId) {
        self.entries.push(Child {
            head: head(segment),
            segment: segment.into(),
            node,
        });
        self.lengths |= 1 << segment.len().min(63);
        if self.entries.len() > FEW && self.entries.len() * 2 <= self.slots.len() {
            self.place(self.entries.len() - 1);
        } else {
            self.rebuild();
        }
    }

    fn remove(&mut self, segment: &[u8]) {
        self.entries.retain(|child| *child.segment != *segment);
        self.lengths = self
            .entries
            .iter()
            .fold(0, |bits, child| bits | 1 << child.segment.len().min(63));
        self.rebuild();
    }

    fn rebuild(&mut self) {
        self.slots.clear();
        if self.entries.len() > FEW {
            self.slots
                .resize((self.entries.len() * 4).next_power_of_two(), 0);
            (0..self.entries.len()).for_each(|entry| self.place(entry));
        }
    }

    fn place(&mut self, entry: usize) {
        let mask = self.slots.len() - 1;
        let mut at = hash(0, &self.entries[entry].segment) as usize & mask;
        while self.slots[at] != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = entry as u32 + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dotted_keys_are_paths() {
        let (mut trie, mut free) = (Trie::default(), Vec::new());
        let path = trie.add(b"a.b.c", &mut free);
        let a = trie.child(ROOT, b"a").unwrap();
        assert_eq!(trie.child(a, b"b.c"), Some(path));
        assert_eq!(trie.child(ROOT, b"a.b.c"), Some(path));
        assert_eq!(trie.child(ROOT, b"a.b.d"), None);
        assert!(trie.is_wanted(path) && !trie.is_wanted(a) && trie.has_children(a));
    }

    #[test]
    fn unwanted_paths_go_away() {
        let (mut trie, mut free) = (Trie::default(), Vec::new());
        for key in 0..20 {
            trie.add(format!("k{key}.x").as_bytes(), &mut free);
        }
        trie.add(b"k3", &mut free);
        (0..20).for_each(|key| trie.remove(format!("k{key}.x").as_bytes(), &mut free));
        let left = trie.child(ROOT, b"k3").unwrap();
        assert!(!trie.has_children(left) && trie.child(ROOT, b"k4").is_none());
        assert_eq!(free.len(), 39);
        trie.add(b"y.z", &mut free);
        assert_eq!(free.len(), 37);
    }
}
