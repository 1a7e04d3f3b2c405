//! Which names are taken.
//!
//! A glob without `/` speaks of a name, wherever it lies; one with `/` speaks
//! of the whole path below the root. An excluded folder is not entered.

use super::look::{is_below, split};
use super::options::FolderOptions;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How names begin of files that are just being moved or deleted by us.
pub const HELD: &[u8] = b".pointsman-";

/// The rules for names, compiled.
#[derive(Debug)]
pub struct Names {
    include: Option<Globs>,
    exclude: Globs,
    hidden: bool,
    recursive: bool,
    marker: Option<Vec<u8>>,
    /// Where finished files are moved to, when that lies below the root.
    set_aside: Option<Vec<u8>>,
}

impl Names {
    /// Compiles the options' globs. `set_aside` is a folder that is never entered.
    ///
    /// # Errors
    /// The first glob that is none, with the reason.
    pub fn new(
        options: &FolderOptions,
        set_aside: Option<Vec<u8>>,
    ) -> Result<Self, globset::Error> {
        let include = match options.include.is_empty() {
            true => None,
            false => Some(Globs::new(&options.include)?),
        };
        Ok(Self {
            include,
            exclude: Globs::new(&options.exclude)?,
            hidden: options.hidden,
            recursive: options.recursive,
            marker: options
                .finished
                .done_marker
                .as_ref()
                .filter(|suffix| !suffix.is_empty())
                .map(|suffix| suffix.clone().into_bytes()),
            set_aside,
        })
    }

    /// Whether a file of this name is taken.
    #[must_use]
    pub fn takes(&self, key: &[u8]) -> bool {
        let (dir, name) = split(key);
        self.enters(dir)
            && (self.hidden || !is_hidden(name))
            && self.marked(key).is_none()
            && !name.starts_with(HELD)
            && self.include.as_ref().is_none_or(|g| g.matches(key))
            && !self.exclude.matches(key)
    }

    /// Whether a folder of this name is looked into.
    #[must_use]
    pub fn enters(&self, dir: &[u8]) -> bool {
        if dir.is_empty() {
            return true;
        }
        if !self.recursive || self.set_aside.as_deref().is_some_and(|a| is_below(dir, a)) {
            return false;
        }
        let mut above = dir;
        while !above.is_empty() {
            let (next, name) = split(above);
            if (!self.hidden && is_hidden(name)) || self.exclude.matches(above) {
                return false;
            }
            above = next;
        }
        true
    }

    /// The file that a done marker speaks of.
    #[must_use]
    pub fn marked<'a>(&self, key: &'a [u8]) -> Option<&'a [u8]> {
        key.strip_suffix(self.marker.as_deref()?)
            .filter(|base| !split(base).1.is_empty())
    }

    /// The done marker that a file needs.
    #[must_use]
    pub fn marker(&self, key: &[u8]) -> Option<Vec<u8>> {
        let suffix = self.marker.as_deref()?;
        Some([key, suffix].concat())
    }
}

/// Hidden names and those that programs use for files they have not finished.
fn is_hidden(name: &[u8]) -> bool {
    const UNFINISHED: [&[u8]; 4] = [b".tmp", b".part", b".swp", b"~"];
    name.starts_with(b".") || UNFINISHED.iter().any(|end| name.ends_with(end))
}

/// Globs of names and of paths.
#[derive(Debug)]
pub struct Globs {
    names: GlobSet,
    paths: GlobSet,
}

impl Globs {
    /// Compiles globs.
    ///
    /// # Errors
    /// The first that is none.
    pub fn new(globs: &[String]) -> Result<Self, globset::Error> {
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for text in globs {
            let text = text.trim_start_matches("./");
            let set = match text.contains('/') {
                true => &mut paths,
                false => &mut names,
            };
            let glob = GlobBuilder::new(text.trim_start_matches('/'))
                .literal_separator(true)
                .build()?;
            set.add(glob);
        }
        Ok(Self {
            names: names.build()?,
            paths: paths.build()?,
        })
    }

    /// Whether one of them matches.
    #[must_use]
    pub fn matches(&self, key: &[u8]) -> bool {
        let as_path = |bytes| Path::new(OsStr::from_bytes(bytes));
        self.names.is_match(as_path(split(key).1)) || self.paths.is_match(as_path(key))
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::tests::options;
    use super::*;

    fn names(edit: impl FnOnce(&mut FolderOptions)) -> Names {
        let mut options = options(Path::new("/nowhere"));
        edit(&mut options);
        Names::new(&options, Some(b"done".to_vec())).unwrap()
    }

    #[test]
    fn hidden_and_unfinished_names_are_left_out() {
        let names = names(|_| {});
        for key in ["a.csv", "sub/a.csv", "a.tmp.csv"] {
            assert!(names.takes(key.as_bytes()), "{key}");
        }
        for key in [
            ".a.csv",
            "a.tmp",
            "a.csv.part",
            "a.csv~",
            ".a.csv.swp",
            ".git/a.csv",
            "x/.b/a.csv",
            "done/a.csv",
        ] {
            assert!(!names.takes(key.as_bytes()), "{key}");
        }
        assert!(names.takes(b"caf\xe9.csv"));
    }

    #[test]
    fn a_glob_without_a_slash_speaks_of_names() {
        let names = names(|o| {
            o.include = vec!["*.csv".into(), "raw/**/*.json".into()];
            o.exclude = vec!["old*".into(), "raw/x/*".into()];
        });
        for (key, taken) in [
            ("a.csv", true),
            ("deep/er/a.csv", true),
            ("a.json", false),
            ("raw/a.json", true),
            ("raw/y/z/a.json", true),
            ("raw/x/a.json", false),
            ("older/a.csv", false),
            ("sub/old.csv", false),
        ] {
            assert_eq!(names.takes(key.as_bytes()), taken, "{key}");
        }
        assert!(!names.enters(b"older") && names.enters(b"deep/er"));
    }

    #[test]
    fn a_marker_is_never_taken_and_names_its_file() {
        let names = names(|o| o.finished.done_marker = Some(".done".into()));
        assert!(!names.takes(b"a.csv.done"));
        assert_eq!(names.marked(b"s/a.csv.done"), Some(&b"s/a.csv"[..]));
        assert_eq!(names.marked(b"s/.done"), None);
        assert_eq!(names.marker(b"a.csv"), Some(b"a.csv.done".to_vec()));
    }

    #[test]
    fn without_recursion_folders_below_are_not_entered() {
        let names = names(|o| o.recursive = false);
        assert!(names.takes(b"a") && !names.takes(b"sub/a") && !names.enters(b"sub"));
    }
}
