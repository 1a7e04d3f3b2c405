//! The numeric ranges at one path, found by a value that lies in them.

use std::sync::Arc;

use super::ast::Range;
use super::number::Number;

/// Ranges sorted by their lower bounds, in chunks that know their extent.
#[derive(Debug, Clone, Default)]
pub(super) struct Ranges {
    chunks: Vec<Arc<Chunk>>,
}

#[derive(Debug, Clone)]
struct Chunk {
    lowest: f64,
    highest: f64,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    low: f64,
    high: f64,
    range: Range,
    field: u32,
}

const CHUNK: usize = 128;

impl Chunk {
    fn new(entries: Vec<Entry>) -> Self {
        let lowest = entries.first().map_or(f64::INFINITY, |entry| entry.low);
        let highest = entries
            .iter()
            .fold(f64::NEG_INFINITY, |high, entry| high.max(entry.high));
        Chunk {
            lowest,
            highest,
            entries,
        }
    }
}

impl Ranges {
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub fn insert(&mut self, range: Range, field: u32) {
        let low = range.lower.map_or(f64::NEG_INFINITY, |(bound, _)| bound);
        let high = range.upper.map_or(f64::INFINITY, |(bound, _)| bound);
        let entry = Entry {
            low,
            high,
            range,
            field,
        };
        let at = self
            .chunks
            .partition_point(|chunk| chunk.lowest <= low)
            .saturating_sub(1);
        let Some(chunk) = self.chunks.get_mut(at) else {
            self.chunks.push(Arc::new(Chunk::new(vec![entry])));
            return;
        };
        let chunk = Arc::make_mut(chunk);
        let place = chunk.entries.partition_point(|other| other.low <= low);
        chunk.entries.insert(place, entry);
        chunk.lowest = chunk.lowest.min(low);
        chunk.highest = chunk.highest.max(high);
        if chunk.entries.len() > CHUNK {
            let upper = chunk.entries.split_off(CHUNK / 2);
            *chunk = Chunk::new(std::mem::take(&mut chunk.entries));
            self.chunks.insert(at + 1, Arc::new(Chunk::new(upper)));
        }
    }

    pub fn remove(&mut self, range: Range, field: u32) {
        let low = range.lower.map_or(f64::NEG_INFINITY, |(bound, _)| bound);
        for at in 0..self.chunks.len() {
            let chunk = &self.chunks[at];
            if chunk.lowest > low {
                return;
            }
            let found = chunk
                .entries
                .iter()
                .position(|entry| entry.field == field && entry.range == range);
            if let Some(place) = found {
                let mut entries = chunk.entries.clone();
                entries.remove(place);
                if entries.is_empty() {
                    self.chunks.remove(at);
                } else {
                    self.chunks[at] = Arc::new(Chunk::new(entries));
                }
                return;
            }
        }
    }

    /// Calls `hit` with the field of every range that contains the number.
    #[inline]
    pub fn containing(&self, number: &mut Number<'_>, mut hit: impl FnMut(u32, &mut Number<'_>)) {
        let (low, high) = number.bounds();
        for chunk in self.chunks.iter().take_while(|chunk| chunk.lowest <= high) {
            if chunk.highest < low {
                continue;
            }
            for entry in chunk.entries.iter().take_while(|entry| entry.low <= high) {
                if low <= entry.high && number.is_within(&entry.range) {
                    hit(entry.field, number);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_ranges_are_found() {
        let mut ranges = Ranges::default();
        let range = |i: u32| {
            let low = f64::from(i * 7919 % 1000);
            Range {
                lower: Some((low, i.is_multiple_of(2))),
                upper: Some((low + 5.0, i.is_multiple_of(3))),
            }
        };
        (0..1000).for_each(|i| ranges.insert(range(i), i));
        (0..1000)
            .filter(|i| i % 5 == 0)
            .for_each(|i| ranges.remove(range(i), i));
        for value in [0.0, 4.5, 500.0, 999.0, 1004.0, 2000.0, -1.0] {
            let mut found = Vec::new();
            let text = value.to_string();
            let mut number = Number::read(text.as_bytes()).unwrap();
            ranges.containing(&mut number, |field, _| found.push(field));
            found.sort_unstable();
            let expected: Vec<u32> = (0..1000)
                .filter(|i| i % 5 != 0 && range(*i).contains(value))
                .collect();
            assert_eq!(found, expected, "{value}");
        }
    }
}
