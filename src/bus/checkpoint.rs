//! The whole queue state in one record, so that a start reads little.

use roaring::RoaringTreemap;

use super::audit::{BusCounts, Counts};
use super::codec::{Put, Reader, Undecodable};
use super::item::Pos;
use super::keys::Change;
use super::route::{At, DeadRef, Entry, Replay, Route};
use super::siphash::LogKey;
use super::state::State;
use super::types::RouteId;

/// What stands at the head of a segment's first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    /// Length of the segment before this one when it was closed; 0 for the first.
    pub previous_len: u64,
    /// The next sequence number.
    pub next_seq: u64,
    /// Whether the state follows; without it an older segment has to be read first.
    pub full: bool,
}

/// Writes the body of a checkpoint record; the state only when `state` is given.
pub(crate) fn encode(previous_len: u64, next_seq: u64, state: Option<&State>, out: &mut Vec<u8>) {
    out.put_varint(previous_len);
    out.put_varint(next_seq);
    out.put_u8(u8::from(state.is_some()));
    let Some(state) = state else { return };
    out.put_varint(state.lost);
    out.put_varint(state.buses.len() as u64);
    for (label, counts) in &state.buses {
        out.put_str(label);
        for v in [
            counts.accepted,
            counts.duplicates,
            counts.matched,
            counts.unmatched,
            counts.bytes,
        ] {
            out.put_varint(v);
        }
    }
    out.put_varint(state.routes.len() as u64);
    for route in &state.routes {
        put_route(out, route);
    }
}

/// Reads only the head.
pub(crate) fn link(body: &[u8]) -> Result<Link, Undecodable> {
    read_link(&mut Reader::new(body))
}

fn read_link(r: &mut Reader<'_>) -> Result<Link, Undecodable> {
    Ok(Link {
        previous_len: r.varint()?,
        next_seq: r.varint()?,
        full: r.u8()? != 0,
    })
}

/// Reads a full checkpoint. Everything that was in somebody's hands is ready again;
/// due times are set by [`State::rearm`].
pub(crate) fn decode(body: &[u8], key: LogKey) -> Result<State, Undecodable> {
    let mut r = Reader::new(body);
    let link = read_link(&mut r)?;
    if !link.full {
        return Err(Undecodable("a full checkpoint"));
    }
    let mut state = State::new(key);
    state.next_seq = link.next_seq;
    state.lost = r.varint()?;
    for _ in 0..r.len()? {
        let label = r.str()?;
        let counts = BusCounts {
            accepted: r.varint()?,
            duplicates: r.varint()?,
            matched: r.varint()?,
            unmatched: r.varint()?,
            bytes: r.varint()?,
        };
        state.buses.insert(label.into(), counts);
    }
    for id in 0..r.len()? {
        state.add_route(route(&mut r, RouteId(id as u32))?);
    }
    if !r.is_done() {
        return Err(Undecodable("nothing after the checkpoint"));
    }
    Ok(state)
}

/// Roughly how large a checkpoint of this state is, in bytes.
pub(crate) fn estimate(state: &State) -> u64 {
    let routes = state.routes.iter().map(|r| {
        let bits = r.fresh.len() / 8 + r.again.len() / 8;
        bits.min(r.pending * 2)
            + r.entries.len() as u64 * 24
            + r.dead.len() as u64 * 24
            + r.keyed.len() as u64 * 12
            + r.replays.iter().map(|p| p.seen.len() / 8).sum::<u64>()
            + 128
    });
    routes.sum()
}

pub(crate) fn put_bitmap(out: &mut Vec<u8>, bitmap: &RoaringTreemap) {
    let at = out.len();
    out.put_u64(0);
    // Runs are what a backlog is made of; optimising a copy keeps the original fast.
    let mut packed = bitmap.clone();
    packed.optimize();
    if packed.serialize_into(&mut *out).is_err() {
        // Writing into memory cannot fail; an empty bitmap would be a silent loss.
        unreachable!("writing into a vector does not fail");
    }
    let len = (out.len() - at - 8) as u64;
    out[at..at + 8].copy_from_slice(&len.to_le_bytes());
}

pub(crate) fn bitmap(r: &mut Reader<'_>) -> Result<RoaringTreemap, Undecodable> {
    let len = usize::try_from(r.u64()?).map_err(|_| Undecodable("a length in memory"))?;
    let raw = r.take(len)?;
    RoaringTreemap::deserialize_from(raw).map_err(|_| Undecodable("a bitmap"))
}

const ORDERED: u8 = 1;
const PAUSED: u8 = 2;
const RETIRED: u8 = 4;

