//! Many files at once.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_20_000_files_is_20_000_events() {
    let nest = Nest::new();
    let handle = nest.started().await;
    let root = nest.options.root.clone();
    let begun = Instant::now();
    let writer = std::thread::spawn(move || {
        for n in 0..20_000 {
            fs::write(root.join(format!("{n:05}.csv")), "x").unwrap();
        }
    });
    writer.join().unwrap();
    eprintln!("written after {:?}", begun.elapsed());
    nest.wait_for(&handle, 20_000).await;
    eprintln!(
        "taken after {:?} in {} batches",
        begun.elapsed(),
        nest.bus.batches()
    );
    handle.rescan().await.unwrap();
    handle.wait_idle().await.unwrap();
    let keys: Vec<_> = (0..20_000).map(|n| format!("{n:05}.csv")).collect();
    assert_eq!(nest.bus.created(), keys);
    assert_eq!(nest.bus.duplicates(), 0);
    assert_eq!(status(&handle).await.files.accepted, 20_000);
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_is_there_at_the_start_is_taken_once() {
    let mut nest = Nest::new();
    // Parts, pages and bounds all have to be crossed.
    nest.limits.listed = 100;
    nest.limits.candidates = 50;
    nest.limits.batch = 64;
    for dir in 0..5 {
        fs::create_dir_all(nest.path(&format!("{dir}/deep"))).unwrap();
        for n in 0..1200 {
            nest.write(&format!("{dir}/deep/{n:04}"), "x");
        }
    }
    let handle = nest.start().await;
    nest.wait_for(&handle, 6000).await;
    handle.wait_idle().await.unwrap();
    assert_eq!(nest.bus.len(), 6000);
    for n in (0..1200).step_by(3) {
        fs::remove_file(nest.path(&format!("2/deep/{n:04}"))).unwrap();
    }
    handle.rescan().await.unwrap();
    handle.stop().await;
    let handle = nest.started().await;
    handle.wait_idle().await.unwrap();
    assert_eq!(nest.bus.len(), 6000);
    assert_eq!(nest.bus.duplicates(), 0);
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_come_and_go_while_it_scans_do_no_harm() {
    let nest = Nest::with(|o| o.finished.quiet = Duration::from_millis(20));
    let handle = nest.started().await;
    let root = nest.options.root.clone();
    let churn = std::thread::spawn(move || {
        for n in 0..2000 {
            let dir = root.join(format!("d{}", n % 7));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(format!("{n}")), "x").unwrap();
            if n % 50 == 49 {
                fs::remove_dir_all(&dir).unwrap();
            }
        }
        fs::create_dir_all(root.join("end")).unwrap();
        fs::write(root.join("end/last"), "x").unwrap();
    });
    while !churn.is_finished() {
        handle.rescan().await.unwrap();
    }
    churn.join().unwrap();
    until("the last file", async || {
        nest.bus.created().contains(&"end/last".to_owned())
    })
    .await;
    handle.rescan().await.unwrap();
    handle.wait_idle().await.unwrap();
    // What is there now was taken, and nothing twice.
    let keys = nest.bus.created();
    for dir in fs::read_dir(&nest.options.root).unwrap().flatten() {
        for file in fs::read_dir(dir.path()).unwrap().flatten() {
            let key = file
                .path()
                .strip_prefix(&nest.options.root)
                .unwrap()
                .display()
                .to_string();
            assert!(keys.binary_search(&key).is_ok(), "{key} was missed");
        }
    }
    let twice: Vec<String> = keys
        .windows(2)
        .filter(|pair| pair[0] == pair[1])
        .map(|pair| pair[0].clone())
        .collect();
    let of_twice = |event: &Value| twice.contains(&key(event));
    let told: Vec<Value> = nest.bus.events().into_iter().filter(of_twice).collect();
    assert!(twice.is_empty(), "told twice: {told:#?}");
    handle.stop().await;
}

/// `POINTSMAN_LONG=1` makes it 100,000 files.
#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_grows_through_a_stop_in_the_middle_is_taken_once() {
    let many = match std::env::var_os("POINTSMAN_LONG") {
        Some(_) => 100_000,
        None => 3_000,
    };
    let nest = Nest::new();
    let write = |half: usize| {
        for n in (half..many).step_by(2) {
            let dir = nest.path(&format!("{:02}/{:02}", n % 20, n % 37));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(format!("{n}")), "x").unwrap();
        }
    };
    write(0);
    let begun = Instant::now();
    let handle = nest.start().await;
    nest.wait_for(&handle, many / 8).await;
    handle.stop().await;
    write(1);
    let handle = nest.start().await;
    while nest.bus.len() < many {
        assert!(begun.elapsed() < SOON * 10, "{} of {many}", nest.bus.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    handle.rescan().await.unwrap();
    handle.wait_idle().await.unwrap();
    assert_eq!(nest.bus.len(), many);
    // What was under way at the stop is handed in again and known by its id.
    let mut keys = nest.bus.created();
    keys.dedup();
    assert_eq!(keys.len(), many);
    handle.stop().await;
}
