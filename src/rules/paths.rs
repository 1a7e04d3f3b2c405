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
pub(super) struct Node {
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
    /// The bytes that segments begin with, one bit each; an empty segment has
    /// the bit of the dot or the quote that follows it in an event.
    firsts: [u64; 4],
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
fn head(segment: &[u8]) -> u64 {
    head_at(segment, 0, segment.len())
}

/// The [`head`] of the `len` bytes at `start`; one load if the text goes on
/// behind them, as an event does.
#[inline(always)]
fn head_at(text: &[u8], start: usize, len: usize) -> u64 {
    match text[start..].first_chunk() {
        Some(bytes) if len >= 8 => u64::from_le_bytes(*bytes),
        Some(bytes) => u64::from_le_bytes(*bytes) & !(u64::MAX << (8 * len)),
        None => {
            let mut bytes = [0; 8];
            let len = len.min(8);
            bytes[..len].copy_from_slice(&text[start..start + len]);
            u64::from_le_bytes(bytes)
        }
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

    #[inline(always)]
    pub fn node(&self, node: PathId) -> &Node {
        &self.nodes[node]
    }

    /// The node that a key of an event, from `start` to `end`, leads to.
    /// Escapes in it must be resolved.
    #[inline(always)]
    pub fn child(&self, node: &Node, text: &[u8], start: usize, end: usize) -> Option<PathId> {
        let children = &node.children;
        let first = text.get(start).copied().unwrap_or(b'"');
        if children.firsts[usize::from(first >> 6)] >> (first & 63) & 1 == 0 {
            return None;
        }
        self.likely_child(children, text, start, end)
    }

    fn likely_child(
        &self,
        children: &Children,
        text: &[u8],
        start: usize,
        end: usize,
    ) -> Option<PathId> {
        let key = &text[start..end];
        if let Some(child) = children.find(head_at(text, start, end - start), key) {
            return Some(child);
        }
        // A key with dots may stand for several segments.
        let dot = memchr::memchr(b'.', key)?;
        let mut at = children.find(head(&key[..dot]), &key[..dot])?;
        for segment in key[dot + 1..].split(|byte| *byte == b'.') {
            at = self.nodes[at].children.find(head(segment), segment)?;
        }
        Some(at)
    }

    /// Registers one more field that wants `path`; free nodes are taken from
    /// `free`.
    pub fn add(&mut self, path: &[u8], free: &mut Vec<PathId>) -> PathId {
        let mut at = ROOT;
        self.nodes.get_mut(at).live += 1;
        for segment in path.split(|byte| *byte == b'.') {
            at = match self.nodes[at].children.find(head(segment), segment) {
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
            let Some(child) = self.nodes[at].children.find(head(segment), segment) else {
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

impl Node {
    /// Whether some field wants the leaves at this path.
    #[inline(always)]
    pub fn is_wanted(&self) -> bool {
        self.leaves > 0
    }

    /// Whether some field wants a path below this one.
    #[inline(always)]
    pub fn has_children(&self) -> bool {
        !self.children.entries.is_empty()
    }
}

impl Children {
    #[inline]
    fn find(&self, head: u64, segment: &[u8]) -> Option<PathId> {
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
        self.note_first(segment);
        if self.entries.len() > FEW && self.entries.len() * 2 <= self.slots.len() {
            self.place(self.entries.len() - 1);
        } else {
            self.rebuild();
        }
    }

    fn remove(&mut self, segment: &[u8]) {
        self.entries.retain(|child| *child.segment != *segment);
        self.firsts = [0; 4];
        for child in std::mem::take(&mut self.entries) {
            self.note_first(&child.segment);
            self.entries.push(child);
        }
        self.rebuild();
    }

    fn note_first(&mut self, segment: &[u8]) {
        let firsts = match segment.first() {
            Some(first) => std::slice::from_ref(first),
            None => b".\"",
        };
        for first in firsts {
            self.firsts[usize::from(first >> 6)] |= 1 << (first & 63);
        }
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

    fn child(trie: &Trie, node: PathId, key: &str) -> Option<PathId> {
        trie.child(trie.node(node), key.as_bytes(), 0, key.len())
    }

    #[test]
    fn dotted_keys_are_paths() {
        let (mut trie, mut free) = (Trie::default(), Vec::new());
        let path = trie.add(b"a.b.c", &mut free);
        let a = child(&trie, ROOT, "a").unwrap();
        assert_eq!(child(&trie, a, "b.c"), Some(path));
        assert_eq!(child(&trie, ROOT, "a.b.c"), Some(path));
        assert_eq!(child(&trie, ROOT, "a.b.d"), None);
        let (path, a) = (trie.node(path), trie.node(a));
        assert!(path.is_wanted() && !a.is_wanted() && a.has_children());
    }

    #[test]
    fn empty_segments_are_paths_too() {
        let (mut trie, mut free) = (Trie::default(), Vec::new());
        let path = trie.add(b"..x", &mut free);
        let below = child(&trie, ROOT, "").unwrap();
        assert_eq!(child(&trie, ROOT, "."), child(&trie, below, ""));
        assert_eq!(child(&trie, ROOT, "..x"), Some(path));
        assert_eq!(child(&trie, below, ".x"), Some(path));
        assert_eq!(child(&trie, ROOT, "x"), None);
    }

    #[test]
    fn heads_are_the_same_wherever_the_text_ends() {
        for len in 0..12 {
            let alone = &b"abcdefghijkl"[..len];
            let inside = [alone, b"\":1234567"].concat();
            assert_eq!(head(alone), head_at(&inside, 0, len), "{len}");
        }
    }

    #[test]
    fn unwanted_paths_go_away() {
        let (mut trie, mut free) = (Trie::default(), Vec::new());
        for key in 0..20 {
            trie.add(format!("k{key}.x").as_bytes(), &mut free);
        }
        trie.add(b"k3", &mut free);
        (0..20).for_each(|key| trie.remove(format!("k{key}.x").as_bytes(), &mut free));
        let left = child(&trie, ROOT, "k3").unwrap();
        assert!(!trie.node(left).has_children() && child(&trie, ROOT, "k4").is_none());
        assert_eq!(free.len(), 39);
        trie.add(b"y.z", &mut free);
        assert_eq!(free.len(), 37);
    }
}
