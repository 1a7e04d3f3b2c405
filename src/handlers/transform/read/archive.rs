//! The members of an archive as one object's records, one member after the other.

use super::members::Members;
use super::{Expected, Reader, Started, text};
use crate::handlers::Failure;
use crate::handlers::transform::batch::Feed;
use crate::handlers::transform::options::ReadOptions;

struct ArchiveReader {
    members: Members,
    /// The member that is being read, and its name until the feed knows it.
    current: Option<Box<dyn Reader>>,
    name: Option<String>,
    options: ReadOptions,
    expected: Expected,
}

/// Starts to read an archive. Its first member says what the columns are, if
/// no schema does; the columns of the others must fit.
///
/// # Errors
/// When it cannot be read or has no member that is wanted.
pub fn start(
    mut members: Members,
    options: &ReadOptions,
    expected: &Expected,
) -> Result<Started, Failure> {
    let Some((name, content)) = members.next()? else {
        return Err(Failure::permanent(
            "NoMembers",
            "the archive has no file that is read; `read.members` chooses which are",
        ));
    };
    let first = text(content, options, expected)?;
    let reader = ArchiveReader {
        members,
        current: Some(first.reader),
        name: Some(name),
        options: ReadOptions {
            drift: None,
            ..options.clone()
        },
        expected: Expected::of(&first.schema),
    };
    Ok(Started {
        reader: Box::new(reader),
        ..first
    })
}

impl Reader for ArchiveReader {
    fn fill(&mut self, feed: &mut Feed<'_>) -> Result<bool, Failure> {
        loop {
            if let Some(name) = self.name.take() {
                feed.member = Some(name);
            }
            if let Some(reader) = &mut self.current {
                if reader.fill(feed)? {
                    return Ok(true);
                }
                self.current = None;
            }
            let Some((name, content)) = self.members.next()? else {
                return Ok(false);
            };
            let next = text(content, &self.options, &self.expected)?;
            for column in next.ignored {
                *feed.ignored.entry(column).or_default() += 1;
            }
            self.current = Some(next.reader);
            self.name = Some(name);
        }
    }
}
