//! Text in blocks: a large file is cut at ends of lines, threads make records
//! of the blocks, and what they made is taken in the file's order.
//!
//! Only reading a record tells where it ends: a quoted field may go on over a
//! block's end. A block whose last record does so is told apart by its reader
//! ([`Next::Cut`]); what was made of the block behind it is then void, and the
//! rest of the one is read again together with the other. So the records are
//! those that reading line by line finds, whatever the size of a block. Blocks
//! are cut where quotes are even, so that this is rare.

use super::Reader;
use super::lines::{Found, Lines};
use crate::handlers::Failure;
use crate::handlers::transform::batch::{Broken, Feed, Part, Place};
use crate::handlers::transform::rejects::{Kept, Reject, RejectSink};
use crate::handlers::transform::schema::RecordSchema;
use arrow::array::RecordBatch;
use memchr::{memchr_iter, memrchr};
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// A block has about this many bytes: a batch or a few, and it fits into a
/// core's own cache.
const BLOCK: usize = 512 << 10;
/// Text of fewer blocks is read on one thread.
const BLOCKS: usize = 4;
/// Most threads for one file, so that its blocks stay within a few MiB.
const MOST_THREADS: usize = 4;

/// What was found where a record was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A record, or a line that is none.
    Record,
    /// Nothing more.
    End,
    /// A record that goes on behind the end of the block.
    Cut,
}

/// Makes records of lines.
pub trait Records: Send {
    /// Takes the record that the lines start with into the feed.
    ///
    /// # Errors
    /// When the lines cannot be read, or rejects cannot be taken.
    fn one(&mut self, lines: &mut Lines, feed: &mut Feed<'_>) -> Result<Next, Failure>;

    /// The same again, for another thread.
    fn again(&self) -> Box<dyn Records>;

    /// The quote within which a record may have ends of lines.
    fn quote(&self) -> Option<u8>;
}

/// Sets a line aside that is longer than is taken in.
///
/// # Errors
/// When rejects cannot be taken.
pub fn too_long(feed: &mut Feed<'_>, place: Place, raw: &[u8]) -> Result<(), Failure> {
    let broken = Broken::record("RecordTooLong", "the line is longer than 32 MiB");
    feed.record(Err(broken), place, raw)
}

/// Some whole lines.
struct Block {
    bytes: Vec<u8>,
    /// Its first byte in the text.
    offset: u64,
    newline: u8,
    /// The text ends with it.
    last: bool,
    /// It is the start of one line that is longer than is taken in.
    too_long: bool,
}

/// What was made of a block.
struct Parsed {
    block: Block,
    part: Part,
    batches: Vec<RecordBatch>,
    lines: u64,
    /// Where a record starts that goes on behind the block.
    cut: Option<usize>,
}

impl Block {
    fn parse(
        mut self,
        records: &mut dyn Records,
        schema: &Arc<RecordSchema>,
    ) -> Result<Parsed, Failure> {
        let mut kept = Rejects::default();
        let mut feed = Feed::new(Arc::clone(schema), &mut kept);
        let mut batches = Vec::new();
        let mut lines = Lines::of_block(std::mem::take(&mut self.bytes), self.newline, self.last);
        let mut cut = None;
        if self.too_long {
            too_long(&mut feed, Place { line: 1, offset: 0 }, lines.window())?;
            lines.line = 2;
        } else {
            loop {
                if feed.full() {
                    batches.extend(feed.take()?);
                }
                match records.one(&mut lines, &mut feed)? {
                    Next::Record => {}
                    Next::End => break,
                    Next::Cut => {
                        cut = usize::try_from(lines.offset).ok();
                        break;
                    }
                }
            }
        }
        batches.extend(feed.take()?);
        let (records, ignored) = (feed.records, std::mem::take(&mut feed.ignored));
        let lines_read = lines.line - 1;
        self.bytes = lines.into_bytes();
        Ok(Parsed {
            block: self,
            part: Part {
                records,
                ignored,
                rejects: kept.0,
            },
            batches,
            lines: lines_read,
            cut,
        })
    }
}

/// The rejects of a block, until it is their turn.
#[derive(Default)]
struct Rejects(Vec<Kept>);

impl RejectSink for Rejects {
    fn put(&mut self, reject: &Reject<'_>) -> Result<(), Failure> {
        self.0.push(Kept::of(reject));
        Ok(())
    }
}

type Made = Result<Parsed, Failure>;

/// The threads that read blocks of one text.
struct Pool {
    jobs: Option<Sender<(Block, SyncSender<Made>)>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// So many threads, or as many as can be had; `None` if there are none.
    fn start(threads: usize, records: &dyn Records, schema: &Arc<RecordSchema>) -> Option<Self> {
        let (jobs, waiting) = channel::<(Block, SyncSender<Made>)>();
        let waiting = Arc::new(Mutex::new(waiting));
        let work = |_| {
            let (waiting, schema) = (Arc::clone(&waiting), Arc::clone(schema));
            let mut records = records.again();
            let work = move || {
                loop {
                    let job = waiting
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .recv();
                    let Ok((block, answer)) = job else { return };
                    // Nobody waits for the answer once the file is given up.
                    drop(answer.send(block.parse(records.as_mut(), &schema)));
                }
            };
            let name = "reader".to_owned();
            std::thread::Builder::new().name(name).spawn(work).ok()
        };
        let threads: Vec<_> = (0..threads).filter_map(work).collect();
        (!threads.is_empty()).then_some(Self {
            threads,
            jobs: Some(jobs),
        })
    }

