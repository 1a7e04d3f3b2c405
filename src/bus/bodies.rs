//! The bodies of the larger items: events, failed attempts, dead letters.

use std::sync::Arc;

use bytes::Bytes;

use super::codec::{Put, Reader, Undecodable};
use super::item::{Attached, Dead, Fate, Moved, Retry};
use super::reading::Reading;
use super::types::{AttemptError, NewDelivery, RouteId, StoredEvent};

pub(super) fn route(r: &mut Reader<'_>) -> Result<RouteId, Undecodable> {
    Ok(RouteId(r.varint_u32()?))
}

const HAS_CAUSE: u8 = 1;
const HAS_ROOT: u8 = 2;
const HAS_CURSOR: u8 = 4;
const HAS_KEY: u8 = 1;
const HAS_NOT_BEFORE: u8 = 2;

pub(super) fn put_event(out: &mut Vec<u8>, e: &StoredEvent) {
    out.put_varint(e.seq);
    out.put_signed(e.accepted_ms);
    put_event_rest(out, e);
}

/// All of an event but its number and its time, which come first.
pub(super) fn put_event_rest(out: &mut Vec<u8>, e: &StoredEvent) {
    let flag = |set: bool, bit| if set { bit } else { 0 };
    out.put_u8(
        flag(e.cause.is_some(), HAS_CAUSE)
            | flag(e.root_id.is_some(), HAS_ROOT)
            | flag(e.cursor.is_some(), HAS_CURSOR),
    );
    out.put_u8(e.hops);
    out.put_varint(u64::from(e.rules_version));
    out.put_str(&e.bus);
    out.put_str(&e.id);
    for text in [&e.cause, &e.root_id, &e.cursor].into_iter().flatten() {
        out.put_str(text);
    }
    out.put_varint(e.deliveries.len() as u64);
    for d in &e.deliveries {
        out.put_varint(u64::from(d.route.0));
        out.put_u8(
            flag(d.key.is_some(), HAS_KEY) | flag(d.not_before_ms.is_some(), HAS_NOT_BEFORE),
        );
        if let Some(key) = &d.key {
            out.put_str(key);
        }
        if let Some(ms) = d.not_before_ms {
            out.put_signed(ms);
        }
    }
    out.put_bytes(&e.payload);
}

pub(super) fn event(r: &mut Reader<'_>, home: Option<&Bytes>) -> Result<StoredEvent, Undecodable> {
    let seq = r.varint()?;
    let accepted_ms = r.signed()?;
    let flags = r.u8()?;
    let hops = r.u8()?;
    let rules_version = r.varint_u32()?;
    let bus: Arc<str> = r.str()?.into();
    let id = r.string()?;
    let mut text = |bit| (flags & bit != 0).then(|| r.string()).transpose();
    let (cause, root_id, cursor) = (text(HAS_CAUSE)?, text(HAS_ROOT)?, text(HAS_CURSOR)?);
    let n = r.len()?;
    let mut deliveries = Vec::with_capacity(n);
    for _ in 0..n {
        let route = route(r)?;
        let flags = r.u8()?;
        let key = (flags & HAS_KEY != 0).then(|| r.string()).transpose()?;
        let not_before_ms = (flags & HAS_NOT_BEFORE != 0)
            .then(|| r.signed())
            .transpose()?;
        deliveries.push(NewDelivery {
            route,
            key,
            not_before_ms,
        });
    }
    let raw = r.bytes()?;
    let payload = match home {
        // Sharing pins the buffer, which holds this one item when it is given.
        Some(home) => home.slice_ref(raw),
        None => Bytes::copy_from_slice(raw),
    };
    Ok(StoredEvent {
        seq,
        accepted_ms,
        bus,
        id,
        cause,
        root_id,
        hops,
        cursor,
        rules_version,
        deliveries,
        payload,
        reading: Reading::default(),
    })
}

pub(super) fn put_attempt_error(out: &mut Vec<u8>, e: &AttemptError) {
    out.put_str(&e.class);
    out.put_str(&e.message);
    out.put_varint(e.chain.len() as u64);
    for link in &e.chain {
        out.put_str(link);
    }
    out.put_signed(e.at_ms);
    out.put_str(&e.handler);
}

