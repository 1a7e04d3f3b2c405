//! The house rules that a machine can check: borders between modules, sizes of
//! files, licences of dependencies, words that do not belong here.

use crate::support::repo;
use pointsman::drivers::DRIVERS;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What each module may use. Ground comes first; the flow runs left to right, and
/// `emit` is the only arrow that points left. `ARCHITECTURE.md` tells it in words.
const MAY_USE: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("error", &[]),
    ("event", &[]),
    ("storage", &[]),
    ("state", &[]),
    ("tasks", &[]),
    ("text", &[]),
    ("rules", &[]),
    ("sources", &["clock", "event", "queues", "state"]),
    ("bus", &["clock", "storage"]),
    (
        "router",
        &["bus", "clock", "event", "queues", "rules", "sources"],
    ),
    ("queues", &["bus", "clock", "event", "handlers", "tasks"]),
    (
        "delivery",
        &["clock", "emit", "handlers", "queues", "tasks"],
    ),
    ("handlers", &["clock", "event", "text"]),
    ("emit", &["clock", "event", "handlers", "queues", "topics"]),
    ("topics", &["clock", "event", "handlers", "state"]),
    ("infer", &[]),
    ("dlq", &["bus", "event", "rules"]),
    (
        "replay",
        &[
            "bus", "clock", "event", "queues", "router", "rules", "state", "tasks",
        ],
    ),
    ("observe", &["bus", "delivery", "handlers", "topics"]),
    (
        "drivers",
        &[
            "clock", "event", "handlers", "queues", "sources", "state", "tasks",
        ],
    ),
];

/// Assembly and edges may use everything.
const ABOVE: &[&str] = &["app", "config", "api", "cli"];

const MAX_LINES: usize = 600;

fn sources(under: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![repo().join(under)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Unit tests that were given a file of their own beside the code.
fn is_unit_test(path: &Path) -> bool {
    path.file_stem()
        .is_some_and(|stem| stem.to_string_lossy().ends_with("tests"))
        || path
            .parent()
            .is_some_and(|folder| folder.ends_with("tests"))
}

fn module(path: &Path) -> String {
    let inside = path
        .strip_prefix(repo().join("src"))
        .expect("a path in src");
    let first = inside.components().next().expect("a name");
    first
        .as_os_str()
        .to_string_lossy()
        .trim_end_matches(".rs")
        .to_owned()
}

/// Modules named after `crate::`, also in braces.
fn used(text: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    for part in code.split("crate::").skip(1) {
        let name = |text: &str| -> String {
            text.chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        };
        if let Some(inner) = part.strip_prefix('{') {
            let mut depth = 0;
            let mut start = true;
            for (at, c) in inner.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    c if start && c.is_alphabetic() => {
                        used.insert(name(&inner[at..]));
                        start = false;
                    }
                    _ => {}
                }
            }
        } else {
            used.insert(name(part));
        }
    }
    used
}

