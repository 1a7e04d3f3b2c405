use super::*;
use proptest::prelude::*;

const SALT: u64 = 0x1234_5678_9abc_def1;

/// A segment with one commit per entry of `synced`, which is what the commit says was durable.
fn segment(synced: &[Option<usize>]) -> (Vec<u8>, Vec<usize>) {
    let mut data = vec![0; 64];
    let mut ends = vec![64];
    for (i, says) in synced.iter().enumerate() {
        let mut record = Vec::new();
        begin(Kind::Commit, &mut record);
        let synced = says.map_or(0, |n| ends[n]) as u64;
        CommitHead {
            next_seq: i as u64 + 1,
            time_ms: 7,
            synced,
        }
        .encode(&mut record);
        record.extend_from_slice(&vec![0xAB; 50 + i]);
        finish(&mut record, SALT, data.len() as u64);
        data.extend_from_slice(&record);
        ends.push(data.len());
    }
    (data, ends)
}

#[test]
fn sound_records_are_found_one_after_the_other() {
    let (data, ends) = segment(&[None, Some(1), Some(2)]);
    let walk = walk(&data, SALT, 64);
    assert_eq!(
        walk.records.iter().map(|r| r.end).collect::<Vec<_>>(),
        ends[1..]
    );
    assert_eq!(
        (walk.holes.len(), walk.tail, walk.proof),
        (0, 0, ends[2] as u64)
    );
}

#[test]
fn bytes_after_the_last_sound_record_are_a_torn_tail() {
    let (data, ends) = segment(&[None, Some(1), Some(2)]);
    for cut in ends[2] + 1..data.len() {
        let walk = walk(&data[..cut], SALT, 64);
        assert_eq!((walk.records.len(), walk.holes.len()), (2, 0));
        assert_eq!(walk.tail, cut - ends[2]);
    }
}

#[test]
fn a_bad_record_that_was_durable_is_a_proven_hole() {
    let (mut data, ends) = segment(&[None, Some(1), Some(2), Some(3)]);
    data[ends[1] + 20] ^= 4;
    let walk = walk(&data, SALT, 64);
    assert_eq!(
        walk.holes,
        [Hole {
            from: ends[1],
            to: ends[2],
            proven: true
        }]
    );
    assert_eq!((walk.records.len(), walk.tail), (3, 0));
}

#[test]
fn a_bad_record_that_no_later_one_vouches_for_is_an_unproven_hole() {
    let (mut data, ends) = segment(&[None, Some(1), Some(1), Some(1)]);
    data[ends[1] + 20] ^= 4;
    let walk = walk(&data, SALT, 64);
    assert_eq!(
        walk.holes,
        [Hole {
            from: ends[1],
            to: ends[2],
            proven: false
        }]
    );
}

#[test]
fn a_record_at_another_place_or_of_another_segment_is_none() {
    let (data, ends) = segment(&[None, Some(1)]);
    assert!(at(&data, SALT, 64).is_some());
    assert!(at(&data, SALT ^ 2, 64).is_none());
    let mut moved = vec![0; 10];
    moved.extend_from_slice(&data[64..ends[1]]);
    assert!(at(&moved, SALT, 10).is_none());
}

proptest! {
    #[test]
    fn walking_over_arbitrary_bytes_never_panics(mut data in proptest::collection::vec(any::<u8>(), 64..600), at: usize) {
        let at = 64 + at % (data.len() - 63);
        let magic = magic(SALT);
        for (i, b) in magic.iter().enumerate() {
            if let Some(slot) = data.get_mut(at + i) {
                *slot = *b;
            }
        }
        let walk = walk(&data, SALT, 64);
        prop_assert!(walk.sound + walk.tail == data.len());
    }

    #[test]
    fn any_one_flipped_bit_loses_one_record_at_most(bit in 0_usize..64 * 8 * 2) {
        let (mut data, ends) = segment(&[None, Some(1), Some(2), Some(3), Some(4)]);
        let bit = 64 * 8 + bit % ((ends[4] - 64) * 8);
        data[bit / 8] ^= 1 << (bit % 8);
        let walk = walk(&data, SALT, 64);
        prop_assert_eq!(walk.records.len(), 4);
        prop_assert!(walk.holes.len() == 1 && walk.holes[0].proven);
    }
}
