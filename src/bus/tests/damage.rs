//! Flipped bits, torn tails, missing files, old formats.

use super::*;

/// A closed log of several segments, and what every event's id is.
async fn sample() -> (Bench, u64) {
    let mut bench = Bench::new();
    bench.options.segment_bytes = 2048;
    let bus = bench.start();
    let r = route(&bus, "r").await;
    for i in 0..40 {
        let mut event = event(&format!("e{i}"), &[r]);
        event.cursor = Some("a cursor that takes some room ".repeat(6));
        bus.accept(vec![event]).await.unwrap();
        if i % 4 == 0 {
            let leased = bus.receive(&[r], Receive { max: 2, ..all() }).unwrap();
            finish(&bus, &leased, Outcome::Delivered).await;
        }
    }
    bus.maintain().unwrap();
    bus.close().await.unwrap();
    (bench, 40)
}

fn segments(bench: &Bench) -> Vec<(PathBuf, u64)> {
    let fs: &dyn FileSystem = &bench.fs;
    let entries = fs.list(&bench.options.dir).unwrap();
    let segments = entries.into_iter().filter(|e| e.name.ends_with(".seg"));
    segments
        .map(|e| (bench.options.dir.join(e.name), e.len))
        .collect()
}

#[tokio::test]
async fn no_flipped_bit_is_silent_and_the_rest_is_served() {
    let (bench, n) = sample().await;
    let files = segments(&bench);
    assert!(files.len() > 3);
    let mut unnoticed = Vec::new();
    for (path, len) in &files {
        for byte in (0..*len as usize).step_by(7) {
            let fork = Bench {
                fs: bench.fs.fork(),
                clock: bench.clock.clone(),
                options: bench.options.clone(),
            };
            fork.fs.flip(path, byte, (byte % 8) as u8);
            let (bus, report) = match Bus::open(
                fork.options.clone(),
                Arc::new(fork.fs.clone()),
                fork.clock.clone(),
            ) {
                Ok(opened) => opened,
                Err(e) => panic!("{}:{byte}: {e}", path.display()),
            };
            let mut missing = 0;
            for seq in 1..=n {
                match bus.get(seq) {
                    Ok(Some(event)) => assert_eq!(event.id, format!("e{}", seq - 1)),
                    Ok(None) | Err(BusError::Corrupt { .. }) => missing += 1,
                    Err(e) => panic!("{}:{byte}: {e}", path.display()),
                }
            }
            assert!(
                missing <= 1,
                "{}:{byte}: {missing} events are gone",
                path.display()
            );
            drop(bus);
            let fs: Arc<dyn FileSystem> = Arc::new(fork.fs.clone());
            let found = doctor(&fork.options.dir, &fs, false).unwrap();
            if report.damage.is_empty() && found.damage.is_empty() && report.torn_bytes == 0 {
                unnoticed.push((path.clone(), byte));
            }
        }
    }
    assert!(unnoticed.is_empty(), "{unnoticed:?}");
}