pub(super) fn attempt_error(r: &mut Reader<'_>) -> Result<AttemptError, Undecodable> {
    let (class, message) = (r.string()?, r.string()?);
    let n = r.len()?;
    let mut chain = Vec::with_capacity(n);
    for _ in 0..n {
        chain.push(r.string()?);
    }
    Ok(AttemptError {
        class,
        message,
        chain,
        at_ms: r.signed()?,
        handler: r.string()?,
    })
}

pub(super) fn put_retry(out: &mut Vec<u8>, v: &Retry) {
    out.put_varint(u64::from(v.route.0));
    out.put_varint(v.seq);
    out.put_varint(u64::from(v.attempts));
    out.put_signed(v.not_before_ms);
    out.put_signed(v.set_ms);
    out.put_varint(v.previous.0);
    put_attempt_error(out, &v.error);
}

pub(super) fn put_dead(out: &mut Vec<u8>, v: &Dead) {
    out.put_varint(u64::from(v.route.0));
    out.put_varint(v.seq);
    out.put_varint(u64::from(v.attempts));
    out.put_signed(v.dead_at_ms);
    out.put_varint(v.previous.0);
    put_attempt_error(out, &v.error);
    out.put_bytes(&v.context);
}

pub(super) fn put_moved(out: &mut Vec<u8>, v: &Moved) {
    out.put_varint(v.attached.len() as u64);
    for a in &v.attached {
        out.put_varint(u64::from(a.route.0));
        out.put_varint(a.errors.len() as u64);
        for error in &a.errors {
            put_attempt_error(out, error);
        }
        match &a.dead {
            None => out.put_u8(0),
            Some((at, context)) => {
                out.put_u8(1);
                out.put_signed(*at);
                out.put_bytes(context);
            }
        }
    }
    put_event(out, &v.event);
}

pub(super) fn moved(r: &mut Reader<'_>, home: Option<&Bytes>) -> Result<Moved, Undecodable> {
    let n = r.len()?;
    let mut attached = Vec::with_capacity(n);
    for _ in 0..n {
        let route = route(r)?;
        let count = r.len()?;
        let mut errors = Vec::with_capacity(count);
        for _ in 0..count {
            errors.push(attempt_error(r)?);
        }
        let dead = match r.u8()? {
            0 => None,
            _ => Some((r.signed()?, Bytes::copy_from_slice(r.bytes()?))),
        };
        attached.push(Attached {
            route,
            errors,
            dead,
        });
    }
    Ok(Moved {
        event: Arc::new(event(r, home)?),
        attached,
    })
}

pub(super) fn put_replayed(out: &mut Vec<u8>, deliveries: &[(u64, u64)]) {
    out.put_varint(deliveries.len() as u64);
    let mut last = 0_u64;
    for &(seq, key) in deliveries {
        out.put_signed(seq.wrapping_sub(last) as i64);
        out.put_varint(key);
        last = seq;
    }
}

pub(super) fn replayed(r: &mut Reader<'_>) -> Result<Vec<(u64, u64)>, Undecodable> {
    let n = r.len()?;
    let mut deliveries = Vec::with_capacity(n);
    let mut last = 0_u64;
    for _ in 0..n {
        last = last.wrapping_add(r.signed()? as u64);
        deliveries.push((last, r.varint()?));
    }
    Ok(deliveries)
}

pub(super) fn put_fate(out: &mut Vec<u8>, fate: &Fate) {
    match fate {
        Fate::Empty => out.put_u8(0),
        Fate::Purged(why) => {
            out.put_u8(1);
            out.put_str(why);
        }
        Fate::MovedTo(route) => {
            out.put_u8(2);
            out.put_varint(u64::from(route.0));
        }
    }
}

pub(super) fn fate(r: &mut Reader<'_>) -> Result<Fate, Undecodable> {
    match r.u8()? {
        0 => Ok(Fate::Empty),
        1 => Ok(Fate::Purged(r.string()?)),
        2 => Ok(Fate::MovedTo(route(r)?)),
        _ => Err(Undecodable("a known fate of a backlog")),
    }
}
