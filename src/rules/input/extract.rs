//! Looks up many paths in one event: exact ones are cut out of its text in one
//! walk, the others are evaluated on a tree that is built at most once.

use super::error::InputError;
use super::path::{Path, Step};
use jsonpath_rust::parser::model::JpQuery;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// The JSON texts that were found, by slot.
pub(super) type Found<'e> = Vec<Option<Cow<'e, str>>>;

/// Paths, joined into a tree where they begin alike. Each has a slot for its value.
#[derive(Clone, Debug, Default)]
pub(super) struct Extractor {
    root: Node,
    queries: Vec<(usize, JpQuery)>,
    slots: usize,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// Who wants the value here.
    slots: Vec<usize>,
    names: BTreeMap<String, Node>,
    indices: BTreeMap<i64, Node>,
}

impl Extractor {
    /// Adds a path; its value will be in the slot that is returned.
    pub(super) fn add(&mut self, path: Path) -> usize {
        let slot = self.slots;
        self.slots += 1;
        match path {
            Path::Query(query) => self.queries.push((slot, query)),
            Path::Exact(steps) => {
                let mut node = &mut self.root;
                for step in steps {
                    node = match step {
                        Step::Name(name) => node.names.entry(name).or_default(),
                        Step::Index(index) => node.indices.entry(index).or_default(),
                        // A path with a wildcard is a query.
                        Step::All => node,
                    };
                }
                node.slots.push(slot);
            }
        }
        slot
    }

    /// The values in `event`, as JSON text. The whole event is checked to be JSON.
    pub(super) fn find<'e>(&self, event: &'e [u8]) -> Result<Found<'e>, InputError> {
        let mut found: Found<'e> = vec![None; self.slots];
        let text: &RawValue = serde_json::from_slice(event).map_err(|e| InputError::event(&e))?;
        walk(&self.root, text.get(), &mut found).map_err(|e| InputError::event(&e))?;
        if !self.queries.is_empty() {
            let tree: Value = serde_json::from_slice(event).map_err(|e| InputError::event(&e))?;
            for (slot, query) in &self.queries {
                found[*slot] = evaluate(query, &tree).map(Cow::Owned);
            }
        }
        Ok(found)
    }
}

/// All that the query finds, as an array; nothing where it finds nothing.
fn evaluate(query: &JpQuery, tree: &Value) -> Option<String> {
    let found = jsonpath_rust::query::js_path_process(query, tree).ok()?;
    if found.is_empty() {
        return None;
    }
    let mut text = String::from("[");
    for (index, item) in found.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&item.val.to_string());
    }
    text.push(']');
    Some(text)
}

fn walk<'e>(node: &Node, text: &'e str, found: &mut Found<'e>) -> Result<(), serde_json::Error> {
    for slot in &node.slots {
        found[*slot] = Some(Cow::Borrowed(text));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    match text.as_bytes().first() {
        Some(b'{') if !node.names.is_empty() => json.deserialize_map(Members { node, found }),
        Some(b'[') if !node.indices.is_empty() => json.deserialize_seq(Elements { node, found }),
        _ => Ok(()),
    }
}

/// Forgets what was found below `node`: the last of equal names counts.
fn forget(node: &Node, found: &mut Found<'_>) {
    for slot in &node.slots {
        found[*slot] = None;
    }
    for child in node.names.values().chain(node.indices.values()) {
        forget(child, found);
    }
}

struct Members<'n, 'f, 'e> {
    node: &'n Node,
    found: &'f mut Found<'e>,
}

impl<'e> Visitor<'e> for Members<'_, '_, 'e> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'e>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(child) = map.next_key_seed(Name(self.node))? {
            let Some(child) = child else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let value: &'e RawValue = map.next_value()?;
            forget(child, self.found);
            walk(child, value.get(), self.found).map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}

struct Elements<'n, 'f, 'e> {
    node: &'n Node,
    found: &'f mut Found<'e>,
}

