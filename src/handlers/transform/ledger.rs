//! Which events that share a publication are published already, and in which
//! one. A retry may bring an event in another batch; its id is looked
//! up by the hour in which the bus accepted it, which no retry changes. So only
//! the hours that are being worked on are in memory, whatever the table's size.

use super::disk;
use super::manifest::{FOLDER, Manifest};
use crate::event::Event;
use crate::handlers::{Failure, Message};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

/// Hours whose ids are kept in memory.
const HOURS_KEPT: usize = 48;

/// The ids of one handler's published events.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Publications by the first and last hour of their events; `None`: not read yet.
    publications: Option<Vec<Listed>>,
    hours: HashMap<i64, Hour>,
    turn: u64,
}

#[derive(Debug)]
struct Listed {
    publication: Arc<str>,
    hours: (i64, i64),
}

#[derive(Debug, Default)]
struct Hour {
    used: u64,
    ids: HashMap<String, Arc<str>>,
}

/// A line of a file of ids.
#[derive(Serialize, Deserialize)]
struct Line {
    hour: i64,
    id: String,
}

/// The hour of a time in Unix milliseconds.
#[must_use]
pub fn hour(ms: i64) -> i64 {
    ms.div_euclid(HOUR_MS)
}

impl Ledger {
    /// The publication of an event, if there is one.
    ///
    /// # Errors
    /// When the table's manifests or ids cannot be read.
    pub fn find(
        &mut self,
        lake: &Path,
        table: &str,
        handler: &str,
        id: &str,
        accepted_ms: i64,
    ) -> Result<Option<Arc<str>>, Failure> {
        let hour = hour(accepted_ms);
        self.turn += 1;
        if !self.hours.contains_key(&hour) {
            let loaded = self.read_hour(lake, table, handler, hour)?;
            self.hours.insert(hour, loaded);
            self.forget();
        }
        Ok(self.hours.get_mut(&hour).and_then(|known| {
            known.used = self.turn;
            known.ids.get(id).cloned()
        }))
    }

    /// Notes a publication that was just made.
    pub fn add(&mut self, publication: &str, events: &[(i64, String)]) {
        let publication: Arc<str> = publication.into();
        let (Some(first), Some(last)) = (
            events.iter().map(|(hour, _)| *hour).min(),
            events.iter().map(|(hour, _)| *hour).max(),
        ) else {
            return;
        };
        if let Some(listed) = &mut self.publications {
            listed.push(Listed {
                publication: Arc::clone(&publication),
                hours: (first, last),
            });
        }
        for (hour, id) in events {
            if let Some(known) = self.hours.get_mut(hour) {
                known.ids.insert(id.clone(), Arc::clone(&publication));
            }
        }
    }

    fn read_hour(
        &mut self,
        lake: &Path,
        table: &str,
        handler: &str,
        hour: i64,
    ) -> Result<Hour, Failure> {
        let listed = match &mut self.publications {
            Some(listed) => listed,
            none => none.insert(list(lake, table, handler)?),
        };
        let mut ids = HashMap::new();
        let covering = listed
            .iter()
            .filter(|p| (p.hours.0..=p.hours.1).contains(&hour));
        for publication in covering {
            for line in read_ids(lake, table, &publication.publication)? {
                if line.hour == hour {
                    ids.insert(line.id, Arc::clone(&publication.publication));
                }
            }
        }
        Ok(Hour {
            used: self.turn,
            ids,
        })
    }

    fn forget(&mut self) {
        while self.hours.len() > HOURS_KEPT {
            let oldest = self
                .hours
                .iter()
                .min_by_key(|(_, h)| h.used)
                .map(|(hour, _)| *hour);
            match oldest {
                Some(hour) => self.hours.remove(&hour),
                None => return,
            };
        }
    }
}

fn list(lake: &Path, table: &str, handler: &str) -> Result<Vec<Listed>, Failure> {
    let folder = lake.join(table).join(FOLDER);
    let unread = |e: std::io::Error| {
        let message = format!("{} cannot be read", folder.display());
        Failure::transient("ManifestUnreadable", message).caused_by(&e)
    };
    let entries = match std::fs::read_dir(&folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(unread)?,
    };
    let mut listed = Vec::new();
    for entry in entries {
        let name = entry.map_err(unread)?.file_name();
        let name = name.to_string_lossy();
        let Some(publication) = name.strip_suffix(IDS).filter(|p| !p.starts_with('.')) else {
            continue;
        };
        let found = Manifest::load(lake, table, publication)?.filter(|m| m.handler == handler);
        if let Some(events) = found.and_then(|m| m.events) {
            listed.push(Listed {
                publication: publication.into(),
                hours: events.hours,
            });
        }
    }
    Ok(listed)
}

/// Milliseconds in an hour.
pub const HOUR_MS: i64 = 3_600_000;
/// How the name of a file of ids ends.
const IDS: &str = ".ids";

