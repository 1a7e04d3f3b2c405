//! Stopped and killed in the middle, and started again.

use super::*;
use std::io::Write;
use std::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn stopped_and_started_in_the_middle_each_file_is_one_event() {
    let nest = Nest::with(|o| o.finished.quiet = Duration::from_millis(30));
    let root = nest.options.root.clone();
    let writer = std::thread::spawn(move || {
        for n in 0..3000 {
            fs::write(root.join(format!("{n:04}")), "x").unwrap();
            if n % 10 == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    });
    let moods = [Mood::Take, Mood::TakeAndDie, Mood::Die];
    let mut keys: Vec<_> = (0..3000).map(|n| format!("{n:04}")).collect();
    for round in 0..18_u64 {
        let handle = nest.start().await;
        tokio::time::sleep(Duration::from_millis(20 + round * 13 % 50)).await;
        let (mood, deaths) = (&moods[round as usize % 3], nest.bus.deaths());
        nest.bus.mood(mood.clone());
        if matches!(mood, Mood::TakeAndDie) {
            // However busy the machine is, this stop comes between the bus and the ledger.
            keys.push(format!("late-{round:02}"));
            nest.write(&keys[keys.len() - 1], "x");
            let begun = Instant::now();
            while nest.bus.deaths() == deaths {
                assert!(begun.elapsed() < SOON, "nothing was taken");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
        handle.stop().await;
        nest.bus.mood(Mood::Take);
    }
    writer.join().unwrap();
    let handle = nest.start().await;
    nest.wait_for(&handle, keys.len()).await;
    handle.rescan().await.unwrap();
    handle.wait_idle().await.unwrap();
    assert_eq!(nest.bus.created(), keys);
    assert!(
        nest.bus.duplicates() > 0,
        "no stop came between the bus and the ledger"
    );
    assert_eq!(status(&handle).await.files.accepted, keys.len() as u64);
    handle.stop().await;
}

/// A bus that outlives its process: a line per id in a file.
struct FileBus {
    path: PathBuf,
}

impl Intake for FileBus {
    fn take(&self, batch: Vec<Incoming>) -> BoxFuture<'_, Result<Vec<Taken>, IntakeError>> {
        let mut file = fs::File::options()
            .append(true)
            .create(true)
            .open(&self.path)
            .unwrap();
        let mut lines = String::new();
        for incoming in &batch {
            lines.push_str(&format!(
                "{} {}\n",
                incoming.event.id(),
                key(&incoming.event.value())
            ));
        }
        file.write_all(lines.as_bytes()).unwrap();
        file.sync_all().unwrap();
        let answers = batch.iter().map(|_| Taken::Accepted(1)).collect();
        async move { Ok(answers) }.boxed()
    }
}

const CHILD: &str = "POINTSMAN_TEST_FOLDER_CHILD";

/// Not a test by itself: the process that `a_killed_process…` kills.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Some(home) = std::env::var_os(CHILD).map(PathBuf::from) else {
        return;
    };
    let mut options = options(&home.join("inbox"));
    options.finished.quiet = Duration::from_millis(30);
    let state = State::open(&home.join("side.db")).unwrap();
    let bus: Arc<dyn Intake> = Arc::new(FileBus {
        path: home.join("taken"),
    });
    let _handle = FolderSource::start(
        options,
        bus,
        state,
        clock::system(),
        CancellationToken::new(),
    )
    .await
    .unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[test]
fn a_killed_process_loses_nothing_and_takes_nothing_twice() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("inbox")).unwrap();
    // The name of the test without the name of the crate.
    let child = concat!(module_path!(), "::child")
        .split_once("::")
        .unwrap()
        .1;
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", child, "--nocapture"])
            .env(CHILD, home.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let inbox = home.path().join("inbox");
    let writer = std::thread::spawn(move || {
        for n in 0..1500 {
            fs::write(inbox.join(format!("{n:04}")), "x").unwrap();
            if n % 10 == 0 {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    });
    let mut kills = 0;
    let mut wait = 40;
    while !writer.is_finished() || kills < 12 {
        let mut process = start();
        std::thread::sleep(Duration::from_millis(wait));
        process.kill().unwrap();
        process.wait().unwrap();
        kills += 1;
        wait = 40 + wait * 37 % 160;
    }
    writer.join().unwrap();
    let mut process = start();
    let taken = || {
        let text = fs::read_to_string(home.path().join("taken")).unwrap_or_default();
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines
    };
    let begun = Instant::now();
    loop {
        // Once per id: that is what a bus makes of it.
        let mut lines = taken();
        lines.sort();
        lines.dedup();
        if lines.len() >= 1500 {
            let mut keys: Vec<_> = lines.iter().map(|l| l.split_once(' ').unwrap().1).collect();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(
                (keys.len(), lines.len()),
                (1500, 1500),
                "after {kills} kills"
            );
            break;
        }
        assert!(begun.elapsed() < SOON, "{} of 1500", lines.len());
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_millis(300));
    process.kill().unwrap();
    process.wait().unwrap();
    let mut lines = taken();
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), 1500);
}
