use super::super::types::NewEvent;
use super::*;

fn event(seq: u64, cause: Option<&str>) -> Item {
    let new = NewEvent::new("orders", format!("e{seq}"), "{}");
    Item::Event(Arc::new(StoredEvent {
        seq,
        accepted_ms: 1000 + seq as i64,
        bus: new.bus,
        id: new.id,
        cause: cause.map(str::to_owned),
        root_id: cause.map(str::to_owned),
        hops: 0,
        cursor: None,
        rules_version: 0,
        deliveries: Vec::new(),
        payload: new.payload,
        reading: Default::default(),
    }))
}

fn sample() -> Index {
    let key = [1, 2];
    let mut index = Index::new(3, 10);
    for seq in 10..20 {
        index.note(
            key,
            &event(seq, (seq == 15).then_some("e1")),
            64 + seq as u32,
        );
    }
    let Item::Event(old) = event(4, None) else {
        unreachable!()
    };
    index.note(
        key,
        &Item::Moved(Box::new(super::super::item::Moved {
            event: old,
            attached: Vec::new(),
        })),
        900,
    );
    index.note(
        key,
        &Item::Delivered {
            route: RouteId(1),
            seqs: vec![4, 10, 11],
        },
        950,
    );
    index.meta.sound = 1000;
    index
}

#[test]
fn an_index_comes_back_from_its_file_and_finds_its_events() {
    let index = sample();
    let data = index.encode();
    let read = Index::decode(&data).unwrap();
    assert_eq!(read, index);
    assert_eq!(read.find(12), Some(76));
    assert_eq!(read.find(4), Some(900));
    assert_eq!(read.find(5), None);
    assert_eq!(
        Meta::decode_file(&data[..meta_len(&data).unwrap()]).unwrap(),
        index.meta
    );
    assert_eq!(
        read.own
            .causes
            .iter()
            .filter(|&&c| c == short_hash([1, 2], "e1"))
            .count(),
        1
    );
}

#[test]
fn no_flipped_bit_of_an_index_file_is_believed() {
    let data = sample().encode();
    for bit in 0..data.len() * 8 {
        let mut flipped = data.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Index::decode(&flipped).is_err(), "bit {bit}");
    }
    for cut in 0..data.len() {
        assert!(Index::decode(&data[..cut]).is_err(), "cut at {cut}");
    }
}
