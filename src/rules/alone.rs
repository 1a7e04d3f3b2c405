//! The wildcard complexity of one wildcard with nothing beside it: what
//! `complexity` computes with a machine of many parts, with bits instead. Most
//! wildcards are alone, and there may be a hundred thousand of them.

use std::collections::HashSet;

use super::complexity::{CEILING, MAX_SETS};
use super::machine::Step;

/// The score; `None` if the wildcard is too long for it.
///
/// Bit n of a set says that the first n steps may have been taken.
pub(super) fn score(steps: &[Step]) -> Option<u32> {
    if steps.len() > 126 {
        return None;
    }
    let places = |wanted: &dyn Fn(Step) -> bool| {
        let bits = steps.iter().enumerate();
        bits.fold(0_u128, |set, (i, step)| {
            set | u128::from(wanted(*step)) << i
        })
    };
    let stars = places(&|step| step == Step::Star);
    let mut bytes: Vec<(u8, u128)> = Vec::new();
    for step in steps {
        if let Step::Byte(byte) = *step
            && bytes.iter().all(|(known, _)| *known != byte)
        {
            bytes.push((byte, places(&|other| other == *step)));
        }
    }
    let mut best = 0;
    let (mut seen, mut waiting) = (HashSet::new(), Vec::new());
    let mut follow = |set: u128, waiting: &mut Vec<u128>| {
        // A star takes any byte, and is left by the byte behind it at once.
        let any = (set & stars) << 1 | (set & stars << 1);
        for places in bytes.iter().map(|(_, places)| *places) {
            let by_byte = (set & places) << 1 | (set & stars & places >> 1) << 2;
            if by_byte != 0 && seen.insert(any | by_byte) {
                waiting.push(any | by_byte);
            }
        }
        if any != 0 && seen.insert(any) {
            waiting.push(any);
        }
        seen.len()
    };
    let mut count = follow(1, &mut waiting);
    while let Some(set) = waiting.pop() {
        let empty_stars = set & stars & !(set >> 1);
        best = best.max(set.count_ones() + empty_stars.count_ones());
        if best >= CEILING || count >= MAX_SETS {
            break;
        }
        count = follow(set, &mut waiting);
    }
    Some(best.min(CEILING))
}
