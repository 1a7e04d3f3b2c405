//! A file system in memory that loses and breaks things the way disks do.
//!
//! Every file keeps two images: what the process sees, and what would be on the disk
//! after power is cut. A sync copies the first to the second. A crash keeps, by the
//! seed, some of the unsynced writes: each may survive whole, in part (torn at 512-byte
//! sectors) or not at all, in any order, and the file's length with them. Names are
//! the same: a created, renamed or removed file is durable after its folder is synced,
//! and before that by luck. All choices come from one seeded generator.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Entry, File, FileSystem, Lock, LockError, Mode};

const SECTOR: usize = 512;

/// Which faults may happen, each as a chance of one in so many operations; 0 is never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// A write fails with an I/O error, after any part of it was written.
    pub write_error: u32,
    /// A sync fails; what it should have synced is then lost or not, by the seed.
    pub sync_error: u32,
    /// A rename, removal or creation fails.
    pub name_error: u32,
    /// A read fails with an I/O error.
    pub read_error: u32,
}

/// A file system in memory with a seeded generator of faults.
#[derive(Clone)]
pub struct Memory {
    disk: Arc<Mutex<Disk>>,
}

struct Disk {
    now: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    dirs: Vec<PathBuf>,
    locks: Vec<PathBuf>,
    rng: u64,
    faults: Faults,
    capacity: Option<u64>,
    /// Operations until the machine stops; `None` is never.
    countdown: Option<u64>,
    /// Raised at every crash, so that files opened before it are dead.
    boot: u64,
    down: bool,
    syncs: u64,
    written: u64,
}

type Node = Arc<Mutex<Content>>;

#[derive(Default, Clone)]
struct Content {
    data: Vec<u8>,
    synced: Vec<u8>,
    /// Unsynced changes in order: `None` data is a truncation to the offset.
    pending: Vec<(u64, Option<Vec<u8>>)>,
}

impl Content {
    fn write(&mut self, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.data[offset..end].copy_from_slice(data);
        self.pending.push((offset as u64, Some(data.to_vec())));
    }

    fn sync(&mut self) {
        for (offset, data) in std::mem::take(&mut self.pending) {
            replay(&mut self.synced, offset as usize, data.as_deref());
        }
    }
}

fn replay(image: &mut Vec<u8>, offset: usize, data: Option<&[u8]>) {
    match data {
        Some(data) => {
            let end = offset + data.len();
            if image.len() < end {
                image.resize(end, 0);
            }
            image[offset..end].copy_from_slice(data);
        }
        None => image.resize(offset, 0),
    }
}

impl Disk {
    fn draw(&mut self) -> u64 {
        self.rng = self.rng.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.rng;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.draw() % n.max(1)
    }

    fn hit(&mut self, chance: u32) -> bool {
        chance > 0 && self.below(u64::from(chance)) == 0
    }

    /// Counts one operation and fails it when the machine is down.
    fn step(&mut self) -> io::Result<()> {
        if let Some(left) = self.countdown.as_mut() {
            if *left == 0 {
                self.down = true;
            } else {
                *left -= 1;
            }
        }
        if self.down {
            return Err(io::Error::other("the machine has stopped"));
        }
        Ok(())
    }

    fn used(&self) -> u64 {
        self.now.values().map(|n| guard(n).data.len() as u64).sum()
    }

    /// What of a file's unsynced changes reached the disk.
    fn settle_content(&mut self, node: &Node) {
        let pending = std::mem::take(&mut guard(node).pending);
        let mut image = std::mem::take(&mut guard(node).synced);
        let order_kept = self.below(2) == 0;
        for (offset, data) in pending {
            let fate = self.below(4);
            match data {
                None if fate > 0 => replay(&mut image, offset as usize, None),
                None => {}
                Some(_) if fate == 0 && order_kept => break,
                Some(_) if fate == 0 => {}
                Some(data) if fate == 1 => {
                    let cut = self.below(data.len() as u64 + 1) as usize;
                    // The device writes whole sectors, seen from the file's start.
                    let end = (offset as usize + cut) / SECTOR * SECTOR;
                    let keep = end.saturating_sub(offset as usize).min(data.len());
                    replay(&mut image, offset as usize, Some(&data[..keep]));
                    if order_kept {
                        break;
                    }
                }
                Some(data) => replay(&mut image, offset as usize, Some(&data)),
            }
        }
        let mut content = guard(node);
        content.data = image.clone();
        content.synced = image;
    }
}

