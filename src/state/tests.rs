use super::*;

fn open() -> (tempfile::TempDir, State) {
    let folder = tempfile::tempdir().unwrap();
    let state = State::open(&folder.path().join("deep/state.db")).unwrap();
    (folder, state)
}

#[tokio::test]
async fn values_survive_a_restart_and_list_by_prefix() {
    let (folder, state) = open();
    state.put("sub/a", b"1").await.unwrap();
    state.put("sub/b", b"2").await.unwrap();
    state.put("sub/a", b"3").await.unwrap();
    state.put("sud", b"4").await.unwrap();
    assert!(state.delete("sub/b").await.unwrap());
    assert!(!state.delete("sub/b").await.unwrap());
    drop(state);
    let state = State::open(&folder.path().join("deep/state.db")).unwrap();
    assert_eq!(state.get("sub/a").await.unwrap(), Some(b"3".to_vec()));
    assert_eq!(state.get("sub/b").await.unwrap(), None);
    assert_eq!(
        state.list("sub/").await.unwrap(),
        [("sub/a".to_owned(), b"3".to_vec())]
    );
}

#[tokio::test]
async fn a_failing_write_takes_no_other_with_it() {
    let (_folder, state) = open();
    let bad = state.write(|db| {
        db.execute("INSERT INTO kv VALUES ('half', x'00')", [])?;
        db.execute("INSERT INTO nowhere VALUES (1)", [])
    });
    let (bad, good) = tokio::join!(bad, state.put("whole", b"1"));
    assert!(bad.unwrap_err().to_string().contains("nowhere"));
    good.unwrap();
    assert_eq!(state.get("half").await.unwrap(), None);
    assert_eq!(state.get("whole").await.unwrap(), Some(b"1".to_vec()));
}

#[tokio::test]
async fn many_writers_are_all_answered() {
    let (_folder, state) = open();
    let puts = (0..500).map(|n| {
        let state = state.clone();
        async move { state.put(&format!("k{n:03}"), b"v").await }
    });
    for put in futures::future::join_all(puts).await {
        put.unwrap();
    }
    assert_eq!(state.list("k").await.unwrap().len(), 500);
}

#[test]
fn a_newer_layout_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    drop(State::open(&path).unwrap());
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let said = State::open(&path).err().unwrap().to_string();
    assert!(said.contains("newer version"), "{said}");
}

#[test]
fn a_file_that_is_no_database_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    std::fs::write(&path, vec![7_u8; 4096]).unwrap();
    assert!(State::open(&path).is_err());
}