impl<'e> Visitor<'e> for Elements<'_, '_, 'e> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'e>>(self, mut seq: A) -> Result<(), A::Error> {
        // The last elements are kept for indices that count from the end.
        let back = self
            .node
            .indices
            .keys()
            .next()
            .map_or(0, |first| (-first).max(0));
        let mut last: std::collections::VecDeque<&'e RawValue> = std::collections::VecDeque::new();
        let mut index = 0_i64;
        while let Some(value) = seq.next_element::<&'e RawValue>()? {
            if let Some(child) = self.node.indices.get(&index) {
                walk(child, value.get(), self.found).map_err(serde::de::Error::custom)?;
            }
            index += 1;
            if back > 0 {
                if i64::try_from(last.len()).is_ok_and(|kept| kept == back) {
                    last.pop_front();
                }
                last.push_back(value);
            }
        }
        for (from_end, value) in (1..).zip(last.iter().rev()) {
            if let Some(child) = self.node.indices.get(&-from_end) {
                walk(child, value.get(), self.found).map_err(serde::de::Error::custom)?;
            }
        }
        Ok(())
    }
}

/// The members of an object in their order, values as JSON text.
pub(super) fn members(object: &str) -> Result<Vec<(String, &str)>, InputError> {
    let mut json = serde_json::Deserializer::from_str(object);
    json.deserialize_map(All).map_err(|e| InputError::event(&e))
}

struct All;

impl<'e> Visitor<'e> for All {
    type Value = Vec<(String, &'e str)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'e>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, &'e RawValue>()? {
            members.push((name, value.get()));
        }
        Ok(members)
    }
}

/// Finds the node of a name, without keeping the name.
struct Name<'n>(&'n Node);

impl<'de, 'n> DeserializeSeed<'de> for Name<'n> {
    type Value = Option<&'n Node>;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<Self::Value, D::Error> {
        key.deserialize_str(self)
    }
}

impl<'n> Visitor<'_> for Name<'n> {
    type Value = Option<&'n Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.names.get(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(paths: &[&str], event: &str) -> Vec<Option<String>> {
        let mut extractor = Extractor::default();
        for path in paths {
            extractor.add(super::super::path::compile("input_path", path).unwrap());
        }
        let found = extractor.find(event.as_bytes()).unwrap();
        found
            .into_iter()
            .map(|text| text.map(Cow::into_owned))
            .collect()
    }

    #[test]
    fn values_are_cut_out_as_they_are_spelt() {
        let event =
            r#" {"a": {"b": 1.50e2, "c": [10, {"d": "\u00e9"}, 1e999]}, "a\u002db": null} "#;
        let paths = [
            "$",
            "$.a",
            "$.a.b",
            "$.a.c[1].d",
            "$.a.c[-1]",
            "$.a.c[-3]",
            "$.a-b",
            "$.a.c[3]",
            "$.a.c[-4]",
            "$.a.b.x",
        ];
        let found = found(&paths, event);
        let said = |index: usize| found[index].as_deref();
        assert_eq!(said(0), Some(event.trim()));
        assert_eq!(said(2), Some("1.50e2"));
        assert_eq!(said(3), Some(r#""\u00e9""#));
        assert_eq!((said(4), said(5)), (Some("1e999"), Some("10")));
        assert_eq!(said(6), Some("null"));
        assert_eq!((said(7), said(8), said(9)), (None, None, None));
    }

    #[test]
    fn the_last_of_equal_names_counts() {
        assert_eq!(
            found(&["$.a.b", "$.a"], r#"{"a":{"b":1},"a":{}}"#),
            [None, Some("{}".to_owned())]
        );
    }

    #[test]
    fn a_query_gives_an_array() {
        let event = r#"{"a":[{"b":1},{"b":"x"},{"c":2.0}],"e":{}}"#;
        let paths = [
            "$.a[*].b",
            "$.a[?@.b == 'x'].b",
            "$..c",
            "$.a[*].z",
            "$.e.*",
            "$.a[1:].b",
        ];
        let texts: Vec<String> = found(&paths, event)
            .into_iter()
            .map(Option::unwrap_or_default)
            .collect();
        assert_eq!(
            texts,
            [r#"[1,"x"]"#, r#"["x"]"#, "[2.0]", "", "", r#"["x"]"#]
        );
    }

    #[test]
    fn an_event_that_is_not_json_is_an_error() {
        let extractor = Extractor::default();
        for event in ["", "{", "{} {}", "{\"a\":01}", "\u{feff}{}"] {
            assert!(
                matches!(
                    extractor.find(event.as_bytes()),
                    Err(InputError::Event { .. })
                ),
                "{event}"
            );
        }
        assert!(extractor.find(b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn depth_costs_no_stack_on_exact_paths() {
        let event = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(
            found(&["$.a"], &event)[0].as_ref().map(String::len),
            Some(200_001)
        );
    }
}
