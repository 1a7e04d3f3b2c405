//! The order in which a schema's properties are written. A parsed JSON
//! document has lost it, and files without a header depend on it.

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::fmt;
use std::path::Path;

/// The names of `properties` in the order of the file; `None` if it cannot be read.
#[must_use]
pub fn of_file(path: &Path) -> Option<Vec<String>> {
    of_text(&std::fs::read_to_string(path).ok()?)
}

fn of_text(text: &str) -> Option<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Document {
        properties: Names,
    }
    let document: Document = serde_json::from_str(text).ok()?;
    Some(document.properties.0)
}

struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Names;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some((name, IgnoredAny)) = map.next_entry()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_order() {
        let text = r#"{"type":"object","properties":{"z":{},"a":{"type":"string"},"m":{}}}"#;
        assert_eq!(of_text(text).unwrap(), ["z", "a", "m"]);
        assert_eq!(of_text("[]"), None);
    }
}