// A poisoned mutex here means that a test already panicked; its data is still whole.
fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Memory {
    /// An empty disk without faults, drawing from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            disk: Arc::new(Mutex::new(Disk {
                now: BTreeMap::new(),
                durable: BTreeMap::new(),
                dirs: Vec::new(),
                locks: Vec::new(),
                rng: seed,
                faults: Faults::default(),
                capacity: None,
                countdown: None,
                boot: 0,
                down: false,
                syncs: 0,
                written: 0,
            })),
        }
    }

    /// A copy of the disk as it is, with its own future.
    #[must_use]
    pub fn fork(&self) -> Self {
        let disk = guard(&self.disk);
        let mut copies: Vec<(Node, Node)> = Vec::new();
        let mut copy = |files: &BTreeMap<PathBuf, Node>| -> BTreeMap<PathBuf, Node> {
            let copied = files.iter().map(|(path, node)| {
                let known = copies
                    .iter()
                    .find(|(old, _)| Arc::ptr_eq(old, node))
                    .map(|c| c.1.clone());
                let new = known.unwrap_or_else(|| {
                    let new = Arc::new(Mutex::new(guard(node).clone()));
                    copies.push((node.clone(), new.clone()));
                    new
                });
                (path.clone(), new)
            });
            copied.collect()
        };
        let (now, durable) = (copy(&disk.now), copy(&disk.durable));
        let fork = Disk {
            now,
            durable,
            dirs: disk.dirs.clone(),
            locks: Vec::new(),
            rng: disk.rng,
            faults: disk.faults,
            capacity: disk.capacity,
            countdown: None,
            boot: 0,
            down: false,
            syncs: 0,
            written: 0,
        };
        Self {
            disk: Arc::new(Mutex::new(fork)),
        }
    }

    /// From now on these faults may happen.
    pub fn set_faults(&self, faults: Faults) {
        guard(&self.disk).faults = faults;
    }

    /// Limits what all files together may hold, in bytes; beyond it writes fail with
    /// `StorageFull`, in part written.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        guard(&self.disk).capacity = bytes;
    }

    /// Stops the machine after so many more operations; then everything fails until
    /// [`Memory::crash`].
    pub fn stop_after(&self, operations: u64) {
        guard(&self.disk).countdown = Some(operations);
    }

    /// Whether the machine has stopped.
    #[must_use]
    pub fn stopped(&self) -> bool {
        guard(&self.disk).down
    }

    /// Cuts the power and starts again: unsynced data and names survive by luck,
    /// locks are gone, files opened before fail, faults are off.
    pub fn crash(&self) {
        let mut disk = guard(&self.disk);
        let names: Vec<PathBuf> = disk
            .now
            .keys()
            .chain(disk.durable.keys())
            .cloned()
            .collect();
        let mut after = BTreeMap::new();
        for name in names {
            let (old, new) = (
                disk.durable.get(&name).cloned(),
                disk.now.get(&name).cloned(),
            );
            let same = match (&old, &new) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                (None, None) => true,
                _ => false,
            };
            let kept = if same || disk.below(2) == 0 { old } else { new };
            if let Some(node) = kept {
                after.insert(name, node);
            }
        }
        let nodes: Vec<Node> = after.values().cloned().collect();
        for node in nodes {
            disk.settle_content(&node);
        }
        disk.now.clone_from(&after);
        disk.durable = after;
        disk.restart();
    }

    /// Ends the process but not the machine (`kill -9`): everything written stays,
    /// synced or not; locks are gone, files opened before fail.
    pub fn kill(&self) {
        guard(&self.disk).restart();
    }

    /// How many syncs of files succeeded.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        guard(&self.disk).syncs
    }

    /// How many bytes were written.
    #[must_use]
    pub fn written(&self) -> u64 {
        guard(&self.disk).written
    }

    /// Flips one bit of a file, on the disk and as seen.
    pub fn flip(&self, path: &Path, byte: usize, bit: u8) {
        let disk = guard(&self.disk);
        if let Some(node) = disk.now.get(path) {
            let mut content = guard(node);
            content.sync();
            for image in [0, 1] {
                let data = if image == 0 {
                    &mut content.data
                } else {
                    &mut content.synced
                };
                if let Some(b) = data.get_mut(byte) {
                    *b ^= 1 << (bit % 8);
                }
            }
        }
    }
}

impl Disk {
    fn restart(&mut self) {
        self.locks.clear();
        self.boot += 1;
        self.down = false;
        self.countdown = None;
        self.faults = Faults::default();
    }
}

struct MemoryFile {
    fs: Memory,
    node: Node,
    boot: u64,
}

impl MemoryFile {
    fn enter(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let mut disk = guard(&self.fs.disk);
        if disk.boot != self.boot {
            return Err(io::Error::other("opened before the crash"));
        }
        disk.step()?;
        Ok(disk)
    }
}