    fn give(&self, block: Block) -> Receiver<Made> {
        let (answer, made) = sync_channel(1);
        if let Some(jobs) = &self.jobs {
            // Without threads the answer's end is dropped, which its reader finds.
            drop(jobs.send((block, answer)));
        }
        made
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A panic of a thread was told as the answer that never came.
            drop(thread.join());
        }
    }
}

/// Reads the records of a text, with several threads if it is large.
pub struct TextReader {
    lines: Lines,
    records: Box<dyn Records>,
    schema: Arc<RecordSchema>,
    block: usize,
    threads: usize,
    /// Whether it was looked how large the text is.
    begun: bool,
    pool: Option<Pool>,
    /// Blocks that are being read, in their order; or why there are no more.
    pending: VecDeque<Result<Receiver<Made>, Failure>>,
    /// Nothing is left to be cut.
    ended: bool,
    /// Batches that were not taken yet.
    made: VecDeque<RecordBatch>,
    /// The start of a record that goes on in the next block, and its offset.
    rest: Option<(Vec<u8>, u64)>,
    /// Lines before the first block that was not taken yet.
    before: u64,
    spare: Vec<Vec<u8>>,
}

impl TextReader {
    /// A reader of the lines from where they are.
    #[must_use]
    pub fn new(lines: Lines, records: Box<dyn Records>, schema: Arc<RecordSchema>) -> Self {
        let threads = crate::handlers::query::engine::cores().clamp(2, MOST_THREADS);
        Self::with(lines, records, schema, (BLOCK, threads))
    }

    fn with(
        lines: Lines,
        records: Box<dyn Records>,
        schema: Arc<RecordSchema>,
        (block, threads): (usize, usize),
    ) -> Self {
        Self {
            before: lines.line - 1,
            lines,
            records,
            schema,
            block,
            threads,
            begun: false,
            pool: None,
            pending: VecDeque::new(),
            ended: false,
            made: VecDeque::new(),
            rest: None,
            spare: Vec::new(),
        }
    }

    /// Cuts blocks for the threads, until each has one to read and one to come.
    fn cut_ahead(&mut self) {
        while !self.ended && self.pending.len() < 2 * self.threads {
            let next = match self.cut() {
                Ok(None) => {
                    self.ended = true;
                    return;
                }
                Ok(Some(block)) => {
                    self.ended = block.last;
                    match &self.pool {
                        Some(pool) => Ok(pool.give(block)),
                        None => Err(stopped()),
                    }
                }
                Err(failure) => Err(failure),
            };
            self.ended |= next.is_err();
            self.pending.push_back(next);
        }
    }

