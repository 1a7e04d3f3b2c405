//! Finds where an element of a JSON array ends.

/// Finds the end of an array's element by its brackets and strings.
#[derive(Default)]
pub struct Scan {
    at: usize,
    depth: u32,
    string: bool,
    escaped: bool,
}

impl Scan {
    /// The element's length, if its end is in the window. The window may grow
    /// between calls.
    pub fn end(&mut self, window: &[u8]) -> Option<usize> {
        while let Some(&b) = window.get(self.at) {
            if self.string {
                match b {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.string = false,
                    _ => {}
                }
            } else {
                match b {
                    b'"' => self.string = true,
                    b'{' | b'[' => self.depth += 1,
                    b',' if self.depth == 0 => return Some(self.at),
                    b'}' | b']' if self.depth == 0 => return Some(self.at),
                    b'}' | b']' => self.depth -= 1,
                    _ => {}
                }
            }
            self.at += 1;
        }
        None
    }
}
