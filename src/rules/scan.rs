//! The one pass over an event: finds the leaves at wanted paths.

use super::blocks::{self, Block, Map};
use super::error::EventFault;
use super::number;
use super::paths::{Node, PathId, ROOT, Trie};
use super::text::unescape;

/// What kind of value a leaf is, and where its bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A string without escapes: a part of the event.
    Plain,
    /// A string that had escapes: a part of [`Leaves::unescaped`].
    Unescaped,
    Number,
    True,
    False,
    Null,
}

/// A value at a wanted path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaf {
    pub path: PathId,
    pub kind: Kind,
    pub start: u32,
    pub end: u32,
    /// The array element that it lies in, [`NO_ELEMENT`] if none.
    pub element: u32,
    /// The leaf of the same path that was found before it, plus one; or 0.
    pub previous: u32,
}

/// The element number of what is in no array.
pub(super) const NO_ELEMENT: u32 = 0;

/// An object or an array that is an element of an array. Numbers go in the
/// order of the text, so those inside one follow it up to `end`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element {
    pub parent: u32,
    pub array: u32,
    /// The first element after this one that is not inside it.
    pub end: u32,
}

/// All that a scan finds; kept from event to event for its memory.
#[derive(Debug, Default)]
pub(super) struct Leaves {
    map: Map,
    frames: Vec<Frame>,
    pub leaves: Vec<Leaf>,
    pub unescaped: Vec<u8>,
    key: Vec<u8>,
    pub elements: Vec<Element>,
    /// For every array, the first element after it.
    pub arrays: Vec<u32>,
    /// By path: (epoch, the last leaf plus one).
    heads: Vec<(u32, u32)>,
    epoch: u32,
}

/// A container whose members are wanted.
#[derive(Debug, Clone, Copy)]
struct Frame {
    node: PathId,
    object: bool,
    /// No member was read yet.
    fresh: bool,
    /// The element that the members lie in (of objects), or that the array
    /// itself lies in.
    element: u32,
    /// The array's number.
    array: u32,
    /// Whether this container is an element that has to be closed.
    is_element: bool,
}

/// A fault and where it is.
pub(super) type Fault = (EventFault, usize);

impl Leaves {
    /// The last leaf at `path` plus one; 0 if there is none.
    #[inline]
    pub fn head(&self, path: PathId) -> u32 {
        match self.heads.get(path as usize) {
            Some((epoch, leaf)) if *epoch == self.epoch => *leaf,
            _ => 0,
        }
    }

    /// The leaves at `path`, the last one first.
    pub fn at(&self, path: PathId) -> impl Iterator<Item = &Leaf> {
        let mut next = self.head(path);
        std::iter::from_fn(move || {
            let leaf = &self.leaves[(next as usize).checked_sub(1)?];
            next = leaf.previous;
            Some(leaf)
        })
    }

    /// The bytes of a leaf: a string's characters, a number's text.
    #[inline]
    pub fn bytes<'e>(&'e self, event: &'e [u8], leaf: &Leaf) -> &'e [u8] {
        let range = leaf.start as usize..leaf.end as usize;
        match leaf.kind {
            Kind::Unescaped => &self.unescaped[range],
            _ => &event[range],
        }
    }

    /// Maps an event; the first step for [`scan`] and for strict checking.
    pub fn index(&mut self, event: &[u8]) -> Result<(), Fault> {
        if event.len() > 1 << 30 {
            return Err((EventFault::TooLarge, 0));
        }
        blocks::index(event, &mut self.map);
        Ok(())
    }

    pub fn map(&self) -> &Map {
        &self.map
    }

    fn begin(&mut self, paths: usize) {
        self.leaves.clear();
        self.unescaped.clear();
        self.elements.clear();
        self.arrays.clear();
        self.frames.clear();
        self.elements.push(Element {
            parent: NO_ELEMENT,
            array: u32::MAX,
            end: u32::MAX,
        });
        if self.heads.len() < paths {
            self.heads.resize(paths, (0, 0));
        }
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            self.heads.fill((0, 0));
            self.epoch = 1;
        }
    }
}

/// Finds the leaves at the paths of `trie` in an event whose map was made by
/// [`Leaves::index`]. What nobody wants is skipped, not
/// checked; what follows the top-level object is ignored.
pub(super) fn scan(trie: &Trie, event: &[u8], out: &mut Leaves) -> Result<(), Fault> {
    out.begin(trie.len());
    let map = std::mem::take(&mut out.map);
    let mut scan = Scan {
        trie,
        event,
        blocks: &map.blocks,
        escapes: map.backslashes,
        at: 0,
        out,
    };
    let result = scan.run();
    out.map = map;
    result
}

