//! Documents that are written from the code and must stay equal to it.
//! `UPDATE_DOCUMENTS=1` writes them anew.

use pointsman::{config, error};
use std::fs;
use std::path::Path;

fn check(name: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(name);
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        fs::write(&path, wanted).expect("the document is written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/{name} is out of date; run `UPDATE_DOCUMENTS=1 cargo test --test it documents`"
    );
}

#[test]
fn the_page_of_error_codes_is_up_to_date() {
    check("errors.md", &error::markdown());
}

#[test]
fn the_reference_of_the_configuration_is_up_to_date() {
    check("configuration.md", &config::reference());
}

#[test]
fn the_schema_for_editors_is_up_to_date() {
    let mut schema = serde_json::to_string_pretty(&config::json_schema()).expect("JSON");
    schema.push('\n');
    check("pointsman.schema.json", &schema);
}