#[test]
fn modules_keep_to_their_borders() {
    let rules: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut wrong = Vec::new();
    for path in sources("src") {
        let module = module(&path);
        if ABOVE.contains(&module.as_str()) || module == "lib" || module == "main" {
            continue;
        }
        let allowed = rules
            .get(module.as_str())
            .unwrap_or_else(|| panic!("module `{module}` is not in MAY_USE"));
        let text = fs::read_to_string(&path).expect("a source file");
        for name in used(&text) {
            let known = rules.contains_key(name.as_str()) || ABOVE.contains(&name.as_str());
            if known && name != module && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{} uses crate::{name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_driver_is_in_the_list() {
    let folder = repo().join("src/drivers");
    let list = fs::read_to_string(folder.join("mod.rs")).expect("the list");
    for entry in fs::read_dir(&folder).expect("the drivers") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy();
        if name != "mod" {
            let line = format!("{name}::DRIVER,");
            assert!(list.contains(&line), "DRIVERS has no `{line}`");
        }
    }
    let names: Vec<&str> = DRIVERS.iter().map(|driver| driver.name).collect();
    let mut unique = names.clone();
    unique.dedup();
    assert_eq!(names, unique);
}

#[test]
fn files_are_short_and_every_module_says_what_it_is() {
    let mut wrong = Vec::new();
    for path in ["src", "tests", "benches", "fuzz/fuzz_targets"]
        .into_iter()
        .flat_map(sources)
    {
        let text = fs::read_to_string(&path).expect("a source file");
        let lines = text.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!(
                "{}: {lines} lines, more than {MAX_LINES}",
                path.display()
            ));
        }
        if !text.starts_with("//!") && !is_unit_test(&path) {
            wrong.push(format!(
                "{}: no module doc on its first line",
                path.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_for_later() {
    let words = [
        "todo!(",
        "unimplemented!(",
        "FIX\u{4d}E",
        "TO\u{44}O",
        "#[ignor\u{65}",
    ];
    let mut wrong = Vec::new();
    for path in ["src", "tests", "benches"].into_iter().flat_map(sources) {
        if path.ends_with("tidy.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a source file");
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                wrong.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Outside tests a panic needs a comment that says why it cannot happen.
#[test]
fn nothing_panics_without_a_reason() {
    let mut wrong = Vec::new();
    for path in sources("src") {
        if is_unit_test(&path) {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a source file");
        let mut before = "";
        for (number, line) in text.lines().enumerate() {
            if line.contains("#[cfg(test)]") {
                break;
            }
            let panics = [".unwrap()", ".expect(\"", "panic!(", "unreachable!("];
            let code = !line.trim_start().starts_with("//");
            if code
                && panics.iter().any(|p| line.contains(p))
                && !line.contains("//")
                && !before.contains("//")
            {
                wrong.push(format!(
                    "{}:{}: {}",
                    path.display(),
                    number + 1,
                    line.trim()
                ));
            }
            before = line;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Licences that may be linked into a binary that others distribute.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "bzip2-1.0.6",
];

#[test]
fn every_dependency_has_a_licence_that_we_can_ship() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(repo())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().unwrap_or_default();
        let licence = package["license"].as_str().unwrap_or_default();
        let file = package["license_file"].as_str().unwrap_or_default();
        if name != "pointsman" && file.is_empty() && !acceptable(licence) {
            wrong.push(format!("{name}: `{licence}`"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a choice of the expression is in the list: `OR` chooses, `AND` adds up.
fn acceptable(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], " ").replace('/', " OR ");
    plain.split(" OR ").any(|choice| {
        choice.split(" AND ").all(|licence| {
            let licence = licence.split(" WITH ").next().unwrap_or_default().trim();
            LICENCES.contains(&licence)
        })
    })
}

#[test]
fn every_direct_dependency_is_explained_in_the_readme() {
    let manifest = fs::read_to_string(repo().join("Cargo.toml")).expect("a manifest");
    let readme = fs::read_to_string(repo().join("README.md")).expect("a README");
    let section = manifest
        .split("[dependencies]")
        .nth(1)
        .expect("dependencies");
    let section = section.split("\n[").next().expect("an end");
    let missing: Vec<&str> = section
        .lines()
        .filter_map(|line| line.split_once(" = ").map(|(name, _)| name))
        .filter(|name| !readme.contains(&format!("`{name}`")))
        .collect();
    assert!(missing.is_empty(), "not in the README's table: {missing:?}");
}

#[test]
fn the_readme_shows_the_shipped_rules_as_they_are() {
    let readme = fs::read_to_string(repo().join("README.md")).expect("a README");
    let rules = fs::read_to_string(repo().join("rules/flights.yaml")).expect("the rules");
    let body = rules.split_once("\n\n").expect("a head and a body").1;
    assert!(
        readme.contains(body.trim()),
        "copy rules/flights.yaml into the README"
    );
}

#[test]
fn the_repository_speaks_of_the_project_alone() {
    let output = Command::new("git")
        .args(["ls-files"])
        .current_dir(repo())
        .output()
        .expect("git runs");
    let words = [
        "/wor\u{6b}/",
        "../share\u{64}",
        "before-sto\u{70}",
        "artifactor\u{79}",
    ];
    let mut wrong = Vec::new();
    for name in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(text) = fs::read_to_string(repo().join(name)) else {
            continue;
        };
        for word in words.iter().filter(|word| text.contains(**word)) {
            wrong.push(format!("{name}: `{word}`"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
