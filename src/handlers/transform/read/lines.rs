//! Lines of a stream, in a buffer that can look ahead over several of them.

use super::open::Content;
use crate::handlers::Failure;
use memchr::memchr;

/// The longest line (and quoted field) that is taken in.
pub const MAX_RECORD: usize = 32 << 20;
/// How much is read at once.
const CHUNK: usize = 256 << 10;

/// A window over a stream that starts at the next unread byte.
pub struct Lines {
    content: Content,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    eof: bool,
    newline: u8,
    longest: usize,
    /// More follows behind the end, in another block.
    goes_on: bool,
    /// Absolute offset of the window's start.
    pub offset: u64,
    /// Number of the line at the window's start, from 1.
    pub line: u64,
}

/// A line in the window, relative to its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where it ends, without its newline.
    pub end: usize,
    /// Where the next one starts.
    pub next: usize,
}

/// What was found where a line was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A line.
    Line(Span),
    /// No newline within the longest line allowed.
    TooLong,
    /// Nothing more.
    End,
}

impl Lines {
    /// Lines of a content; a byte order mark is skipped.
    ///
    /// # Errors
    /// When the content cannot be read.
    pub fn new(content: Content) -> Result<Self, Failure> {
        let mut lines = Self {
            content,
            buffer: vec![0; CHUNK],
            start: 0,
            end: 0,
            eof: false,
            newline: b'\n',
            longest: MAX_RECORD,
            goes_on: false,
            offset: 0,
            line: 1,
        };
        lines.peek(64 << 10)?;
        if lines.window().starts_with(b"\xef\xbb\xbf") {
            lines.start += 3;
            lines.offset += 3;
        }
        // A text that has carriage returns only is from an old Macintosh.
        let head = lines.window();
        if memchr(b'\n', head).is_none() && memchr(b'\r', head).is_some() {
            lines.newline = b'\r';
        }
        Ok(lines)
    }

    /// The lines of a block of a text, counted from the block's start; the text
    /// ends with it if it is the `last`.
    #[must_use]
    pub fn of_block(bytes: Vec<u8>, newline: u8, last: bool) -> Self {
        Self {
            content: Content::empty(),
            start: 0,
            end: bytes.len(),
            buffer: bytes,
            eof: true,
            newline,
            longest: usize::MAX,
            goes_on: !last,
            offset: 0,
            line: 1,
        }
    }

    /// The buffer.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.buffer
    }

    /// Whether the text goes on behind the end of these lines.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// What a line ends with.
    #[must_use]
    pub fn newline(&self) -> u8 {
        self.newline
    }

    /// Lines of at most `longest` bytes.
    #[cfg(test)]
    pub fn with_longest(mut self, longest: usize) -> Self {
        self.longest = longest;
        self
    }

    /// The object's key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.content.key
    }

    /// All bytes that are in the window now.
    #[must_use]
    pub fn window(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Brings at least `wanted` bytes into the window, as far as there are so many.
    ///
    /// # Errors
    /// When the content cannot be read.
    pub fn peek(&mut self, wanted: usize) -> Result<&[u8], Failure> {
        while self.end - self.start < wanted && self.more()? {}
        Ok(&self.buffer[self.start..self.end])
    }

    /// The line that starts at `from` in the window.
    ///
    /// # Errors
    /// When the content cannot be read.
    #[inline]
    pub fn find(&mut self, from: usize) -> Result<Found, Failure> {
        let mut searched = from;
        loop {
            let window = &self.buffer[self.start..self.end];
            if let Some(at) = memchr(self.newline, window.get(searched..).unwrap_or_default()) {
                let end = searched + at;
                return Ok(Found::Line(Span { end, next: end + 1 }));
            }
            searched = window.len();
            if searched >= self.longest {
                return Ok(Found::TooLong);
            }
            if !self.more()? {
                let len = self.end - self.start;
                return Ok(match from < len {
                    true => Found::Line(Span {
                        end: len,
                        next: len,
                    }),
                    false => Found::End,
                });
            }
        }
    }

    /// The bytes up to `end`, without a carriage return that belongs to the newline.
    #[must_use]
    #[inline]
    pub fn text(&self, end: usize) -> &[u8] {
        let text = &self.window()[..end];
        match text {
            [rest @ .., b'\r'] if self.newline == b'\n' => rest,
            all => all,
        }
    }

    /// Goes on to `next`, which is `lines` lines further.
    #[inline]
    pub fn consume(&mut self, next: usize, lines: u64) {
        self.start += next;
        self.offset += next as u64;
        self.line += lines;
    }

    /// Leaves out everything up to and including the next newline.
    ///
    /// # Errors
    /// When the content cannot be read.
    pub fn skip_line(&mut self) -> Result<(), Failure> {
        loop {
            if let Some(at) = memchr(self.newline, self.window()) {
                self.consume(at + 1, 1);
                return Ok(());
            }
            let len = self.end - self.start;
            self.consume(len, 0);
            if !self.more()? {
                return Ok(());
            }
        }
    }

    /// Reads more behind the window; `false` at the end.
    fn more(&mut self) -> Result<bool, Failure> {
        if self.eof {
            return Ok(false);
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.buffer.len() - self.end < CHUNK / 2 {
            // Grows with the longest record seen, never beyond twice the longest allowed.
            let grown = (self.buffer.len() * 2).min(2 * self.longest + CHUNK);
            self.buffer.resize(grown.max(self.end + CHUNK), 0);
        }
        let got = self.content.read(&mut self.buffer[self.end..])?;
        self.end += got;
        self.eof = got == 0;
        Ok(got > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
        let mut lines = Lines::new(Content::of(text)).unwrap();
        let mut found = Vec::new();
        while let Found::Line(span) = lines.find(0).unwrap() {
            found.push((lines.line, lines.offset, lines.text(span.end).to_vec()));
            lines.consume(span.next, 1);
        }
        found
    }

    #[test]
    fn lines_end_with_any_newline() {
        let texts = |text: &[u8]| all(text).into_iter().map(|l| l.2).collect::<Vec<_>>();
        assert_eq!(texts(b"a\r\nb\nc"), [b"a", b"b", b"c"]);
        assert_eq!(texts(b"a\rb\rc\r"), [b"a", b"b", b"c"]);
        assert_eq!(texts(b""), Vec::<Vec<u8>>::new());
        assert_eq!(all(b"\xef\xbb\xbfa\nbc\n")[1], (2, 5, b"bc".to_vec()));
    }

    #[test]
    fn a_line_longer_than_allowed_costs_itself_only() {
        let text = [&vec![b'x'; 600_000][..], b"\nshort\n"].concat();
        let mut lines = Lines::new(Content::of(text)).unwrap().with_longest(1000);
        assert_eq!(lines.find(0).unwrap(), Found::TooLong);
        lines.skip_line().unwrap();
        assert_eq!((lines.line, lines.offset), (2, 600_001));
        let Found::Line(span) = lines.find(0).unwrap() else {
            panic!()
        };
        assert_eq!(lines.text(span.end), b"short");
    }
}
