//! What a commit is made of: the items, and how each is written.
//!
//! An item is `kind, body`; the kinds that are read again by position (events, failed
//! attempts, dead letters) carry a checksum of their own in front.

use std::sync::Arc;

use bytes::Bytes;

use super::bodies::{
    attempt_error, event, fate, moved, put_dead, put_event, put_event_rest, put_fate, put_moved,
    put_replayed, put_retry, replayed, route,
};
use super::codec::{Put, Reader, Undecodable, padded_varint, zigzag};
use super::types::{AttemptError, RouteId, StoredEvent};

/// A place in the log: segment number and byte offset of an item; 0 is nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Pos(pub u64);

impl Pos {
    pub(crate) fn new(segment: u32, offset: u32) -> Self {
        Self(u64::from(segment) << 32 | u64::from(offset))
    }

    pub(crate) fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(crate) fn offset(self) -> u32 {
        self.0 as u32
    }

    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// A failed attempt, to be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Retry {
    pub route: RouteId,
    pub seq: u64,
    pub attempts: u32,
    pub not_before_ms: i64,
    /// When the delay began.
    pub set_ms: i64,
    pub error: AttemptError,
    /// Where the attempt before this one is.
    pub previous: Pos,
}

/// A delivery that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dead {
    pub route: RouteId,
    pub seq: u64,
    pub attempts: u32,
    pub dead_at_ms: i64,
    pub error: AttemptError,
    pub context: Bytes,
    pub previous: Pos,
}

/// What a delivery takes along when its event is copied forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attached {
    pub route: RouteId,
    pub errors: Vec<AttemptError>,
    /// When and with which context it was given up.
    pub dead: Option<(i64, Bytes)>,
}

/// An event copied forward, so that its old segment can go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moved {
    pub event: Arc<StoredEvent>,
    pub attached: Vec<Attached>,
}

/// What a retired route's backlog became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    Empty,
    Purged(String),
    MovedTo(RouteId),
}

/// One change of the bus's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Event(Arc<StoredEvent>),
    Leased {
        route: RouteId,
        seqs: Vec<u64>,
    },
    Delivered {
        route: RouteId,
        seqs: Vec<u64>,
    },
    Released {
        route: RouteId,
        seqs: Vec<u64>,
    },
    Retry(Box<Retry>),
    Dead(Box<Dead>),
    Expired {
        route: RouteId,
        seqs: Vec<u64>,
        policy: String,
    },
    Purged {
        route: RouteId,
        seqs: Vec<u64>,
        why: String,
    },
    Redriven {
        from: RouteId,
        to: RouteId,
        seqs: Vec<u64>,
    },
    /// Sequence number and hash of the ordering key (0: none).
    Replayed {
        route: RouteId,
        replay_id: String,
        deliveries: Vec<(u64, u64)>,
    },
    Moved(Box<Moved>),
    Route {
        id: RouteId,
        name: String,
        ordered: bool,
    },
    Paused {
        route: RouteId,
        paused: bool,
    },
    Retired {
        route: RouteId,
        fate: Fate,
    },
    Duplicates {
        bus: String,
        count: u64,
    },
}

const EVENT: u8 = 1;
const LEASED: u8 = 2;
const DELIVERED: u8 = 3;
const RELEASED: u8 = 4;
const RETRY: u8 = 5;
const DEAD: u8 = 6;
const EXPIRED: u8 = 7;
const PURGED: u8 = 8;
const REDRIVEN: u8 = 9;
const REPLAYED: u8 = 10;
const MOVED: u8 = 11;
const ROUTE: u8 = 12;
const PAUSED: u8 = 13;
const RETIRED: u8 = 14;
const DUPLICATES: u8 = 15;

/// Writes an [`Item::Leased`].
pub(crate) fn put_leased(
    route: RouteId,
    seqs: impl ExactSizeIterator<Item = u64>,
    out: &mut Vec<u8>,
) {
    put_list(LEASED, route, seqs, out);
}

/// Writes an [`Item::Delivered`].
pub(crate) fn put_delivered(
    route: RouteId,
    seqs: impl ExactSizeIterator<Item = u64>,
    out: &mut Vec<u8>,
) {
    put_list(DELIVERED, route, seqs, out);
}

fn put_list(kind: u8, route: RouteId, seqs: impl ExactSizeIterator<Item = u64>, out: &mut Vec<u8>) {
    out.put_u8(kind);
    out.put_varint(u64::from(route.0));
    out.put_seqs(seqs);
}

/// Bytes before the body of an item that can be read by position: kind, checksum, length.
pub(crate) const ADDRESSED_HEADER: usize = 9;

