//! Order by key: who of each key may go next.
//!
//! A key has at most one delivery in flight (*busy*: leased, or waiting for its retry);
//! the others wait behind it by sequence number.

use std::collections::{HashMap, VecDeque};

use super::siphash::BuildSpread;

/// What one key holds. The usual key has a single delivery and costs no allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    Waiting(u64),
    Busy(u64),
    Many(Box<Many>),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Many {
    busy: Option<u64>,
    waiting: VecDeque<u64>,
}

/// How the head of a line changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Change {
    /// May go now.
    pub up: Option<u64>,
    /// Was at the head and no longer is.
    pub down: Option<u64>,
}

/// The lines of a route, by the hash of their key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Keys {
    lines: HashMap<u64, Line, BuildSpread>,
}

impl Many {
    /// Takes one out of those that wait; the first costs least.
    fn take_out(&mut self, seq: u64) {
        if let Ok(at) = self.waiting.binary_search(&seq) {
            self.waiting.remove(at);
        }
    }
}

impl Line {
    fn open(self) -> Many {
        match self {
            Self::Waiting(seq) => Many {
                busy: None,
                waiting: VecDeque::from([seq]),
            },
            Self::Busy(seq) => Many {
                busy: Some(seq),
                waiting: VecDeque::new(),
            },
            Self::Many(many) => *many,
        }
    }

    fn close(many: Many) -> Option<Self> {
        match (many.busy, many.waiting.len()) {
            (None, 0) => None,
            (Some(seq), 0) => Some(Self::Busy(seq)),
            (None, 1) => many.waiting.front().copied().map(Self::Waiting),
            _ => Some(Self::Many(Box::new(many))),
        }
    }
}

impl Keys {
    fn change<T>(&mut self, key: u64, f: impl FnOnce(&mut Many) -> T) -> T {
        // An appended delivery of a long line is the hot case and moves nothing.
        if let Some(Line::Many(many)) = self.lines.get_mut(&key) {
            let result = f(many);
            if many.waiting.is_empty() {
                let many = std::mem::take(&mut **many);
                self.put(key, many);
            }
            return result;
        }
        let mut many = self.lines.remove(&key).map(Line::open).unwrap_or_default();
        let result = f(&mut many);
        self.put(key, many);
        result
    }

    fn put(&mut self, key: u64, many: Many) {
        match Line::close(many) {
            Some(line) => {
                self.lines.insert(key, line);
            }
            None => self.remove(key),
        }
    }

    /// Ends a line; a table that a backlog has left nearly empty is given back.
    fn remove(&mut self, key: u64) {
        self.lines.remove(&key);
        let (len, capacity) = (self.lines.len(), self.lines.capacity());
        if capacity > 256 && len * 8 < capacity {
            self.lines.shrink_to(len * 2);
        }
    }

    /// About how much memory they take, in bytes.
    pub(crate) fn footprint(&self) -> usize {
        self.lines.capacity() * 8 / 7 * (size_of::<(u64, Line)>() + 1)
    }

    /// Adds a delivery in its place by sequence number.
    pub(crate) fn push(&mut self, key: u64, seq: u64) -> Change {
        if let std::collections::hash_map::Entry::Vacant(line) = self.lines.entry(key) {
            line.insert(Line::Waiting(seq));
            return Change {
                up: Some(seq),
                down: None,
            };
        }
        self.change(key, |many| {
            let head = many.waiting.front().copied();
            let at = many.waiting.partition_point(|&s| s < seq);
            if many.waiting.get(at) != Some(&seq) {
                many.waiting.insert(at, seq);
            }
            if at == 0 && many.busy.is_none() {
                Change {
                    up: Some(seq),
                    down: head,
                }
            } else {
                Change::default()
            }
        })
    }

    /// A delivery of the line is in flight from now on, ahead of whoever is at its head;
    /// `None` when another one is, behind which it stays.
    pub(crate) fn start(&mut self, key: u64, seq: u64) -> Option<Change> {
        if self.lines.get(&key) == Some(&Line::Waiting(seq)) {
            self.lines.insert(key, Line::Busy(seq));
            return Some(Change::default());
        }
        self.change(key, |many| {
            if many.busy.is_some_and(|busy| busy != seq) {
                return None;
            }
            let head = many.waiting.front().copied();
            let down = head.filter(|&h| h != seq && many.busy.is_none());
            many.take_out(seq);
            many.busy = Some(seq);
            Some(Change { up: None, down })
        })
    }

