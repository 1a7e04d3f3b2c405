//! What only a look into the file can tell: whether its end has been written,
//! whether its format's trailer is there, and the hash of its content.

use super::hints::{Command, Inbox};
use super::look::{Key, Look};
use flate2::read::MultiGzDecoder;
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, SeekFrom, accessat, open, seek};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

/// What reading a file has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// SHA-256 of the content, where it was asked for.
    pub hash: Option<Vec<u8>>,
    /// Why the file is not whole, where the trailer was asked for.
    pub broken: Option<&'static str>,
}

/// What is wanted of a file.
pub struct Question {
    /// Its key, for the answer.
    pub key: Key,
    /// How it looked when the question was asked.
    pub look: Look,
    /// Where it lies.
    pub path: PathBuf,
    /// Hash its content.
    pub hash: bool,
    /// Check its trailer.
    pub trailer: bool,
}

/// Starts the thread that reads contents; it ends when the sender is dropped.
///
/// # Errors
/// When the system has no thread to give.
pub fn start(inbox: Arc<Inbox>) -> io::Result<mpsc::Sender<Question>> {
    let (questions, asked) = mpsc::channel::<Question>();
    std::thread::Builder::new()
        .name("folder-content".to_owned())
        .spawn(move || {
            while let Ok(question) = asked.recv() {
                let content = answer(&question);
                inbox.command(Command::Content(question.key, question.look, content));
            }
        })?;
    Ok(questions)
}

fn answer(question: &Question) -> io::Result<Content> {
    let broken = match question.trailer {
        true => trailer(&question.path, question.look.size)?,
        false => None,
    };
    let hash = match question.hash && broken.is_none() {
        true => Some(hash(&question.path)?),
        false => None,
    };
    Ok(Content { hash, broken })
}

/// Whether this user may read the file.
///
/// # Errors
/// What the system said.
pub fn readable(path: &Path) -> io::Result<()> {
    Ok(accessat(CWD, path, Access::READ_OK, AtFlags::EACCESS)?)
}

/// Whether the file's last byte has never been written: its size was set ahead
/// (`truncate`, `fallocate`), and the writer has not come to its end.
///
/// # Errors
/// What the system said.
pub fn ends_in_a_hole(path: &Path, size: u64) -> io::Result<bool> {
    let Some(last) = size.checked_sub(1) else {
        return Ok(false);
    };
    let file = open_plain(path)?;
    match seek(&file, SeekFrom::Data(last)) {
        Err(Errno::NXIO) => Ok(true),
        // A file system that knows no holes has none to tell of.
        _ => Ok(false),
    }
}

fn open_plain(path: &Path) -> io::Result<File> {
    // Without NONBLOCK, a pipe that has taken the file's place would hang us.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(File::from(open(path, flags, Mode::empty())?))
}

fn hash(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = open_plain(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().to_vec()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// Checks what the format puts at its end. The format is known by the first
/// bytes or, where these have not been written yet, by the name.
fn trailer(path: &Path, size: u64) -> io::Result<Option<&'static str>> {
    let mut file = open_plain(path)?;
    let mut head = [0; 4];
    let got = read_up_to(&mut file, &mut head)?;
    let named = |end: &str| {
        path.extension()
            .is_some_and(|e| e.as_encoded_bytes().eq_ignore_ascii_case(end.as_bytes()))
    };
    if head[..got].starts_with(&[0x1f, 0x8b]) || named("gz") || named("gzip") {
        file.rewind()?;
        return gzip(file);
    }
    if &head == b"PAR1" || named("parquet") {
        return parquet(file, &head, size);
    }
    Ok(None)
}

/// The trailer of gzip is a checksum of what it unpacks to: only unpacking tells.
fn gzip(file: File) -> io::Result<Option<&'static str>> {
    let mut unpacked = MultiGzDecoder::new(io::BufReader::with_capacity(128 * 1024, file));
    match io::copy(&mut unpacked, &mut io::sink()) {
        Ok(_) => Ok(None),
        Err(error) => match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::InvalidData => Ok(Some("the gzip trailer is missing or wrong")),
            _ => Err(error),
        },
    }
}

fn parquet(mut file: File, head: &[u8], size: u64) -> io::Result<Option<&'static str>> {
    const WRONG: Option<&str> = Some("the Parquet footer is missing or wrong");
    if head != b"PAR1" || size < 12 {
        return Ok(WRONG);
    }
    file.seek(io::SeekFrom::End(-8))?;
    let mut tail = [0; 8];
    if read_up_to(&mut file, &mut tail)? < 8 || &tail[4..] != b"PAR1" {
        return Ok(WRONG);
    }
    let footer = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    Ok(match footer == 0 || footer > size - 12 {
        true => WRONG,
        false => None,
    })
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read(&mut buffer[got..])? {
            0 => break,
            n => got += n,
        }
    }
    Ok(got)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn check(name: &str, bytes: &[u8]) -> Option<&'static str> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        trailer(&path, bytes.len() as u64).unwrap()
    }

    #[test]
    fn a_gzip_file_is_whole_only_with_its_checksum() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&[7; 100_000]).unwrap();
        let packed = packed.finish().unwrap();
        assert_eq!(check("a", &packed), None);
        assert_eq!(check("two.gz", &[&packed[..], &packed[..]].concat()), None);
        for end in [0, 1, 2, packed.len() / 2, packed.len() - 1] {
            assert!(check("a.csv.GZ", &packed[..end]).is_some(), "{end}");
        }
    }

    #[test]
    fn a_parquet_file_is_whole_only_with_its_footer() {
        let whole = [b"PAR1", &[9; 20][..], &[20, 0, 0, 0], b"PAR1"].concat();
        assert_eq!(check("a.parquet", &whole), None);
        assert!(check("a.parquet", &whole[..whole.len() - 1]).is_some());
        assert!(check("a.parquet", &[0; 64]).is_some());
        let mut long = whole.clone();
        long[24] = 200;
        assert!(check("a", &long).is_some());
        assert_eq!(check("a.csv", b"PAR"), None);
    }

    #[test]
    fn a_size_set_ahead_leaves_a_hole_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut file = File::create(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all(&[1; 8192]).unwrap();
        assert!(ends_in_a_hole(&path, 1 << 20).unwrap());
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 1 << 20).unwrap();
        assert!(ends_in_a_hole(&path, 1 << 20).unwrap());
        file.seek(io::SeekFrom::End(-1)).unwrap();
        file.write_all(&[1]).unwrap();
        assert!(!ends_in_a_hole(&path, 1 << 20).unwrap());
        assert!(!ends_in_a_hole(&path, 0).unwrap());
    }
}