impl Item {
    /// Writes the item at the end of `out`. `salt` is the segment's.
    pub(crate) fn encode(&self, salt: u64, out: &mut Vec<u8>) {
        match self {
            Self::Event(event) => addressed(EVENT, salt, out, |o| put_event(o, event)),
            Self::Retry(retry) => addressed(RETRY, salt, out, |o| put_retry(o, retry)),
            Self::Dead(dead) => addressed(DEAD, salt, out, |o| put_dead(o, dead)),
            Self::Moved(moved) => addressed(MOVED, salt, out, |o| put_moved(o, moved)),
            other => other.encode_plain(out),
        }
    }

    fn encode_plain(&self, out: &mut Vec<u8>) {
        let list = |out: &mut Vec<u8>, kind, route: &RouteId, seqs: &[u64]| {
            put_list(kind, *route, seqs.iter().copied(), out);
        };
        match self {
            Self::Leased { route, seqs } => list(out, LEASED, route, seqs),
            Self::Delivered { route, seqs } => list(out, DELIVERED, route, seqs),
            Self::Released { route, seqs } => list(out, RELEASED, route, seqs),
            Self::Expired {
                route,
                seqs,
                policy,
            } => {
                list(out, EXPIRED, route, seqs);
                out.put_str(policy);
            }
            Self::Purged { route, seqs, why } => {
                list(out, PURGED, route, seqs);
                out.put_str(why);
            }
            Self::Redriven { from, to, seqs } => {
                list(out, REDRIVEN, from, seqs);
                out.put_varint(u64::from(to.0));
            }
            Self::Replayed {
                route,
                replay_id,
                deliveries,
            } => {
                out.put_u8(REPLAYED);
                out.put_varint(u64::from(route.0));
                out.put_str(replay_id);
                put_replayed(out, deliveries);
            }
            Self::Route { id, name, ordered } => {
                out.put_u8(ROUTE);
                out.put_varint(u64::from(id.0));
                out.put_str(name);
                out.put_u8(u8::from(*ordered));
            }
            Self::Paused { route, paused } => {
                out.put_u8(PAUSED);
                out.put_varint(u64::from(route.0));
                out.put_u8(u8::from(*paused));
            }
            Self::Retired { route, fate } => {
                out.put_u8(RETIRED);
                out.put_varint(u64::from(route.0));
                put_fate(out, fate);
            }
            Self::Duplicates { bus, count } => {
                out.put_u8(DUPLICATES);
                out.put_str(bus);
                out.put_varint(*count);
            }
            Self::Event(_) | Self::Retry(_) | Self::Dead(_) | Self::Moved(_) => {}
        }
    }

    /// Reads one item. The checksum of an addressed item is checked only where it is
    /// read by position: here the record's own checksum covers it. `home` is the
    /// buffer that `r` reads, to share payloads with instead of copying them.
    pub(crate) fn decode(r: &mut Reader<'_>, home: Option<&Bytes>) -> Result<Self, Undecodable> {
        let kind = r.u8()?;
        match kind {
            EVENT | RETRY | DEAD | MOVED => addressed_inline(kind, r, home),
            EXPIRED => {
                let (route, seqs) = (route(r)?, r.seqs()?);
                Ok(Self::Expired {
                    route,
                    seqs,
                    policy: r.string()?,
                })
            }
            PURGED => {
                let (route, seqs) = (route(r)?, r.seqs()?);
                Ok(Self::Purged {
                    route,
                    seqs,
                    why: r.string()?,
                })
            }
            REDRIVEN => {
                let (from, seqs) = (route(r)?, r.seqs()?);
                Ok(Self::Redriven {
                    from,
                    seqs,
                    to: route(r)?,
                })
            }
            LEASED => Ok(Self::Leased {
                route: route(r)?,
                seqs: r.seqs()?,
            }),
            DELIVERED => Ok(Self::Delivered {
                route: route(r)?,
                seqs: r.seqs()?,
            }),
            RELEASED => Ok(Self::Released {
                route: route(r)?,
                seqs: r.seqs()?,
            }),
            REPLAYED => Ok(Self::Replayed {
                route: route(r)?,
                replay_id: r.string()?,
                deliveries: replayed(r)?,
            }),
            ROUTE => Ok(Self::Route {
                id: route(r)?,
                name: r.string()?,
                ordered: r.u8()? != 0,
            }),
            PAUSED => Ok(Self::Paused {
                route: route(r)?,
                paused: r.u8()? != 0,
            }),
            RETIRED => Ok(Self::Retired {
                route: route(r)?,
                fate: fate(r)?,
            }),
            DUPLICATES => Ok(Self::Duplicates {
                bus: r.string()?,
                count: r.varint()?,
            }),
            _ => Err(Undecodable("a known kind of item")),
        }
    }
}