    /// Whether a line of this key is there.
    pub(crate) fn holds(&self, key: u64) -> bool {
        self.lines.contains_key(&key)
    }

    /// Whether `seq` is the one in flight.
    pub(crate) fn is_busy(&self, key: u64, seq: u64) -> bool {
        match self.lines.get(&key) {
            Some(Line::Busy(busy)) => *busy == seq,
            Some(Line::Many(many)) => many.busy == Some(seq),
            _ => false,
        }
    }

    /// A delivery is gone, in flight or not.
    pub(crate) fn finish(&mut self, key: u64, seq: u64) -> Change {
        if self.lines.get(&key) == Some(&Line::Busy(seq)) {
            self.remove(key);
            return Change::default();
        }
        self.change(key, |many| {
            let was_head = many.waiting.front() == Some(&seq);
            if many.busy == Some(seq) {
                many.busy = None;
                Change {
                    up: many.waiting.front().copied(),
                    down: None,
                }
            } else {
                many.take_out(seq);
                let up = (was_head && many.busy.is_none())
                    .then(|| many.waiting.front().copied())
                    .flatten();
                Change {
                    up,
                    down: was_head.then_some(seq),
                }
            }
        })
    }

    /// Every line: key, the one in flight, those that wait.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, Option<u64>, Vec<u64>)> {
        self.lines.iter().map(|(key, line)| match line {
            Line::Waiting(seq) => (*key, None, vec![*seq]),
            Line::Busy(seq) => (*key, Some(*seq), Vec::new()),
            Line::Many(many) => (*key, many.busy, many.waiting.iter().copied().collect()),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Makes room for so many lines.
    pub(crate) fn reserve(&mut self, lines: usize) {
        self.lines.reserve(lines);
    }

    /// Puts a line back as it was saved; returns what may go now.
    pub(crate) fn restore(
        &mut self,
        key: u64,
        busy: Option<u64>,
        waiting: Vec<u64>,
    ) -> Option<u64> {
        let many = Many {
            busy,
            waiting: waiting.into(),
        };
        let head = many
            .busy
            .is_none()
            .then(|| many.waiting.front().copied())
            .flatten();
        self.put(key, many);
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_goes_and_the_others_wait_in_order() {
        let mut keys = Keys::default();
        assert_eq!(
            keys.push(9, 5),
            Change {
                up: Some(5),
                down: None
            }
        );
        assert_eq!(keys.push(9, 7), Change::default());
        keys.start(9, 5);
        assert!(keys.is_busy(9, 5));
        assert_eq!(keys.push(9, 6), Change::default());
        assert_eq!(
            keys.finish(9, 5),
            Change {
                up: Some(6),
                down: None
            }
        );
        keys.start(9, 6);
        assert_eq!(
            keys.finish(9, 6),
            Change {
                up: Some(7),
                down: None
            }
        );
        keys.start(9, 7);
        assert_eq!(keys.finish(9, 7), Change::default());
        assert_eq!(keys.len(), 0);
    }

    #[test]
    fn an_older_one_takes_the_head_unless_one_is_in_flight() {
        let mut keys = Keys::default();
        keys.push(1, 10);
        assert_eq!(
            keys.push(1, 3),
            Change {
                up: Some(3),
                down: Some(10)
            }
        );
        keys.start(1, 3);
        assert_eq!(keys.push(1, 2), Change::default());
        assert_eq!(
            keys.finish(1, 3),
            Change {
                up: Some(2),
                down: None
            }
        );
    }

    #[test]
    fn removing_the_waiting_head_promotes_the_next() {
        let mut keys = Keys::default();
        keys.push(1, 1);
        keys.push(1, 2);
        assert_eq!(
            keys.finish(1, 1),
            Change {
                up: Some(2),
                down: Some(1)
            }
        );
        assert_eq!(
            keys.finish(1, 2),
            Change {
                up: None,
                down: Some(2)
            }
        );
        assert_eq!(keys.len(), 0);
    }
}
