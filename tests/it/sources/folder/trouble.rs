//! What goes wrong is seen, tried again, and stops nothing.

use super::*;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_bus_pauses_the_source() {
    let nest = Nest::new();
    nest.bus.mood(Mood::Busy);
    let handle = nest.start().await;
    nest.write("a", "x");
    until("the pause", async || {
        matches!(status(&handle).await.mode, Mode::Paused { why, .. } if why.contains("the disk is full"))
    })
    .await;
    nest.write("b", "x");
    nest.bus.mood(Mood::Take);
    nest.expect(&handle, &["a", "b"]).await;
    assert_eq!(status(&handle).await.mode, Mode::Watching);
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_bus_does_not_keep_the_source_from_stopping() {
    let nest = Nest::new();
    nest.bus.mood(Mood::Busy);
    let handle = nest.start().await;
    nest.write("a", "x");
    pass(3).await;
    let stopped = tokio::time::timeout(SOON, handle.stop()).await;
    assert!(stopped.is_ok(), "the source does not stop");
    assert_eq!(status(&handle).await.mode, Mode::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_file_is_seen_and_not_tried_again_by_itself() {
    let nest = Nest::new();
    nest.bus.mood(Mood::Refuse);
    let handle = nest.started().await;
    nest.write("a", "x");
    until("the refusal", async || {
        status(&handle).await.files.refused == 1
    })
    .await;
    let refused = status(&handle).await.refused;
    assert_eq!(
        (refused[0].path.as_str(), refused[0].reason.as_str()),
        ("a", "too odd")
    );
    nest.bus.mood(Mood::Take);
    handle.rescan().await.unwrap();
    handle.wait_idle().await.unwrap();
    assert_eq!(nest.bus.len(), 0);
    handle.forget("a").await.unwrap();
    nest.expect(&handle, &["a"]).await;
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_file_system_is_polled() {
    let mut nest = Nest::new();
    nest.limits.polled = Some("nfs");
    let handle = nest.started().await;
    let mode = status(&handle).await.mode;
    assert!(
        matches!(&mode, Mode::Polling { why } if why.contains("nfs")),
        "{mode:?}"
    );
    nest.write("a", "x");
    nest.wait_for(&handle, 1).await;
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_watches_are_made_up_by_polling() {
    let mut nest = Nest::new();
    nest.limits.watches = Some(2);
    for dir in ["a", "b", "c"] {
        fs::create_dir(nest.path(dir)).unwrap();
    }
    let handle = nest.started().await;
    let now = status(&handle).await;
    assert!(matches!(now.mode, Mode::Polling { .. }), "{:?}", now.mode);
    assert_eq!(now.watched, 2);
    for dir in ["a", "b", "c"] {
        nest.write(&format!("{dir}/x"), "x");
    }
    nest.wait_for(&handle, 3).await;
    assert_eq!(nest.bus.created(), ["a/x", "b/x", "c/x"]);
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_missing_is_made_and_one_that_is_replaced_is_watched_again() {
    let mut nest = Nest::with(|o| o.deletes = true);
    nest.options.root = nest.outside("not/yet/there");
    let handle = nest.started().await;
    nest.write("a", "x");
    nest.expect(&handle, &["a"]).await;
    // Taken away: its files are out of sight, and nobody says that they are deleted.
    fs::rename(&nest.options.root, nest.outside("elsewhere")).unwrap();
    until("the loss", async || {
        !status(&handle).await.errors.is_empty()
    })
    .await;
    pass(4).await;
    assert_eq!(nest.bus.len(), 1);
    fs::rename(nest.outside("elsewhere"), &nest.options.root).unwrap();
    until("the return", async || {
        status(&handle).await.errors.is_empty()
    })
    .await;
    nest.write("b", "x");
    nest.expect(&handle, &["a", "b"]).await;
    // Deleted and made anew.
    fs::remove_dir_all(&nest.options.root).unwrap();
    fs::create_dir(&nest.options.root).unwrap();
    nest.write("c", "x");
    nest.wait_for(&handle, 5).await;
    assert_eq!(nest.bus.keys_of("Object Deleted"), ["a", "b"]);
    nest.drop_in("d", "x");
    nest.wait_for(&handle, 6).await;
    assert_eq!(nest.bus.created(), ["a", "b", "c", "d"]);
    handle.wait_idle().await.unwrap();
    assert_eq!(status(&handle).await.mode, Mode::Watching);
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_replaced_by_another_is_watched_again() {
    let nest = Nest::new();
    let handle = nest.started().await;
    let mut keys = Vec::new();
    for n in 0..40 {
        fs::create_dir(nest.path("d")).unwrap();
        nest.write(&format!("d/{n}"), "x");
        keys.push(format!("d/{n}"));
        nest.wait_for(&handle, n + 1).await;
        fs::remove_dir_all(nest.path("d")).unwrap();
    }
    keys.sort();
    assert_eq!(nest.bus.created(), keys);
    handle.stop().await;
}

const CHILD: &str = "POINTSMAN_TEST_UNREADABLE";

/// Not a test by itself: it runs as a user who may not read everything.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Some(home) = std::env::var_os(CHILD).map(PathBuf::from) else {
        return;
    };
    let mut nest = Nest::new();
    nest.options.root = home;
    nest.options.deletes = true;
    let mode = |name: &str, mode| {
        fs::set_permissions(nest.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    fs::create_dir(nest.path("shut")).unwrap();
    nest.write("shut/a", "x");
    let handle = nest.started().await;
    nest.expect(&handle, &["shut/a"]).await;
    mode("shut", 0o000);
    nest.write("secret", "x");
    mode("secret", 0o000);
    nest.write("open", "x");
    nest.wait_for(&handle, 2).await;
    until("the secret", async || {
        status(&handle).await.errors.len() == 2
    })
    .await;
    handle.rescan().await.unwrap();
    let said = status(&handle).await;
    let paths: Vec<_> = said.errors.iter().map(|e| e.path.as_str()).collect();
    assert_eq!(paths, ["secret", "shut"]);
    assert!(said.errors[0].error.contains("denied"));
    assert_eq!(
        nest.bus.len(),
        2,
        "a file in a folder that cannot be read is not deleted"
    );
    mode("shut", 0o755);
    mode("secret", 0o644);
    nest.expect(&handle, &["open", "secret", "shut/a"]).await;
    assert!(status(&handle).await.errors.is_empty());
    handle.stop().await;
}

#[test]
fn what_may_not_be_read_is_seen_and_tried_again() {
    let home = tempfile::tempdir().unwrap();
    let all = fs::Permissions::from_mode(0o777);
    fs::set_permissions(home.path(), all.clone()).unwrap();
    let inbox = home.path().join("inbox");
    fs::create_dir(&inbox).unwrap();
    fs::set_permissions(&inbox, all).unwrap();
    // Its own folder may be closed to others, so that user gets a copy.
    let program = home.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let child = concat!(module_path!(), "::child")
        .split_once("::")
        .unwrap()
        .1;
    let mut command = Command::new(&program);
    command
        .args(["--exact", child, "--nocapture"])
        .env(CHILD, &inbox)
        .current_dir("/");
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