impl File for MemoryFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut disk = self.enter()?;
        let chance = disk.faults.read_error;
        if disk.hit(chance) {
            return Err(io::Error::other("injected read error"));
        }
        let content = guard(&self.node);
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(content.data.len());
        let n = buf.len().min(content.data.len() - start);
        buf[..n].copy_from_slice(&content.data[start..start + n]);
        Ok(n)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.enter()?;
        let chance = disk.faults.write_error;
        let failed = disk.hit(chance);
        let used = disk.used();
        let room = disk.capacity.map_or(u64::MAX, |c| c.saturating_sub(used));
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let grows = (offset + data.len()).saturating_sub(guard(&self.node).data.len()) as u64;
        let full = grows > room;
        let n = if failed || full {
            let most = if full {
                room.min(data.len() as u64)
            } else {
                data.len() as u64
            };
            disk.below(most + 1) as usize
        } else {
            data.len()
        };
        disk.written += n as u64;
        guard(&self.node).write(offset, &data[..n]);
        if failed {
            return Err(io::Error::other("injected write error"));
        }
        if full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.enter()?;
        let chance = disk.faults.sync_error;
        if disk.hit(chance) {
            if disk.below(2) == 0 {
                // As Linux does: the pages are marked clean, and lost.
                guard(&self.node).pending.clear();
            }
            return Err(io::Error::other("injected sync error"));
        }
        disk.syncs += 1;
        guard(&self.node).sync();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let _disk = self.enter()?;
        Ok(guard(&self.node).data.len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let _disk = self.enter()?;
        let mut content = guard(&self.node);
        content.data.resize(len as usize, 0);
        content.pending.push((len, None));
        Ok(())
    }
}

struct MemoryLock {
    fs: Memory,
    path: PathBuf,
    boot: u64,
}

impl Lock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut disk = guard(&self.fs.disk);
        if disk.boot == self.boot {
            disk.locks.retain(|p| *p != self.path);
        }
    }
}

impl FileSystem for Memory {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        let mut disk = guard(&self.disk);
        disk.step()?;
        let node = match (disk.now.get(path).cloned(), mode) {
            (None, Mode::Read | Mode::Write) => return Err(io::ErrorKind::NotFound.into()),
            (None, Mode::Create | Mode::Truncate) => {
                let chance = disk.faults.name_error;
                if disk.hit(chance) {
                    return Err(io::Error::other("injected creation error"));
                }
                let node = Node::default();
                disk.now.insert(path.to_owned(), node.clone());
                node
            }
            (Some(node), Mode::Truncate) => {
                let mut content = guard(&node);
                content.data.clear();
                content.pending.push((0, None));
                drop(content);
                node
            }
            (Some(node), _) => node,
        };
        let boot = disk.boot;
        drop(disk);
        Ok(Arc::new(MemoryFile {
            fs: self.clone(),
            node,
            boot,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut disk = guard(&self.disk);
        disk.step()?;
        disk.dirs.push(path.to_owned());
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut disk = guard(&self.disk);
        disk.step()?;
        if !disk.dirs.iter().any(|d| d.starts_with(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = disk
            .now
            .iter()
            .filter(|(path, _)| path.parent() == Some(dir));
        Ok(inside
            .filter_map(|(path, node)| {
                let name = path.file_name()?.to_str()?.to_owned();
                Some(Entry {
                    name,
                    len: guard(node).data.len() as u64,
                })
            })
            .collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = guard(&self.disk);
        disk.step()?;
        let chance = disk.faults.name_error;
        if disk.hit(chance) {
            return Err(io::Error::other("injected rename error"));
        }
        let node = disk.now.remove(from).ok_or(io::ErrorKind::NotFound)?;
        disk.now.insert(to.to_owned(), node);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = guard(&self.disk);
        disk.step()?;
        let chance = disk.faults.name_error;
        if disk.hit(chance) {
            return Err(io::Error::other("injected removal error"));
        }
        disk.now
            .remove(path)
            .map(|_| ())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = guard(&self.disk);
        disk.step()?;
        let chance = disk.faults.sync_error;
        if disk.hit(chance) {
            return Err(io::Error::other("injected folder sync error"));
        }
        let inside = |path: &PathBuf| path.parent() == Some(dir);
        let now: Vec<_> = disk
            .now
            .iter()
            .filter(|(path, _)| inside(path))
            .map(|(path, node)| (path.clone(), node.clone()))
            .collect();
        disk.durable.retain(|path, _| !inside(path));
        disk.durable.extend(now);
        Ok(())
    }

    fn free_space(&self, _path: &Path) -> io::Result<u64> {
        let mut disk = guard(&self.disk);
        disk.step()?;
        let used = disk.used();
        Ok(disk
            .capacity
            .map_or(u64::MAX / 2, |c| c.saturating_sub(used)))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Lock>, LockError> {
        let mut disk = guard(&self.disk);
        disk.step().map_err(LockError::Io)?;
        if disk.locks.iter().any(|p| p == path) {
            return Err(LockError::Held(std::process::id().to_string()));
        }
        disk.locks.push(path.to_owned());
        let boot = disk.boot;
        drop(disk);
        Ok(Box::new(MemoryLock {
            fs: self.clone(),
            path: path.to_owned(),
            boot,
        }))
    }
}

#[cfg(test)]
mod tests;
