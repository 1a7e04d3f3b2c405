//! What the kernel tells of files, and does not tell. Each trap was measured on
//! Linux 6.18; the numbers are those of the list that the source was built by.

use super::*;
use std::fs::File;
use std::io::{Seek, Write};
use std::process::{Command, Stdio};
use std::time::SystemTime;

const LONG: Duration = Duration::from_secs(300);
/// A quiet time that no pause of a busy machine outlasts.
const PLENTY: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn trap_1_a_plain_write_is_taken_when_it_is_closed_and_quiet() {
    let nest = Nest::new();
    let handle = nest.started().await;
    let begun = Instant::now();
    nest.write("a.csv", "one,two\n");
    nest.expect(&handle, &["a.csv"]).await;
    assert!(nest.bus.taken_at(0) - begun >= QUIET - Duration::from_millis(10));
    let event = &nest.bus.events()[0];
    assert_eq!(event["source"], "pointsman.folder");
    assert_eq!(event["detail"]["bucket"]["name"], "inbox");
    assert_eq!(event["detail"]["object"]["size"], 8);
    assert_eq!(event["detail"]["reason"], "PutObject");
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_2_a_rename_into_place_is_taken_at_once() {
    let nest = Nest::with(|o| o.finished.quiet = LONG);
    let handle = nest.started().await;
    nest.drop_in("a.csv", "whole");
    // A temporary name in the folder itself is no name of a file that is taken.
    nest.write("b.csv.part", "whole");
    fs::rename(nest.path("b.csv.part"), nest.path("b.csv")).unwrap();
    nest.wait_for(&handle, 2).await;
    assert_eq!(nest.bus.created(), ["a.csv", "b.csv"]);
    assert_eq!(nest.bus.events()[0]["detail"]["reason"], "CopyObject");
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_3_a_hard_link_is_taken_at_once_without_a_close() {
    let nest = Nest::with(|o| o.finished.quiet = LONG);
    let handle = nest.started().await;
    let there = nest.outside("whole");
    fs::write(&there, "whole").unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    fs::hard_link(&there, nest.path("a.csv")).unwrap();
    nest.wait_for(&handle, 1).await;
    // The other name is taken away, as programs do that publish by linking.
    fs::remove_file(&there).unwrap();
    handle.rescan().await.unwrap();
    assert_eq!(nest.bus.created(), ["a.csv"]);
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_4_symbolic_links_are_left_out_unless_they_stay_inside() {
    use std::os::unix::fs::symlink;
    let nest = Nest::new();
    let handle = nest.started().await;
    fs::write(nest.outside("secret"), "secret").unwrap();
    fs::create_dir(nest.outside("away")).unwrap();
    fs::write(nest.outside("away/far.csv"), "far").unwrap();
    nest.write("real.csv", "real");
    symlink(nest.outside("secret"), nest.path("leak.csv")).unwrap();
    symlink(nest.outside("away"), nest.path("gone")).unwrap();
    symlink("real.csv", nest.path("alias.csv")).unwrap();
    symlink(".", nest.path("loop")).unwrap();
    nest.expect(&handle, &["real.csv"]).await;
    assert_eq!(status(&handle).await.last_scan.unwrap().others, 4);
    handle.stop().await;

    let mut nest = nest;
    nest.options.follow_symlinks = true;
    let handle = nest.started().await;
    nest.expect(&handle, &["alias.csv", "real.csv"]).await;
    fs::create_dir_all(nest.path("x/y")).unwrap();
    symlink(nest.path("x"), nest.path("x/y/up")).unwrap();
    nest.write("x/deep.csv", "deep");
    nest.expect(&handle, &["alias.csv", "real.csv", "x/deep.csv"])
        .await;
    handle.stop().await;
}

/// A writer of its own process: writes half, says so, and waits to be killed.
fn half_a_writer(path: &Path) -> std::process::Child {
    let script =
        "printf 'first half,' > \"$1\"; exec 3>>\"$1\"; printf 'more,' >&3; exec sleep 1000";
    let child = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while fs::read(path).map_or(0, |b| b.len()) < 16 {
        assert!(begun.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

fn packed() -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&[b'x'; 50_000]).unwrap();
    packed.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_5_a_killed_writer_closes_its_file_and_only_a_marker_or_trailer_tells() {
    let nest = Nest::with(|o| {
        o.finished.done_marker = Some(".done".to_owned());
        o.finished.trailer = true;
    });
    let handle = nest.started().await;
    let mut child = half_a_writer(&nest.path("a.csv"));
    child.kill().unwrap();
    child.wait().unwrap();
    let packed = packed();
    fs::write(nest.path("b.gz"), &packed[..packed.len() / 2]).unwrap();
    nest.write("b.gz.done", "");
    pass(6).await;
    handle.rescan().await.unwrap();
    assert_eq!(nest.bus.len(), 0);
    let said = status(&handle).await;
    assert_eq!(said.files.seen, 2);
    // The writer comes again.
    nest.write("a.csv", "all of it");
    nest.write("a.csv.done", "");
    fs::write(nest.path("b.gz"), &packed).unwrap();
    pass(3).await;
    assert_eq!(
        nest.bus.created(),
        ["a.csv"],
        "the marker of b.gz is older than b.gz"
    );
    nest.write("b.gz.done", "");
    nest.expect(&handle, &["a.csv", "b.gz"]).await;
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_5_a_writer_that_pauses_is_waited_for_as_long_as_it_lives() {
    let nest = Nest::new();
    // One that writes already when the source starts, and one that comes later.
    let mut early = half_a_writer(&nest.path("early.csv"));
    let handle = nest.started().await;
    let mut late = half_a_writer(&nest.path("late.csv"));
    pass(20).await;
    handle.rescan().await.unwrap();
    assert_eq!(nest.bus.len(), 0);
    assert_eq!(status(&handle).await.files.seen, 2);
    for child in [&mut early, &mut late] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // By the plain rule a file that is closed and quiet is finished; what is
    // written into it later is a new version.
    nest.expect(&handle, &["early.csv", "late.csv"]).await;
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_5_what_is_known_of_writers_must_be_newer_than_the_file() {
    let mut nest = Nest::new();
    // As where looking through all processes takes long, and is seldom done.
    nest.limits.openers_every = LONG;
    let handle = nest.started().await;
    nest.write("whole.csv", "x");
    nest.wait_for(&handle, 1).await;
    let mut late = half_a_writer(&nest.path("late.csv"));
    until("the half-written file to be suspected", async || {
        let waits = status(&handle).await.oldest_waiting;
        waits.is_some_and(|w| serde_json::json!(w.why) == "open")
    })
    .await;
    assert_eq!(nest.bus.created(), ["whole.csv"]);
    late.kill().unwrap();
    late.wait().unwrap();
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_6_several_appends_are_one_version_when_none_is_late() {
    let nest = Nest::with(|o| o.finished.quiet = PLENTY);
    let handle = nest.started().await;
    for n in 0..8 {
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(nest.path("a.csv"))
            .unwrap();
        writeln!(file, "line {n}").unwrap();
        drop(file);
        tokio::time::sleep(QUIET).await;
    }
    nest.expect(&handle, &["a.csv"]).await;
    assert_eq!(nest.bus.events()[0]["detail"]["object"]["size"], 56);
    // Appended to after it was taken: a new version.
    let mut file = File::options()
        .append(true)
        .open(nest.path("a.csv"))
        .unwrap();
    writeln!(file, "late").unwrap();
    drop(file);
    nest.expect(&handle, &["a.csv", "a.csv"]).await;
    assert_eq!(nest.bus.events()[1]["detail"]["object"]["size"], 61);
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_7_a_file_that_is_written_through_memory_is_not_taken_before_it_is_unmapped() {
    let script = "
import mmap, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 65536)
m = mmap.mmap(fd, 65536)
os.close(fd)
for at in range(0, 65536, 8192):
    m[at:at + 8192] = b'y' * 8192
    time.sleep(0.15)
m.close()
";
    let nest = Nest::new();
    let handle = nest.started().await;
    let begun = Instant::now();
    let child = Command::new("python3")
        .args(["-c", script])
        .arg(nest.path("mapped"))
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("no python3 here: nothing writes through memory");
        return;
    };
    nest.wait_for(&handle, 1).await;
    assert!(nest.bus.taken_at(0) - begun > Duration::from_millis(8 * 150));
    child.wait().unwrap();
    let content = fs::read(nest.path("mapped")).unwrap();
    assert!(content.iter().all(|b| *b == b'y'));
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_8_a_folder_that_is_moved_in_brings_its_files() {
    let nest = Nest::new();
    let handle = nest.started().await;
    let coming = nest.outside("coming");
    fs::create_dir_all(coming.join("b/c")).unwrap();
    for name in ["one", "b/two", "b/c/three"] {
        fs::write(coming.join(name), name).unwrap();
    }
    fs::rename(&coming, nest.path("a")).unwrap();
    nest.expect(&handle, &["a/b/c/three", "a/b/two", "a/one"])
        .await;
    // It is watched now.
    nest.drop_in("a/b/c/four", "x");
    nest.wait_for(&handle, 4).await;
    // And it goes and comes back under another name, files and all: no news.
    fs::rename(nest.path("a"), nest.path("z")).unwrap();
    nest.drop_in("z/b/c/five", "x");
    nest.wait_for(&handle, 5).await;
    handle.rescan().await.unwrap();
    handle.wait_idle().await.unwrap();
    assert_eq!(nest.bus.len(), 5);
    assert_eq!(status(&handle).await.counts.renames, 4);
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_9_a_file_that_is_faster_than_the_watch_on_its_new_folder_is_found() {
    let nest = Nest::new();
    let handle = nest.started().await;
    let mut keys = Vec::new();
    for n in 0..300 {
        let dir = format!("d{n}/e/f");
        fs::create_dir_all(nest.path(&dir)).unwrap();
        nest.write(&format!("{dir}/a"), "x");
        keys.push(format!("{dir}/a"));
    }
    // No scan of everything: these come by the watches alone.
    nest.wait_for(&handle, 300).await;
    handle.wait_idle().await.unwrap();
    keys.sort();
    assert_eq!(nest.bus.created(), keys);
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_10_lost_notifications_are_made_up_by_a_scan() {
    let mut nest = Nest::new();
    nest.limits.hints = 16;
    let handle = nest.started().await;
    // While the bus is busy nobody takes the hints, so all but sixteen are lost.
    nest.bus.mood(Mood::Busy);
    fs::create_dir(nest.path("sub")).unwrap();
    nest.write("sub/first", "x");
    until("the pause", async || {
        matches!(status(&handle).await.mode, Mode::Paused { .. })
    })
    .await;
    for n in 1..3000 {
        nest.write(&format!("sub/{n:04}"), "x");
    }
    nest.bus.mood(Mood::Take);
    nest.wait_for(&handle, 3000).await;
    handle.wait_idle().await.unwrap();
    assert_eq!(nest.bus.len(), 3000);
    assert!(status(&handle).await.counts.losses > 0);
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_11_an_overwrite_is_a_new_version() {
    let nest = Nest::new();
    let handle = nest.started().await;
    nest.write("a.csv", "one");
    nest.expect(&handle, &["a.csv"]).await;
    nest.write("a.csv", "two");
    nest.expect(&handle, &["a.csv", "a.csv"]).await;
    nest.drop_in("a.csv", "three");
    nest.expect(&handle, &["a.csv", "a.csv", "a.csv"]).await;
    let events = nest.bus.events();
    let order: Vec<_> = events
        .iter()
        .map(|e| {
            e["detail"]["object"]["sequencer"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert!(order.is_sorted_by(|a, b| a < b), "{order:?}");
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_12_a_size_that_is_set_ahead_does_not_finish_a_file() {
    let nest = Nest::new();
    let handle = nest.started().await;
    // Nobody holds these open, so only the hole tells.
    let mut sized = File::create(nest.path("sized")).unwrap();
    sized.set_len(1 << 20).unwrap();
    drop(sized);
    let reserved = File::create(nest.path("reserved")).unwrap();
    let plain = rustix::fs::FallocateFlags::empty();
    rustix::fs::fallocate(&reserved, plain, 0, 1 << 20).unwrap();
    drop(reserved);
    pass(8).await;
    assert_eq!(nest.bus.len(), 0);
    sized = File::options()
        .write(true)
        .open(nest.path("sized"))
        .unwrap();
    for at in 0..8 {
        sized.write_all(&[7; 1 << 17]).unwrap();
        tokio::time::sleep(QUIET / if at < 7 { 2 } else { 100 }).await;
    }
    drop(sized);
    nest.wait_for(&handle, 1).await;
    assert_eq!(nest.bus.created(), ["sized"]);
    // A file that ends in a hole is taken in the end: it may be meant so.
    nest.expect(&handle, &["reserved", "sized"]).await;
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_13_a_time_in_the_past_hides_nothing() {
    let nest = Nest::with(|o| o.finished.quiet = PLENTY);
    let handle = nest.started().await;
    let set_back = |name: &str, seconds: u64| {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let file = File::options().write(true).open(nest.path(name)).unwrap();
        file.set_modified(time).unwrap();
    };
    nest.write("a.csv", "new");
    nest.expect(&handle, &["a.csv"]).await;
    // Older than all that was taken, and than the version before.
    nest.write("b.csv", "old");
    set_back("b.csv", 1_000_000_000);
    nest.expect(&handle, &["a.csv", "b.csv"]).await;
    nest.write("a.csv", "old");
    set_back("a.csv", 900_000_000);
    nest.expect(&handle, &["a.csv", "a.csv", "b.csv"]).await;
    let events = nest.bus.events();
    let order = |n: usize| {
        events[n]["detail"]["object"]["sequencer"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert!(
        order(2) > order(0),
        "the newest version is the last in order"
    );
    assert_eq!(events[2]["time"], "1998-07-09T16:00:00.000Z");
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_of_a_file_that_is_being_written_does_not_finish_it() {
    let nest = Nest::new();
    let handle = nest.started().await;
    let mut file = File::create(nest.path("log")).unwrap();
    file.write_all(b"half").unwrap();
    tokio::time::sleep(QUIET / 2).await;
    fs::rename(nest.path("log"), nest.path("log.1")).unwrap();
    pass(4).await;
    assert_eq!(nest.bus.len(), 0);
    file.seek(std::io::SeekFrom::End(0)).unwrap();
    file.write_all(b" and whole").unwrap();
    drop(file);
    nest.expect(&handle, &["log.1"]).await;
    assert_eq!(nest.bus.events()[0]["detail"]["object"]["size"], 14);
    handle.stop().await;
}