/// The name of the file of the events themselves, where they are kept.
#[must_use]
pub fn causes_file(publication: &str) -> String {
    format!("{publication}.causes")
}

/// An event of a publication, as it is kept to be read again.
#[derive(Serialize, Deserialize)]
struct Cause<'a> {
    hour: i64,
    #[serde(borrow)]
    event: Cow<'a, str>,
    /// What the rule's target made of it, where it made something.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    input: Option<Cow<'a, str>>,
}

/// The text of a publication's events, as [`write_causes`] keeps it.
///
/// # Errors
/// When it cannot be compressed, which would be a bug here.
pub fn causes<'a>(
    messages: impl Iterator<Item = (&'a Event, Option<&'a [u8]>, i64)>,
) -> Result<Vec<u8>, Failure> {
    let mut packed =
        zstd::Encoder::new(Vec::new(), zstd::DEFAULT_COMPRESSION_LEVEL).map_err(|e| unkept(&e))?;
    for (event, input, hour) in messages {
        let cause = Cause {
            hour,
            event: String::from_utf8_lossy(event.text()),
            input: input.map(String::from_utf8_lossy),
        };
        serde_json::to_writer(&mut packed, &cause).map_err(|e| unkept(&e))?;
        packed.write_all(b"\n").map_err(|e| unkept(&e))?;
    }
    packed.finish().map_err(|e| unkept(&e))
}

fn unkept(e: &dyn std::error::Error) -> Failure {
    let message = "the events of a publication could not be kept";
    Failure::transient("WriteFailed", message).caused_by(e)
}

/// Keeps the events of a publication, so that it can be made again.
///
/// # Errors
/// When the disk refuses.
pub fn write_causes(
    lake: &Path,
    table: &str,
    publication: &str,
    causes: &[u8],
) -> Result<(), Failure> {
    let folder = lake.join(table).join(FOLDER);
    std::fs::create_dir_all(&folder).map_err(|e| unkept(&e))?;
    let path = folder.join(causes_file(publication));
    disk::write_atomic(&path, causes).map_err(|e| unkept(&e))
}

/// The events that [`write_causes`] kept, as they were delivered; `None` if they
/// were not kept.
///
/// # Errors
/// When they cannot be read.
pub fn read_causes(
    lake: &Path,
    table: &str,
    publication: &str,
) -> Result<Option<Vec<Message>>, Failure> {
    let path = lake.join(table).join(FOLDER).join(causes_file(publication));
    let unread = |e: &dyn std::error::Error| {
        let message = format!("{} cannot be read", path.display());
        Failure::transient("ManifestUnreadable", message).caused_by(e)
    };
    let file = match std::fs::File::open(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|e| unread(&e))?,
    };
    let text = zstd::decode_all(file).map_err(|e| unread(&e))?;
    let mut messages = Vec::new();
    for line in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        let cause: Cause<'_> = serde_json::from_slice(line).map_err(|e| unread(&e))?;
        let event = Event::parse(cause.event.into_owned().into()).map_err(|e| unread(&e))?;
        messages.push(Message {
            event: Arc::new(event),
            input: cause.input.map(|input| input.into_owned().into()),
            seq: 0,
            attempt: 1,
            accepted_ms: cause.hour * HOUR_MS,
        });
    }
    Ok(Some(messages))
}

/// The name of the file of ids, in the folder of manifests.
#[must_use]
pub fn ids_file(publication: &str) -> String {
    format!("{publication}{IDS}")
}

/// Writes the ids of a publication; they count only once its manifest is there.
///
/// # Errors
/// When the disk refuses.
pub fn write_ids(
    lake: &Path,
    table: &str,
    publication: &str,
    events: &[(i64, String)],
) -> Result<(), Failure> {
    let folder = lake.join(table).join(FOLDER);
    let mut text = Vec::new();
    let mut write = || -> std::io::Result<()> {
        for (hour, id) in events {
            serde_json::to_writer(
                &mut text,
                &Line {
                    hour: *hour,
                    id: id.clone(),
                },
            )?;
            text.push(b'\n');
        }
        std::fs::create_dir_all(&folder)?;
        disk::write_atomic(&folder.join(ids_file(publication)), &text)
    };
    write().map_err(|e| {
        Failure::transient("WriteFailed", "the ids of the events could not be written")
            .caused_by(&e)
    })
}

fn read_ids(lake: &Path, table: &str, publication: &str) -> Result<Vec<Line>, Failure> {
    let path = lake.join(table).join(FOLDER).join(ids_file(publication));
    let parse = || -> std::io::Result<Vec<Line>> {
        let text = match std::fs::read_to_string(&path) {
            // The publication was old and is gone.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            text => text?,
        };
        text.lines().map(|l| Ok(serde_json::from_str(l)?)).collect()
    };
    parse().map_err(|e| {
        Failure::transient(
            "ManifestUnreadable",
            format!("{} cannot be read", path.display()),
        )
        .caused_by(&e)
    })
}