fn put_route(out: &mut Vec<u8>, route: &Route) {
    out.put_str(&route.name);
    let flag = |set: bool, bit| if set { bit } else { 0 };
    out.put_u8(
        flag(route.ordered, ORDERED) | flag(route.paused, PAUSED) | flag(route.retired, RETIRED),
    );
    route
        .counts
        .to_array()
        .into_iter()
        .for_each(|v| out.put_varint(v));
    put_bitmap(out, &route.fresh.to_bitmap());
    put_bitmap(out, &route.again.to_bitmap());
    out.put_varint(route.replays.len() as u64);
    for replay in &route.replays {
        out.put_str(&replay.id);
        put_bitmap(out, &replay.seen);
    }
    out.put_varint(route.entries.len() as u64);
    for (seq, entry) in route.entries.iter() {
        put_entry(out, seq, route.key(seq), entry);
    }
    out.put_varint(route.keys.len() as u64);
    for (key, busy, waiting) in route.keys.iter() {
        out.put_u64(key);
        out.put_varint(busy.unwrap_or(0));
        out.put_seqs(waiting.iter().copied());
    }
    out.put_varint(route.dead.len() as u64);
    for (&seq, dead) in &route.dead {
        out.put_varint(seq);
        out.put_u64(dead.pos.0);
        out.put_varint(u64::from(dead.first_segment));
        out.put_varint(u64::from(dead.attempts));
        out.put_signed(dead.dead_at_ms);
        out.put_varint(dead.key);
    }
}

fn put_entry(out: &mut Vec<u8>, seq: u64, key: u64, entry: &Entry) {
    out.put_varint(seq);
    out.put_varint(u64::from(entry.attempts));
    out.put_varint(u64::from(entry.first_segment));
    out.put_varint(entry.last.0);
    out.put_varint(key);
    match entry.at {
        At::Delayed { until, wait, .. } => {
            out.put_u8(1);
            out.put_signed(until);
            out.put_varint(wait);
        }
        At::Ready | At::Leased { .. } | At::Settling => out.put_u8(0),
    }
}

fn entry(r: &mut Reader<'_>) -> Result<(u64, Entry), Undecodable> {
    let seq = r.varint()?;
    let mut entry = Entry {
        attempts: r.varint_u32()?,
        first_segment: r.varint_u32()?,
        last: Pos(r.varint()?),
        ..Entry::new()
    };
    // Its key is told again where the lines are.
    r.varint()?;
    if r.u8()? != 0 {
        entry.at = At::Delayed {
            due: 0,
            until: r.signed()?,
            wait: r.varint()?,
        };
    }
    Ok((seq, entry))
}

fn route(r: &mut Reader<'_>, id: RouteId) -> Result<Route, Undecodable> {
    let name = r.string()?;
    let flags = r.u8()?;
    let mut route = Route::new(id, name, flags & ORDERED != 0);
    route.paused = flags & PAUSED != 0;
    route.retired = flags & RETIRED != 0;
    let mut counts = [0; 10];
    for v in &mut counts {
        *v = r.varint()?;
    }
    route.counts = Counts::from_array(counts);
    route.fresh = bitmap(r)?.into();
    route.again = bitmap(r)?.into();
    for _ in 0..r.len()? {
        let id = r.str()?.into();
        route.replays.push(Replay {
            id,
            seen: bitmap(r)?,
        });
    }
    for _ in 0..r.len()? {
        let (seq, entry) = entry(r)?;
        route.entries.insert(seq, entry);
    }
    lines(r, &mut route)?;
    for _ in 0..r.len()? {
        let seq = r.varint()?;
        let dead = DeadRef {
            pos: Pos(r.u64()?),
            first_segment: r.varint_u32()?,
            attempts: r.varint_u32()?,
            dead_at_ms: r.signed()?,
            key: r.varint()?,
        };
        route.dead.insert(seq, dead);
    }
    place_entries(&mut route);
    Ok(route)
}

fn lines(r: &mut Reader<'_>, route: &mut Route) -> Result<(), Undecodable> {
    let count = r.len()?;
    // A table that grows to millions line by line is copied again and again.
    route.keys.reserve(count);
    let (mut keyed, mut heads) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        let key = r.u64()?;
        let busy = match r.varint()? {
            0 => None,
            seq => Some(seq),
        };
        let waiting = r.seqs()?;
        let seqs = busy.into_iter().chain(waiting.iter().copied());
        keyed.extend(seqs.map(|seq| (seq, key)));
        let head = route.keys.restore(key, busy, waiting);
        heads.extend(busy.or(head).map(|seq| (seq, key)));
    }
    // Lines come in no order; in theirs, neighbours are put where they belong quickly.
    keyed.sort_unstable();
    for (seq, key) in keyed {
        route.keyed.insert(seq, key);
    }
    heads.sort_unstable();
    for (seq, key) in heads {
        if !route.keys.is_busy(key, seq) {
            let up = Some(seq);
            route.follow(key, Change { up, down: None });
        } else if !route.is_delayed(seq) {
            let class = usize::from(route.replay_of(seq).is_some());
            route.heads[class].insert(seq);
        }
    }
    Ok(())
}

/// Puts touched deliveries where they are found, and counts what is pending.
fn place_entries(route: &mut Route) {
    let mut ready = Vec::new();
    let mut waiting = 0;
    let plain = route.entries.iter().filter(|e| !route.keyed.contains(e.0));
    for (seq, entry) in plain {
        match entry.at {
            At::Delayed { .. } => waiting += 1,
            _ => ready.push(seq),
        }
    }
    for seq in ready {
        match route.replay_of(seq).is_some() {
            true => route.again.insert(seq),
            false => route.fresh.insert(seq),
        };
    }
    route.list_delayed();
    route.pending = route.fresh.len() + route.again.len() + route.keyed.len() as u64 + waiting;
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