struct Scan<'s> {
    trie: &'s Trie,
    event: &'s [u8],
    blocks: &'s [Block],
    escapes: bool,
    at: usize,
    out: &'s mut Leaves,
}

impl Scan<'_> {
    fn run(&mut self) -> Result<(), Fault> {
        if self.peek()? != b'{' {
            return Err((EventFault::NotAnObject, self.at));
        }
        self.at += 1;
        let mut frame = Frame {
            node: ROOT,
            object: true,
            fresh: true,
            element: NO_ELEMENT,
            array: u32::MAX,
            is_element: false,
        };
        loop {
            if let Some(inner) = self.members(&mut frame)? {
                self.out.frames.push(frame);
                frame = inner;
                continue;
            }
            self.leave(&frame);
            match self.out.frames.pop() {
                Some(outer) => frame = outer,
                None => return Ok(()),
            }
        }
    }

    /// Reads members of a container up to its end, or up to one that has to be
    /// entered.
    fn members(&mut self, frame: &mut Frame) -> Result<Option<Frame>, Fault> {
        let node = self.trie.node(frame.node);
        let close = if frame.object { b'}' } else { b']' };
        loop {
            let mut byte = self.peek()?;
            if byte == close {
                self.at += 1;
                return Ok(None);
            }
            if !std::mem::take(&mut frame.fresh) {
                if byte != b',' {
                    return Err((self.bad_separator(byte), self.at));
                }
                self.at += 1;
                byte = self.peek()?;
            }
            let entered = if frame.object {
                match self.key(node, byte)? {
                    Some(node) => self.value(frame, node)?,
                    None => {
                        self.skip()?;
                        None
                    }
                }
            } else {
                self.value(frame, frame.node)?
            };
            if entered.is_some() {
                return Ok(entered);
            }
        }
    }

    fn bad_separator(&self, byte: u8) -> EventFault {
        match byte {
            b'}' | b']' => EventFault::MismatchedBracket,
            _ => EventFault::ExpectedComma,
        }
    }

    /// The next byte that is not space.
    #[inline(always)]
    fn peek(&mut self) -> Result<u8, Fault> {
        loop {
            match self.event.get(self.at) {
                Some(byte) if *byte > b' ' => return Ok(*byte),
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                Some(byte) => return Ok(*byte),
                None => return Err((EventFault::Truncated, self.at)),
            }
        }
    }

    /// The end of the string whose opening quote is at `self.at`; moves behind
    /// the closing one and returns the content's bounds.
    #[inline(always)]
    fn string(&mut self) -> Result<(usize, usize), Fault> {
        let start = self.at + 1;
        let Some(end) = blocks::next_quote(self.blocks, start) else {
            return Err((EventFault::Truncated, self.event.len()));
        };
        self.at = end + 1;
        Ok((start, end))
    }

    /// Reads a key and its colon; the node it leads to, if it is wanted.
    #[inline(always)]
    fn key(&mut self, node: &Node, byte: u8) -> Result<Option<PathId>, Fault> {
        if byte != b'"' {
            return Err((EventFault::ExpectedKey, self.at));
        }
        let (start, end) = self.string()?;
        if self.peek()? != b':' {
            return Err((EventFault::ExpectedColon, self.at));
        }
        self.at += 1;
        if self.escapes {
            let raw = &self.event[start..end];
            if memchr::memchr(b'\\', raw).is_some() {
                self.out.key.clear();
                unescape(raw, &mut self.out.key)
                    .map_err(|at| (EventFault::BadEscape, start + at))?;
                let key = &self.out.key;
                return Ok(self.trie.child(node, key, 0, key.len()));
            }
        }
        Ok(self.trie.child(node, self.event, start, end))
    }

    /// Reads a value at a path that somebody wants, or wants something below
    /// of. Returns the container to enter, if that is what it is.
    #[inline(always)]
    fn value(&mut self, frame: &Frame, node: PathId) -> Result<Option<Frame>, Fault> {
        let what = self.trie.node(node);
        match self.peek()? {
            b'"' => {
                let (start, end) = self.string()?;
                if what.is_wanted() {
                    self.text(node, frame.element, start, end)?;
                }
                Ok(None)
            }
            b'{' if what.has_children() => Ok(Some(self.enter(frame, node, true))),
            b'[' => Ok(Some(self.enter(frame, node, false))),
            b'{' => self.skip().map(|()| None),
            _ if what.is_wanted() => {
                self.scalar(node, frame.element)?;
                Ok(None)
            }
            _ => self.skip().map(|()| None),
        }
    }

    fn enter(&mut self, outer: &Frame, node: PathId, object: bool) -> Frame {
        self.at += 1;
        let is_element = !outer.object;
        let mut element = outer.element;
        if is_element {
            element = self.out.elements.len() as u32;
            let parent = outer.element;
            self.out.elements.push(Element {
                parent,
                array: outer.array,
                end: 0,
            });
        }
        let array = self.out.arrays.len() as u32;
        if !object {
            self.out.arrays.push(0);
        }
        Frame {
            node,
            object,
            fresh: true,
            element,
            array,
            is_element,
        }
    }

    /// Notes where a container's elements end.
    #[inline(always)]
    fn leave(&mut self, frame: &Frame) {
        let end = self.out.elements.len() as u32;
        if !frame.object {
            self.out.arrays[frame.array as usize] = end;
        }
        if frame.is_element {
            self.out.elements[frame.element as usize].end = end;
        }
    }

    fn text(&mut self, node: PathId, element: u32, start: usize, end: usize) -> Result<(), Fault> {
        let raw = &self.event[start..end];
        if !self.escapes || memchr::memchr(b'\\', raw).is_none() {
            self.leaf(node, Kind::Plain, element, start, end);
            return Ok(());
        }
        let from = self.out.unescaped.len();
        match unescape(raw, &mut self.out.unescaped) {
            Ok(()) => {
                let to = self.out.unescaped.len();
                self.leaf(node, Kind::Unescaped, element, from, to);
                Ok(())
            }
            Err(at) => Err((EventFault::BadEscape, start + at)),
        }
    }

    fn leaf(&mut self, path: PathId, kind: Kind, element: u32, start: usize, end: usize) {
        let previous = self.out.head(path);
        let (start, end) = (start as u32, end as u32);
        self.out.leaves.push(Leaf {
            path,
            kind,
            start,
            end,
            element,
            previous,
        });
        self.out.heads[path as usize] = (self.out.epoch, self.out.leaves.len() as u32);
    }

    /// A number or a word at a wanted path.
    fn scalar(&mut self, node: PathId, element: u32) -> Result<(), Fault> {
        let start = self.at;
        let (len, kind) = scalar(&self.event[start..]).map_err(|fault| (fault, start))?;
        self.at += len;
        self.leaf(node, kind, element, start, start + len);
        Ok(())
    }

    /// Skips a value that nobody wants.
    #[inline(always)]
    fn skip(&mut self) -> Result<(), Fault> {
        match self.peek()? {
            b'"' => self.string().map(|_| ()),
            b'{' | b'[' => {
                let Some(close) = blocks::matching_close(self.blocks, self.at + 1) else {
                    return Err((EventFault::Truncated, self.event.len()));
                };
                self.at = close + 1;
                Ok(())
            }
            byte if ends_scalar(byte) => Err((EventFault::ExpectedValue, self.at)),
            _ => {
                let rest = &self.event[self.at..];
                self.at += rest
                    .iter()
                    .position(|byte| ends_scalar(*byte))
                    .unwrap_or(rest.len());
                Ok(())
            }
        }
    }
}

/// Whether a number or a word cannot go on with this byte.
#[inline(always)]
fn ends_scalar(byte: u8) -> bool {
    matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t')
}

/// The length and the kind of the number or word that the text begins with.
#[inline(always)]
pub(super) fn scalar(text: &[u8]) -> Result<(usize, Kind), EventFault> {
    let (len, kind, fault) = match text {
        [b'-' | b'0'..=b'9', ..] => (
            number::length(text).unwrap_or(0),
            Kind::Number,
            EventFault::BadNumber,
        ),
        [b't', b'r', b'u', b'e', ..] => (4, Kind::True, EventFault::BadWord),
        [b'n', b'u', b'l', b'l', ..] => (4, Kind::Null, EventFault::BadWord),
        [b'f', b'a', b'l', b's', b'e', ..] => (5, Kind::False, EventFault::BadWord),
        [b'a'..=b'z' | b'A'..=b'Z', ..] => return Err(EventFault::BadWord),
        _ => return Err(EventFault::ExpectedValue),
    };
    if len == 0 || text.get(len).is_some_and(|byte| !ends_scalar(*byte)) {
        return Err(fault);
    }
    Ok((len, kind))
}
