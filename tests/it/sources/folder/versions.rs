//! What is a new version, what is the same file, and what is gone.

use super::*;
use std::fs::File;
use std::time::SystemTime;

fn touch(path: &Path, time: SystemTime) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(time).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_hash_a_touch_is_a_new_version() {
    let nest = Nest::new();
    let handle = nest.started().await;
    nest.write("a", "x");
    nest.expect(&handle, &["a"]).await;
    touch(&nest.path("a"), SystemTime::now());
    nest.expect(&handle, &["a", "a"]).await;
    // Other metadata is none.
    let mut mode = fs::metadata(nest.path("a")).unwrap().permissions();
    mode.set_readonly(true);
    fs::set_permissions(nest.path("a"), mode).unwrap();
    nest.expect(&handle, &["a", "a"]).await;
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_hash_a_touch_is_none_and_a_hidden_change_is_one() {
    let nest = Nest::with(|o| o.content_hash = true);
    let handle = nest.started().await;
    nest.write("a", "one");
    nest.expect(&handle, &["a"]).await;
    let time = fs::metadata(nest.path("a")).unwrap().modified().unwrap();
    touch(&nest.path("a"), SystemTime::now());
    until("the touch", async || {
        status(&handle).await.counts.touches == 1
    })
    .await;
    nest.expect(&handle, &["a"]).await;
    // Same size, same time, another content.
    touch(&nest.path("a"), time);
    until("the touch", async || {
        status(&handle).await.counts.touches == 2
    })
    .await;
    nest.write("a", "two");
    touch(&nest.path("a"), time);
    nest.expect(&handle, &["a", "a"]).await;
    handle.stop().await;
    let handle = nest.started().await;
    nest.expect(&handle, &["a", "a"]).await;
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_within_the_tree_is_no_news() {
    let nest = Nest::new();
    let handle = nest.started().await;
    fs::create_dir(nest.path("sub")).unwrap();
    nest.write("a", "x");
    nest.write("sub/b", "y");
    nest.expect(&handle, &["a", "sub/b"]).await;
    fs::rename(nest.path("a"), nest.path("sub/c")).unwrap();
    fs::rename(nest.path("sub"), nest.path("bus")).unwrap();
    until("the renames", async || {
        status(&handle).await.counts.renames >= 2
    })
    .await;
    nest.expect(&handle, &["a", "sub/b"]).await;
    handle.stop().await;
    // While the program is down, too.
    fs::rename(nest.path("bus/b"), nest.path("d")).unwrap();
    let handle = nest.started().await;
    nest.expect(&handle, &["a", "sub/b"]).await;
    assert_eq!(status(&handle).await.files.accepted, 2);
    // A second name for the same content is a file of its own.
    tokio::time::sleep(Duration::from_millis(20)).await;
    fs::hard_link(nest.path("d"), nest.path("e")).unwrap();
    nest.expect(&handle, &["a", "e", "sub/b"]).await;
    // And one that takes the place of another is a new version of that name.
    nest.write("f", "zz");
    nest.expect(&handle, &["a", "e", "f", "sub/b"]).await;
    fs::rename(nest.path("f"), nest.path("d")).unwrap();
    nest.expect(&handle, &["a", "d", "e", "f", "sub/b"]).await;
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_are_told_once_and_renames_are_not_deletes() {
    let nest = Nest::with(|o| o.deletes = true);
    let handle = nest.started().await;
    fs::create_dir(nest.path("sub")).unwrap();
    for name in ["a", "b", "sub/c", "sub/d"] {
        nest.write(name, "x");
    }
    nest.expect(&handle, &["a", "b", "sub/c", "sub/d"]).await;
    fs::rename(nest.path("a"), nest.path("moved")).unwrap();
    fs::remove_file(nest.path("b")).unwrap();
    fs::remove_dir_all(nest.path("sub")).unwrap();
    nest.wait_for(&handle, 7).await;
    handle.rescan().await.unwrap();
    handle.wait_idle().await.unwrap();
    assert_eq!(nest.bus.keys_of("Object Deleted"), ["b", "sub/c", "sub/d"]);
    let deleted = nest.bus.events().pop().unwrap();
    assert_eq!(deleted["detail"]["reason"], "DeleteObject");
    assert!(deleted["detail"]["object"].get("size").is_none());
    // The very same version comes back after its end was told: news again.
    handle.stop().await;
    fs::rename(nest.path("moved"), nest.outside("kept")).unwrap();
    let handle = nest.started().await;
    nest.wait_for(&handle, 8).await;
    fs::rename(nest.outside("kept"), nest.path("moved")).unwrap();
    nest.wait_for(&handle, 9).await;
    assert_eq!(
        nest.bus.keys_of("Object Deleted"),
        ["b", "moved", "sub/c", "sub/d"]
    );
    assert_eq!(nest.bus.created(), ["a", "b", "moved", "sub/c", "sub/d"]);
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_goes_and_comes_back_unchanged_is_no_news() {
    let nest = Nest::new();
    let handle = nest.started().await;
    nest.write("a", "x");
    nest.expect(&handle, &["a"]).await;
    fs::rename(nest.path("a"), nest.outside("a")).unwrap();
    handle.rescan().await.unwrap();
    fs::rename(nest.outside("a"), nest.path("a")).unwrap();
    nest.expect(&handle, &["a"]).await;
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_version_that_comes_back_is_news() {
    let nest = Nest::new();
    let handle = nest.started().await;
    nest.write("a", "one");
    nest.expect(&handle, &["a"]).await;
    fs::rename(nest.path("a"), nest.outside("old")).unwrap();
    nest.drop_in("a", "newer");
    nest.expect(&handle, &["a", "a"]).await;
    fs::rename(nest.outside("old"), nest.path("a")).unwrap();
    nest.expect(&handle, &["a", "a", "a"]).await;
    assert_eq!(nest.bus.duplicates(), 1);
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_first_start_what_is_there_may_be_left_alone() {
    let nest = Nest::with(|o| o.start = Start::Now);
    nest.write("before", "x");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let handle = nest.started().await;
    nest.write("after", "x");
    nest.expect(&handle, &["after"]).await;
    assert_eq!(status(&handle).await.files.noted, 1);
    handle.stop().await;
    nest.write("meanwhile", "x");
    let handle = nest.started().await;
    nest.expect(&handle, &["after", "meanwhile"]).await;
    nest.write("before", "changed");
    nest.expect(&handle, &["after", "before", "meanwhile"])
        .await;
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_first_start_what_is_newer_than_a_time_is_taken() {
    let nest = Nest::with(|o| o.start = Start::Since(1_000_000_000_000));
    nest.write("old", "x");
    touch(
        &nest.path("old"),
        SystemTime::UNIX_EPOCH + Duration::from_secs(999_999_999),
    );
    nest.write("new", "x");
    touch(
        &nest.path("new"),
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000),
    );
    tokio::time::sleep(Duration::from_millis(20)).await;
    let handle = nest.started().await;
    nest.expect(&handle, &["new"]).await;
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forgotten_is_taken_again() {
    let nest = Nest::new();
    let handle = nest.started().await;
    fs::create_dir(nest.path("sub")).unwrap();
    for name in ["a.csv", "sub/b.csv", "c.json"] {
        nest.write(name, "x");
    }
    nest.expect(&handle, &["a.csv", "c.json", "sub/b.csv"])
        .await;
    assert_eq!(handle.forget("*.csv").await.unwrap(), 2);
    nest.expect(
        &handle,
        &["a.csv", "a.csv", "c.json", "sub/b.csv", "sub/b.csv"],
    )
    .await;
    assert_eq!(handle.forget("sub/b.csv").await.unwrap(), 1);
    nest.wait_for(&handle, 6).await;
    assert_eq!(handle.forget("nothing").await.unwrap(), 0);
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_long_gone_are_forgotten() {
    let nest = Nest::with(|o| o.forget_after = Duration::from_millis(50));
    let handle = nest.started().await;
    nest.write("a", "x");
    nest.write("b", "x");
    nest.expect(&handle, &["a", "b"]).await;
    fs::remove_file(nest.path("a")).unwrap();
    handle.rescan().await.unwrap();
    tokio::time::sleep(Duration::from_millis(80)).await;
    handle.rescan().await.unwrap();
    let status = status(&handle).await;
    assert_eq!((status.files.accepted, status.counts.expired), (1, 1));
    handle.stop().await;
}