/// Reads an addressed item where it stands between others.
fn addressed_inline(
    kind: u8,
    r: &mut Reader<'_>,
    home: Option<&Bytes>,
) -> Result<Item, Undecodable> {
    r.u32()?;
    let len = r.u32()? as usize;
    let start = r.pos();
    let body = r.take(len)?;
    let inside = |h: &Bytes| h.len() >= start + len;
    let home = home
        .filter(|h| inside(h))
        .map(|h| h.slice(start..start + len));
    decode_addressed(kind, body, home.as_ref())
}

/// The checksum of an addressed item.
fn addressed_crc(salt: u64, kind: u8, body: &[u8]) -> u32 {
    let mut head = [0; 9];
    head[..8].copy_from_slice(&salt.to_le_bytes());
    head[8] = kind;
    crc32c::crc32c_append(crc32c::crc32c(&head), body)
}

fn addressed(kind: u8, salt: u64, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    out.put_u8(kind);
    let head = out.len();
    out.extend_from_slice(&[0; 8]);
    let start = out.len();
    body(out);
    let crc = addressed_crc(salt, kind, &out[start..]);
    let len = (out.len() - start) as u32;
    out[head..head + 4].copy_from_slice(&crc.to_le_bytes());
    out[head + 4..head + 8].copy_from_slice(&len.to_le_bytes());
}

/// Bytes of the number and of the time of an event that [`seal_event`] fills in: enough
/// for 70 million million events, and for the years up to 10889.
const SEALED: (usize, usize) = (8, 7);

/// Writes an event's item at the end of `out`, all but what [`seal_event`] fills in.
pub(crate) fn prepare_event(event: &StoredEvent, out: &mut Vec<u8>) {
    let start = out.len();
    out.put_u8(EVENT);
    out.extend_from_slice(&[0; ADDRESSED_HEADER - 1 + SEALED.0 + SEALED.1]);
    put_event_rest(out, event);
    let len = (out.len() - start - ADDRESSED_HEADER) as u32;
    out[start + 5..start + 9].copy_from_slice(&len.to_le_bytes());
}

/// Fills in the number, the time and the checksum of a prepared event.
pub(crate) fn seal_event(item: &mut [u8], salt: u64, seq: u64, accepted_ms: i64) {
    let (_, body) = item.split_at_mut(ADDRESSED_HEADER);
    body[..SEALED.0].copy_from_slice(&padded_varint::<{ SEALED.0 }>(seq));
    let time = padded_varint::<{ SEALED.1 }>(zigzag(accepted_ms));
    body[SEALED.0..SEALED.0 + SEALED.1].copy_from_slice(&time);
    let crc = addressed_crc(salt, EVENT, body);
    item[1..5].copy_from_slice(&crc.to_le_bytes());
}

/// The kind, checksum and body length of an addressed item's header.
pub(crate) fn addressed_header(head: &[u8; ADDRESSED_HEADER]) -> Option<(u8, u32, usize)> {
    let mut r = Reader::new(head);
    let (kind, crc, len) = (r.u8().ok()?, r.u32().ok()?, r.u32().ok()?);
    matches!(kind, EVENT | RETRY | DEAD | MOVED).then_some((kind, crc, len as usize))
}

/// Reads an addressed item's body by position, checking its own checksum.
pub(crate) fn decode_checked(
    salt: u64,
    kind: u8,
    crc: u32,
    body: &Bytes,
) -> Result<Item, Undecodable> {
    if addressed_crc(salt, kind, body) != crc {
        return Err(Undecodable("a matching checksum"));
    }
    decode_addressed(kind, body, Some(body))
}

fn decode_addressed(kind: u8, body: &[u8], home: Option<&Bytes>) -> Result<Item, Undecodable> {
    let mut r = Reader::new(body);
    let item = match kind {
        EVENT => Item::Event(Arc::new(event(&mut r, home)?)),
        RETRY => Item::Retry(Box::new(Retry {
            route: route(&mut r)?,
            seq: r.varint()?,
            attempts: r.varint_u32()?,
            not_before_ms: r.signed()?,
            set_ms: r.signed()?,
            previous: Pos(r.varint()?),
            error: attempt_error(&mut r)?,
        })),
        DEAD => Item::Dead(Box::new(Dead {
            route: route(&mut r)?,
            seq: r.varint()?,
            attempts: r.varint_u32()?,
            dead_at_ms: r.signed()?,
            previous: Pos(r.varint()?),
            error: attempt_error(&mut r)?,
            context: Bytes::copy_from_slice(r.bytes()?),
        })),
        _ => Item::Moved(Box::new(moved(&mut r, home)?)),
    };
    if !r.is_done() {
        return Err(Undecodable("nothing after the item"));
    }
    Ok(item)
}

#[cfg(test)]
#[path = "item_tests.rs"]
mod tests;
