//! Which names are taken, and how they are told.

use super::*;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;

#[tokio::test(flavor = "multi_thread")]
async fn hidden_unfinished_and_excluded_names_are_left_out() {
    let nest = Nest::with(|o| {
        o.include = vec!["*.csv".into(), "raw/*.json".into()];
        o.exclude = vec!["old".into()];
    });
    for dir in ["raw", "old", ".git", "sub"] {
        fs::create_dir(nest.path(dir)).unwrap();
    }
    for name in [
        "a.csv",
        ".b.csv",
        "c.csv.tmp",
        "d.csv~",
        "e.txt",
        "raw/f.json",
        "raw/g.csv",
        "old/h.csv",
        ".git/i.csv",
        "sub/j.csv",
        "sub/k.json",
    ] {
        nest.write(name, "x");
    }
    let _socket = UnixListener::bind(nest.path("s.csv")).unwrap();
    let handle = nest.start().await;
    nest.expect(&handle, &["a.csv", "raw/f.json", "raw/g.csv", "sub/j.csv"])
        .await;
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_recursion_only_the_root_is_taken() {
    let nest = Nest::with(|o| o.recursive = false);
    fs::create_dir(nest.path("sub")).unwrap();
    nest.write("sub/a", "x");
    nest.write("b", "x");
    let handle = nest.start().await;
    nest.expect(&handle, &["b"]).await;
    nest.write("sub/c", "x");
    nest.write("d", "x");
    nest.expect(&handle, &["b", "d"]).await;
    assert_eq!(status(&handle).await.watched, 1);
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_utf_8_keeps_its_bytes() {
    let nest = Nest::new();
    let handle = nest.started().await;
    let dir = nest.options.root.join(OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join(OsStr::from_bytes(b"\xff\n.csv")), "x").unwrap();
    nest.expect(&handle, &["caf\u{fffd}/\u{fffd}\n.csv"]).await;
    let object = nest.bus.events()[0]["detail"]["object"].clone();
    // base64 of the bytes `caf\xe9/\xff\n.csv`.
    assert_eq!(object["key-bytes"], "Y2Fm6S//Ci5jc3Y=");
    handle.stop().await;
    let handle = nest.started().await;
    handle.wait_idle().await.unwrap();
    assert_eq!(nest.bus.len(), 1);
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_waits_for_its_size_and_its_marker() {
    let nest = Nest::with(|o| {
        o.finished.min_size = 4;
        o.finished.done_marker = Some(".ok".into());
    });
    let handle = nest.started().await;
    nest.write("a", "x");
    nest.write("a.ok", "");
    nest.write("b", "long enough");
    pass(4).await;
    assert_eq!(nest.bus.len(), 0);
    let oldest = status(&handle).await.oldest_waiting.unwrap();
    assert!(["a", "b"].contains(&oldest.path.as_str()));
    nest.write("b.ok", "");
    nest.write("a", "long enough");
    nest.write("a.ok", "");
    nest.expect(&handle, &["a", "b"]).await;
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_nothing_finishes_do_not_keep_out_the_others() {
    let mut nest = Nest::with(|o| o.finished.min_size = 2);
    nest.limits.candidates = 20;
    for n in 0..200 {
        nest.write(&format!("small{n}"), "x");
    }
    let handle = nest.started().await;
    nest.write("big", "xx");
    nest.write("small7", "xx");
    nest.expect(&handle, &["big", "small7"]).await;
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_waits_for_its_age_even_when_it_is_renamed_in() {
    let nest = Nest::with(|o| o.finished.min_age = Duration::from_secs(1));
    let handle = nest.started().await;
    let begun = Instant::now();
    nest.drop_in("a", "x");
    nest.expect(&handle, &["a"]).await;
    assert!(nest.bus.taken_at(0) - begun > Duration::from_millis(900));
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_glob_that_is_none_is_refused() {
    let nest = Nest::with(|o| o.include = vec!["[".into()]);
    let state = State::open(&nest.outside("side.db")).unwrap();
    let bus: Arc<dyn Intake> = nest.bus.clone();
    let started = FolderSource::start(
        nest.options.clone(),
        bus,
        state,
        clock::system(),
        CancellationToken::new(),
    );
    let said = started.await.err().unwrap().to_string();
    assert!(said.contains('['), "{said}");
}
