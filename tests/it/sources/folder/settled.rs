//! What happens to a file once its deliveries are settled.

use super::*;
use pointsman::sources::folder::Done;

fn id(nest: &Nest, n: usize) -> String {
    nest.bus.events()[n]["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_kept_and_known_to_be_done() {
    let nest = Nest::new();
    let handle = nest.started().await;
    nest.write("a", "x");
    nest.expect(&handle, &["a"]).await;
    assert_eq!(handle.open_events(None, 10).await.unwrap(), [id(&nest, 0)]);
    assert_eq!(handle.mark_done(&id(&nest, 0)).await.unwrap(), Done::Kept);
    assert_eq!(
        handle.mark_done(&id(&nest, 0)).await.unwrap(),
        Done::Unknown
    );
    assert_eq!(handle.mark_done("no id").await.unwrap(), Done::Unknown);
    assert!(handle.open_events(None, 10).await.unwrap().is_empty());
    assert_eq!(status(&handle).await.files.done, 1);
    nest.expect(&handle, &["a"]).await;
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moved_files_keep_their_folders_and_never_replace_another() {
    let mut nest = Nest::new();
    // Below the root, where it must not be taken as new.
    nest.options.after = After::Move(nest.path("done"));
    nest.options.deletes = true;
    let handle = nest.started().await;
    fs::create_dir(nest.path("sub")).unwrap();
    for (n, content) in ["one", "two", "three"].iter().enumerate() {
        nest.drop_in("sub/a.csv", content);
        nest.wait_for(&handle, n + 1).await;
        // At once: the ledger may not know yet that the bus has taken it.
        let moved = handle.mark_done(&id(&nest, n)).await.unwrap();
        let name = ["a.csv", "a-1.csv", "a-2.csv"][n];
        let path = nest
            .options
            .root
            .canonicalize()
            .unwrap()
            .join("done/sub")
            .join(name);
        assert_eq!(moved, Done::Moved(path.clone()));
        assert_eq!(fs::read_to_string(path).unwrap(), *content);
    }
    pass(4).await;
    handle.rescan().await.unwrap();
    handle.wait_idle().await.unwrap();
    assert_eq!(nest.bus.len(), 3, "neither news nor deletes");
    assert!(fs::read_dir(nest.path("sub")).unwrap().next().is_none());
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_version_of_the_event_is_deleted() {
    let nest = Nest::with(|o| o.after = After::Delete);
    let handle = nest.started().await;
    nest.write("a", "x");
    nest.write("b", "x");
    nest.write("c", "x");
    nest.expect(&handle, &["a", "b", "c"]).await;
    let events = nest.bus.events();
    let id = |name: &str| {
        let event = events.iter().find(|e| key(e) == name).unwrap();
        event["id"].as_str().unwrap().to_owned()
    };
    assert_eq!(handle.mark_done(&id("a")).await.unwrap(), Done::Deleted);
    assert!(!nest.path("a").exists());
    fs::remove_file(nest.path("b")).unwrap();
    assert_eq!(handle.mark_done(&id("b")).await.unwrap(), Done::Vanished);
    // A newer one has come that nobody has handled.
    nest.drop_in("c", "newer");
    let done = handle.mark_done(&id("c")).await.unwrap();
    assert!(
        [Done::Superseded, Done::Unknown].contains(&done),
        "{done:?}"
    );
    assert_eq!(fs::read_to_string(nest.path("c")).unwrap(), "newer");
    nest.expect(&handle, &["a", "b", "c", "c"]).await;
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_to_another_device_is_a_whole_copy() {
    use std::os::unix::fs::MetadataExt;
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("no second file system here");
        return;
    };
    let mut nest = Nest::new();
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    if device(other.path()) == device(&nest.options.root) {
        eprintln!("no second file system here");
        return;
    }
    nest.options.after = After::Move(other.path().join("done"));
    let handle = nest.started().await;
    let content = "0123456789".repeat(100_000);
    nest.write("a.csv", &content);
    nest.expect(&handle, &["a.csv"]).await;
    let modified = fs::metadata(nest.path("a.csv"))
        .unwrap()
        .modified()
        .unwrap();
    let path = other.path().join("done/a.csv");
    assert_eq!(
        handle.mark_done(&id(&nest, 0)).await.unwrap(),
        Done::Moved(path.clone())
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), content);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), modified);
    assert!(!nest.path("a.csv").exists());
    assert_eq!(fs::read_dir(other.path().join("done")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(&nest.options.root).unwrap().count(), 0);
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_after_action_is_finished_when_it_is_repeated() {
    let nest = Nest::with(|o| o.after = After::Delete);
    let handle = nest.started().await;
    nest.write("a", "x");
    nest.expect(&handle, &["a"]).await;
    // As a kill leaves it between taking the file aside and deleting it.
    let id = id(&nest, 0);
    let held = nest.path(&format!(".pointsman-{}", id.replace('-', "")));
    fs::rename(nest.path("a"), &held).unwrap();
    handle.stop().await;
    let handle = nest.started().await;
    assert_eq!(
        handle.open_events(None, 10).await.unwrap(),
        std::slice::from_ref(&id)
    );
    assert_eq!(handle.mark_done(&id).await.unwrap(), Done::Deleted);
    assert!(!held.exists());
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_done_is_marked_and_stays_what_it_was() {
    let nest = Nest::with(|o| {
        o.after = After::Tag;
        o.content_hash = true;
    });
    let handle = nest.started().await;
    nest.write("a.csv", "x");
    nest.write("b.csv", "x");
    nest.expect(&handle, &["a.csv", "b.csv"]).await;
    let of = |name: &str| {
        let events = nest.bus.events();
        let event = events.iter().find(|event| key(event) == name).unwrap();
        event["id"].as_str().unwrap().to_owned()
    };
    nest.write("b.csv", "changed meanwhile");
    let done = handle.mark_done(&of("b.csv")).await.unwrap();
    // Whether the new version was taken already or not, the old one bears no mark.
    assert!(
        [Done::Superseded, Done::Unknown].contains(&done),
        "{done:?}"
    );
    assert_eq!(handle.mark_done(&of("a.csv")).await.unwrap(), Done::Tagged);
    assert_eq!(handle.mark_done(&of("a.csv")).await.unwrap(), Done::Unknown);
    let mut mark = [0; 64];
    let attribute = rustix::fs::getxattr(nest.path("a.csv"), "user.pointsman.done", &mut mark);
    let mark = match attribute {
        Ok(length) => String::from_utf8_lossy(&mark[..length]).into_owned(),
        // A file system without attributes.
        Err(_) => fs::read_to_string(nest.path(".pointsman-done-a.csv")).unwrap(),
    };
    assert_eq!(mark, of("a.csv"));
    // A mark is no change.
    nest.expect(&handle, &["a.csv", "b.csv", "b.csv"]).await;
    assert_eq!(fs::read_to_string(nest.path("a.csv")).unwrap(), "x");
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_gets_another_name_is_told_of_once_where_that_is_wanted() {
    let nest = Nest::with(|o| {
        o.moves = true;
        o.deletes = true;
    });
    let handle = nest.started().await;
    fs::create_dir(nest.path("in")).unwrap();
    for name in ["in/a", "in/b"] {
        nest.write(name, name);
    }
    nest.expect(&handle, &["in/a", "in/b"]).await;
    fs::rename(nest.path("in/a"), nest.path("in/é")).unwrap();
    nest.wait_for(&handle, 3).await;
    // A folder's name is a part of the names of its files.
    fs::rename(nest.path("in"), nest.path("out")).unwrap();
    nest.wait_for(&handle, 5).await;
    handle.rescan().await.unwrap();
    handle.wait_idle().await.unwrap();
    handle.stop().await;
    let handle = nest.started().await;
    handle.wait_idle().await.unwrap();
    let events = nest.bus.events();
    let mut moves: Vec<(&str, &str)> = events
        .iter()
        .filter(|event| event["detail-type"] == "Object Moved")
        .map(|event| {
            let detail = &event["detail"];
            let text = |value: &'static str| detail.pointer(value).unwrap().as_str().unwrap();
            (text("/previous-key"), text("/object/key"))
        })
        .collect();
    moves.sort_unstable();
    assert_eq!(
        moves,
        [("in/a", "in/é"), ("in/b", "out/b"), ("in/é", "out/é")]
    );
    assert_eq!(events.len(), 5, "no deletes, and nothing is new");
    handle.stop().await;
}
