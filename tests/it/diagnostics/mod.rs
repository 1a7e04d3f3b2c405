//! Broken configurations and what is said of them, whole. A case is a file in
//! `cases/`: the files of a configuration, each after a line `=== PATH`. What
//! is printed for it is its snapshot.

mod documents;

use pointsman::config::{Config, run_tests};
use pointsman::error::{EXIT_NO, render_all};
use std::fs;
use std::path::{Path, PathBuf};

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/diagnostics/cases")
}

/// Only this variable is set.
fn env(name: &str) -> Option<String> {
    (name == "SECRET_HOOK").then(|| "ftp://user:hunter2@host".to_owned())
}

/// Writes the case's files, and returns what `check` would print.
fn check(case: &str) -> String {
    let text = fs::read_to_string(cases().join(format!("{case}.txt"))).expect("the case");
    let folder = tempfile::tempdir().expect("a temporary folder");
    for part in text.split("=== ").skip(1) {
        let (path, content) = part.split_once('\n').unwrap_or((part, ""));
        let path = folder.path().join(path.trim());
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        // `\xNN` stands for a byte that no text file can hold.
        fs::write(path, raw_bytes(content)).expect("a file");
    }
    report(folder.path())
}

fn raw_bytes(content: &str) -> Vec<u8> {
    let mut parts = content.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).expect("two hexadecimal digits"));
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    bytes
}

fn report(root: &Path) -> String {
    let loaded = Config::load(root, &env);
    let mut diagnostics = loaded.diagnostics.clone();
    diagnostics.extend(loaded.test_diagnostics.clone());
    if let Some(config) = &loaded.config {
        // Stands in for the router: every route, whatever the event.
        let routes: Vec<String> = config
            .routes()
            .iter()
            .map(|r| r.target.route.clone())
            .collect();
        diagnostics.extend(run_tests(&loaded.tests, &routes, &|_| routes.clone()));
    }
    let shown = render_all(&diagnostics, &loaded.sources, false);
    let shown = shown.replace(&root.display().to_string(), "[ROOT]");
    format!(
        "{shown}starts: {}\n",
        if loaded.has_errors() { "no" } else { "yes" }
    )
}

macro_rules! cases {
    ($($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                let mut settings = insta::Settings::clone_current();
                settings.set_prepend_module_to_snapshot(false);
                settings.set_omit_expression(true);
                settings.bind(|| insta::assert_snapshot!(stringify!($case), check(stringify!($case))));
            }
        )*

        #[test]
        fn every_case_is_run() {
            let listed = [$(concat!(stringify!($case), ".txt")),*];
            for entry in fs::read_dir(cases()).expect("the cases") {
                let name = entry.expect("an entry").file_name();
                assert!(listed.iter().any(|case| **case == *name), "{name:?} is not run");
            }
        }
    };
}

cases! {
    address_open_to_the_network
    address_without_port
    ambiguous_number_in_a_pattern
    batch_out_of_range
    binary_file
    bus_nobody_listens_on
    bus_name_with_a_slip
    column_twice
    command_as_one_text
    connection_of_unknown_kind
    connections
    cron_line
    duplicate_key
    duplicate_name_in_two_files
    duplicate_route
    durations_and_sizes
    empty_folder
    env_not_set
    env_value_is_never_shown
    everything_at_once
    file_reference_missing
    glob
    handler_of_two_kinds
    idle_parts
    input_transformer
    load_key
    loop_between_buses
    loop_through_one_handler
    loop_through_two_handlers
    loop_that_may_be
    missing_fields
    name_with_a_slash
    node_twice
    numbers_and_words
    partition_not_in_the_schema
    pattern_in_json_text
    pattern_lints
    pattern_operator
    pattern_without_brackets
    rule_tests
    rule_without_targets
    schedule
    schema_missing
    schema_not_json
    schema_not_valid
    schemas_of_event_types
    sources_that_overlap
    table_missing
    target_of_two_kinds
    unknown_fields
    unknown_names
    unquoted_star
    visibility_too_short
    webhook_urls
    wrong_types
    yaml_alias_unknown
    yaml_bracket_open
    yaml_colon_missing
    yaml_tab
    yaml_two_documents
}

#[test]
fn the_shipped_configurations_have_nothing_to_complain_about() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in [root.to_path_buf(), root.join("examples/clickstream")] {
        let loaded = Config::load(&folder, &|_| None);
        let said = render_all(&loaded.diagnostics, &loaded.sources, false);
        assert!(
            loaded.diagnostics.is_empty(),
            "{}:\n{said}",
            folder.display()
        );
        let tests = render_all(&loaded.test_diagnostics, &loaded.sources, false);
        assert!(
            loaded.test_diagnostics.is_empty(),
            "{}:\n{tests}",
            folder.display()
        );
        assert!(loaded.config.is_some() && !loaded.tests.is_empty());
    }
}

#[test]
fn json_output_has_what_the_text_has() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("pointsman.yaml"), "nod: {}\n").expect("a file");
    let loaded = Config::load(folder.path(), &env);
    let json = serde_json::to_value(&loaded.diagnostics).expect("JSON");
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("as_json", serde_json::to_string_pretty(&json).expect("JSON"));
    });
    assert_eq!(EXIT_NO, 1);
}