    /// The next block.
    fn cut(&mut self) -> Result<Option<Block>, Failure> {
        let have = self.lines.peek(self.block)?.len();
        let newline = self.lines.newline();
        let offset = self.lines.offset;
        let (mut length, mut last, mut too_long) = (have, true, false);
        if have == 0 {
            return Ok(None);
        }
        if have >= self.block {
            last = false;
            let window = &self.lines.window()[..self.block];
            length = match seam(window, newline, self.records.quote()) {
                Some(length) => length,
                None => match self.lines.find(0)? {
                    Found::Line(span) => span.next,
                    Found::End => have,
                    Found::TooLong => {
                        too_long = true;
                        self.lines.window().len()
                    }
                },
            };
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(&self.lines.window()[..length]);
        match too_long {
            true => self.lines.skip_line()?,
            false => self.lines.consume(length, 0),
        }
        Ok(Some(Block {
            bytes,
            offset,
            newline,
            last,
            too_long,
        }))
    }

    /// What was made of the next block.
    fn next(&mut self) -> Result<Option<Parsed>, Failure> {
        self.cut_ahead();
        match self.pending.pop_front() {
            None => Ok(None),
            Some(waiting) => waiting?.recv().map_err(|_| stopped())?.map(Some),
        }
    }

    /// Takes the next block into the feed; `false` at the end.
    fn take_next(&mut self, feed: &mut Feed<'_>) -> Result<bool, Failure> {
        let next = self.next()?;
        let Some((mut bytes, offset)) = self.rest.take() else {
            return match next {
                None => Ok(false),
                Some(parsed) => self.take(parsed, feed).map(|()| true),
            };
        };
        let newline = self.lines.newline();
        let again = |bytes, last| Block {
            bytes,
            offset,
            newline,
            last,
            too_long: false,
        };
        let (block, then) = match next {
            None => (again(bytes, true), None),
            Some(parsed) if parsed.block.too_long => (again(bytes, true), Some(parsed)),
            Some(parsed) => {
                // Twice as much each time, so that a long record is not read too often.
                let wanted = bytes.len() * 2;
                bytes.extend_from_slice(&parsed.block.bytes);
                let mut last = parsed.block.last;
                let mut then = None;
                while bytes.len() < wanted && then.is_none() {
                    match self.next()? {
                        None => break,
                        Some(next) if next.block.too_long => then = Some(next),
                        Some(next) => {
                            bytes.extend_from_slice(&next.block.bytes);
                            last = next.block.last;
                        }
                    }
                }
                (again(bytes, last || then.is_some()), then)
            }
        };
        let parsed = block.parse(self.records.as_mut(), &self.schema)?;
        self.take(parsed, feed)?;
        if let Some(parsed) = then {
            self.take(parsed, feed)?;
        }
        Ok(true)
    }

    fn take(&mut self, parsed: Parsed, feed: &mut Feed<'_>) -> Result<(), Failure> {
        let Parsed {
            block,
            part,
            batches,
            lines,
            cut,
        } = parsed;
        feed.add(part, self.before, block.offset)?;
        self.before += lines;
        self.made.extend(batches);
        self.rest = cut.map(|at| (block.bytes[at..].to_vec(), block.offset + at as u64));
        if self.spare.len() < 2 * self.threads && block.bytes.capacity() <= 4 * self.block {
            self.spare.push(block.bytes);
        }
        Ok(())
    }
}

fn stopped() -> Failure {
    Failure::transient("Internal", "reading stopped unexpectedly")
}

/// Where to cut: behind the last end of a line with an even number of quotes
/// before it, if there is one; else behind the last end of a line.
fn seam(window: &[u8], newline: u8, quote: Option<u8>) -> Option<usize> {
    let last = memrchr(newline, window)?;
    let Some(quote) = quote else {
        return Some(last + 1);
    };
    let mut odd = memchr_iter(quote, &window[..last]).count() % 2 == 1;
    let mut end = last;
    while odd {
        let Some(before) = memrchr(newline, &window[..end]) else {
            return Some(last + 1);
        };
        odd ^= memchr_iter(quote, &window[before..end]).count() % 2 == 1;
        end = before;
    }
    Some(end + 1)
}

impl Reader for TextReader {
    fn fill(&mut self, feed: &mut Feed<'_>) -> Result<bool, Failure> {
        if !self.begun {
            self.begun = true;
            let large = BLOCKS * self.block;
            if self.lines.peek(large)?.len() >= large {
                self.pool = Pool::start(self.threads, self.records.as_ref(), &self.schema);
            }
        }
        if self.pool.is_none() {
            while !feed.full() {
                if self.records.one(&mut self.lines, feed)? == Next::End {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        while self.made.is_empty() {
            if !self.take_next(feed)? {
                return Ok(false);
            }
        }
        if let Some(batch) = self.made.pop_front() {
            feed.pass(batch);
        }
        Ok(true)
    }
}

#[cfg(test)]
#[path = "blocks_tests.rs"]
mod tests;
