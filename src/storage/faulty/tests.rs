use super::*;

fn disk(seed: u64) -> (Memory, Arc<dyn File>) {
    let fs = Memory::new(seed);
    fs.create_dir_all(Path::new("/d")).unwrap();
    let file = fs.open(Path::new("/d/f"), Mode::Create).unwrap();
    fs.sync_dir(Path::new("/d")).unwrap();
    (fs, file)
}

fn content(fs: &Memory) -> Vec<u8> {
    crate::storage::read_all(fs, Path::new("/d/f")).unwrap()
}

#[test]
fn what_was_synced_survives_every_crash() {
    for seed in 0..50 {
        let (fs, file) = disk(seed);
        file.append(&[7; 2000]).unwrap();
        file.sync_data().unwrap();
        file.append(&[8; 2000]).unwrap();
        fs.crash();
        assert_eq!(content(&fs)[..2000], [7; 2000], "seed {seed}");
        assert!(file.append(b"x").is_err(), "the old handle is dead");
    }
}

#[test]
fn what_was_not_synced_is_sometimes_lost_kept_torn_or_out_of_order() {
    let (mut lost, mut kept, mut torn, mut holes) = (0, 0, 0, 0);
    for seed in 0..200 {
        let (fs, file) = disk(seed);
        file.append(&[1; 1024]).unwrap();
        file.append(&[2; 1024]).unwrap();
        fs.crash();
        let data = content(&fs);
        lost += u32::from(data.is_empty());
        kept += u32::from(data.len() == 2048 && data[0] == 1);
        torn += u32::from(!data.is_empty() && data.len() % 1024 == 512);
        holes += u32::from(data.len() == 2048 && data[0] == 0);
    }
    assert!(
        lost > 0 && kept > 0 && torn > 0 && holes > 0,
        "{lost} {kept} {torn} {holes}"
    );
}

#[test]
fn a_killed_process_loses_nothing_that_it_wrote() {
    let (fs, file) = disk(3);
    file.append(b"written").unwrap();
    fs.kill();
    assert_eq!(content(&fs), b"written");
}

#[test]
fn names_are_sure_only_after_their_folder_was_synced() {
    let (mut there, mut gone) = (0, 0);
    for seed in 0..50 {
        let (fs, _) = disk(seed);
        fs.open(Path::new("/d/new"), Mode::Create).unwrap();
        fs.crash();
        match fs.open(Path::new("/d/new"), Mode::Read) {
            Ok(_) => there += 1,
            Err(_) => gone += 1,
        }
    }
    assert!(there > 0 && gone > 0);
}

#[test]
fn a_full_disk_writes_a_part_and_says_so() {
    let (fs, file) = disk(1);
    fs.set_capacity(Some(100));
    let error = file.append(&[1; 200]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(content(&fs).len() <= 100);
    fs.set_capacity(None);
    file.truncate(0).unwrap();
    file.append(&[1; 200]).unwrap();
}

#[test]
fn equal_seeds_fail_alike() {
    let run = |seed| {
        let (fs, file) = disk(seed);
        fs.set_faults(Faults {
            write_error: 3,
            sync_error: 4,
            ..Faults::default()
        });
        (0..50)
            .map(|i| (file.append(&[i]).is_ok(), file.sync_data().is_ok()))
            .collect::<Vec<_>>()
    };
    assert_eq!(run(9), run(9));
    assert_ne!(run(9), run(10));
}

#[test]
fn a_fork_has_its_own_future() {
    let (fs, file) = disk(1);
    file.append(b"a").unwrap();
    let fork = fs.fork();
    file.append(b"b").unwrap();
    assert_eq!(content(&fork), b"a");
    assert_eq!(content(&fs), b"ab");
}