#[tokio::test]
async fn a_hole_in_the_newest_segment_is_told_at_the_start_and_in_the_ledger() {
    let (bench, _) = sample().await;
    let (path, len) = segments(&bench).pop().unwrap();
    bench.fs.flip(&path, len as usize - 120, 1);
    let (bus, report) = bench.open();
    assert!(report.damage.iter().any(Damage::is_loss), "{report:?}");
    assert_eq!(bus.damage(), report.damage);
    bus.accept(vec![event("after", &[])]).await.unwrap();
    drop(bus);
    let fs: Arc<dyn FileSystem> = Arc::new(bench.fs.clone());
    assert!(!doctor(&bench.options.dir, &fs, false).unwrap().sound());
    let repaired = doctor(&bench.options.dir, &fs, true).unwrap();
    assert!(!repaired.repaired.is_empty());
    let again = doctor(&bench.options.dir, &fs, false).unwrap();
    assert!(again.sound(), "{again:#?}");
    let (_, report) = bench.open();
    assert!(
        report.damage.is_empty(),
        "what is known is not reported at every start: {report:?}"
    );
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_and_counted() {
    let (bench, n) = sample().await;
    let (path, len) = segments(&bench).pop().unwrap();
    let fs: &dyn FileSystem = &bench.fs;
    fs.open(&path, crate::storage::Mode::Write)
        .unwrap()
        .write_at(len, &[7; 33])
        .unwrap();
    let (bus, report) = bench.open();
    assert_eq!((report.torn_bytes, report.damage.len()), (33, 0));
    assert_eq!(bus.read(0, 1000).unwrap().len() as u64, n);
    drop(bus);
    assert_eq!(bench.open().1.torn_bytes, 0);
}

#[tokio::test]
async fn a_delivery_whose_event_cannot_be_read_is_a_dead_letter_that_somebody_sees() {
    let mut bench = Bench::new();
    bench.options.segment_bytes = 2048;
    bench.options.cache_bytes = 0;
    let bus = bench.start();
    let r = route(&bus, "r").await;
    for i in 0..40 {
        bus.accept(vec![event(&format!("e{i}"), &[r])])
            .await
            .unwrap();
    }
    let (path, _) = segments(&bench)[1].clone();
    let data = crate::storage::read_all(&bench.fs, &path).unwrap();
    let at = memchr::memmem::find(&data, b"{\"id\":\"e").unwrap();
    bench.fs.flip(&path, at + 1, 0);
    let mut seen = Vec::new();
    loop {
        let leased = bus.receive(&[r], Receive { max: 7, ..all() }).unwrap();
        if leased.is_empty() {
            break;
        }
        seen.extend(leased.iter().map(|l| l.seq));
        finish(&bus, &leased, Outcome::Delivered).await;
    }
    bus.flush().await.unwrap();
    assert_eq!(seen.len(), 39);
    let dead = bus.dead(&DeadFilter::default()).unwrap().letters;
    assert_eq!(
        (dead.len(), dead[0].errors[0].class.as_str()),
        (1, "corrupt")
    );
    assert!(dead[0].event.is_none() && !seen.contains(&dead[0].seq));
    assert!(!bus.damage().is_empty() && bus.audit().balanced());
}

#[tokio::test]
async fn a_missing_segment_is_told() {
    let (bench, _) = sample().await;
    let fs: &dyn FileSystem = &bench.fs;
    fs.remove(&segments(&bench)[1].0).unwrap();
    let (_, report) = bench.open();
    assert!(
        report.damage.iter().any(|d| d.kind == DamageKind::Missing),
        "{report:?}"
    );
}

#[tokio::test]
async fn a_log_of_a_newer_version_is_refused() {
    let (bench, _) = sample().await;
    let (path, _) = segments(&bench).pop().unwrap();
    let fs: &dyn FileSystem = &bench.fs;
    let mut head = crate::storage::read_all(fs, &path).unwrap()[..64].to_vec();
    head[8] = 2;
    let crc = crc32c::crc32c(&head[..60]).to_le_bytes();
    head[60..].copy_from_slice(&crc);
    fs.open(&path, crate::storage::Mode::Write)
        .unwrap()
        .write_at(0, &head)
        .unwrap();
    let error = Bus::open(
        bench.options.clone(),
        Arc::new(bench.fs.clone()),
        bench.clock.clone(),
    )
    .err()
    .unwrap();
    assert!(
        matches!(
            error,
            BusError::Format {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_closed_segment_that_was_cut_short_is_told() {
    let (bench, _) = sample().await;
    let files = segments(&bench);
    let (path, len) = &files[files.len() - 3];
    let fs: Arc<dyn FileSystem> = Arc::new(bench.fs.clone());
    let data = crate::storage::read_all(&bench.fs, path).unwrap();
    assert!(doctor(&bench.options.dir, &fs, false).unwrap().sound());
    for cut in 1..200 {
        let fork = bench.fs.fork();
        let file = fork.open(path, crate::storage::Mode::Write).unwrap();
        file.truncate(len - cut).unwrap();
        let fs: Arc<dyn FileSystem> = Arc::new(fork);
        let found = doctor(&bench.options.dir, &fs, true).unwrap();
        assert!(!found.sound(), "cut by {cut} of {}", data.len());
        let again = doctor(&bench.options.dir, &fs, false).unwrap();
        assert!(again.sound(), "{again:#?}");
    }
}

#[tokio::test]
async fn an_index_from_before_the_segment_was_gone_on_with_is_not_believed() {
    let mut bench = Bench::new();
    let large = bench.options.segment_bytes;
    bench.options.segment_bytes = 4_000;
    let bus = bench.start();
    let r = route(&bus, "r").await;
    let mut count = 0;
    while bus.maintain().unwrap().indexed == 0 {
        count += 1;
        let event = event(&format!("e{count}"), &[r]);
        bus.accept(vec![event]).await.unwrap();
    }
    let index = crate::bus::segment::index_path(&bench.options.dir, 1);
    let stale = crate::storage::read_all(&bench.fs, &index).unwrap();
    let kept = bus.get(count - 1).unwrap().unwrap();
    bus.close().await.unwrap();
    drop(bus);
    // A crash took the second segment, and the first is gone on with.
    let second = crate::bus::segment::path(&bench.options.dir, 2);
    bench.fs.remove(&second).unwrap();
    bench.options.segment_bytes = large;
    let bus = bench.start();
    let again = event("again", &[r]);
    let seq = bus.accept(vec![again]).await.unwrap()[0].seq;
    assert!(seq > kept.seq);
    drop(bus);
    bench.options.segment_bytes = 4_000;
    let bus = bench.start();
    let next = event("next", &[r]);
    bus.accept(vec![next]).await.unwrap();
    drop(bus);
    for stale in [None, Some(stale)] {
        if let Some(stale) = stale {
            // As if it had been there all the time.
            let file = bench.fs.open(&index, crate::storage::Mode::Truncate);
            file.unwrap().write_at(0, &stale).unwrap();
        }
        let bus = bench.start();
        assert_eq!(bus.get(seq).unwrap().unwrap().id, "again");
        assert_eq!(bus.get(kept.seq).unwrap().unwrap(), kept);
    }
}
