//! A small part of JSONPath: names, positions and `[*]`. What it finds is cut out
//! of the text as it stands there, so numbers keep every digit.

use serde_json::value::RawValue;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// A path like `$.data.items[*]` or `$['next page'].url`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath {
    text: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
    All,
}

/// Why a text is no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PathError(String);

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for JsonPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let mut rest = text
            .strip_prefix('$')
            .ok_or_else(|| PathError("it must begin with `$`".to_owned()))?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = match rest.strip_prefix('.') {
                Some(name) => dotted(name)?,
                None => bracketed(rest)?,
            };
            steps.push(step);
            rest = after;
        }
        Ok(Self {
            text: text.to_owned(),
            steps,
        })
    }
}

fn dotted(rest: &str) -> Result<(Step, &str), PathError> {
    let end = rest.find(['.', '[']).unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == '-' || c == '@';
    if name.is_empty() || !name.chars().all(word) {
        let reason = format!("`.{name}` is not a name; write other names like `['{name}']`");
        return Err(PathError(reason));
    }
    Ok((Step::Name(name.to_owned()), after))
}

fn bracketed(rest: &str) -> Result<(Step, &str), PathError> {
    let unknown = || PathError("after `$` come names, positions like `[0]`, and `[*]`".to_owned());
    let inner = rest.strip_prefix('[').ok_or_else(unknown)?;
    for quote in ['\'', '"'] {
        if let Some(name) = inner.strip_prefix(quote) {
            let end = name.find(quote).ok_or_else(unknown)?;
            let after = name[end + 1..].strip_prefix(']').ok_or_else(unknown)?;
            return Ok((Step::Name(name[..end].to_owned()), after));
        }
    }
    let (inner, after) = inner.split_once(']').ok_or_else(unknown)?;
    let step = match inner {
        "*" => Step::All,
        number => Step::Index(number.parse().map_err(|_| unknown())?),
    };
    Ok((step, after))
}

impl JsonPath {
    /// What is at the path, as it stands in the text. Null on the way is nothing.
    ///
    /// # Errors
    /// Says what is not there.
    pub fn find<'a>(&self, root: &'a RawValue) -> Result<Vec<&'a RawValue>, String> {
        let mut found = vec![root];
        for step in &self.steps {
            let mut next = Vec::new();
            for value in found {
                if value.get() == "null" {
                    continue;
                }
                match step {
                    Step::Name(name) => next.push(member(value, name)?),
                    Step::Index(index) => next.extend(elements(value)?.get(*index)),
                    Step::All => next.extend(elements(value)?),
                }
            }
            found = next;
        }
        found.retain(|value| value.get() != "null");
        Ok(found)
    }

    /// The text, number or truth value at the path, as text; `None` where there
    /// is none.
    #[must_use]
    pub fn text(&self, root: &RawValue) -> Option<String> {
        let found = self.find(root).ok()?;
        let raw = found.first()?.get();
        match raw.as_bytes().first()? {
            b'"' => serde_json::from_str(raw).ok(),
            b'{' | b'[' => None,
            _ => Some(raw.to_owned()),
        }
    }
}

fn member<'a>(value: &'a RawValue, name: &str) -> Result<&'a RawValue, String> {
    let members: HashMap<String, &'a RawValue> = serde_json::from_str(value.get())
        .map_err(|_| format!("there is no object with `{name}` in it"))?;
    members.get(name).copied().ok_or_else(|| {
        let mut names: Vec<&str> = members.keys().map(String::as_str).collect();
        names.sort_unstable();
        names.truncate(10);
        format!("there is no `{name}`, but {}", names.join(", "))
    })
}

fn elements(value: &RawValue) -> Result<Vec<&RawValue>, String> {
    serde_json::from_str(value.get()).map_err(|_| "there is no list".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> JsonPath {
        text.parse().unwrap()
    }

    fn found(text: &str, json: &str) -> Result<Vec<String>, String> {
        let raw: &RawValue = serde_json::from_str(json).unwrap();
        let found = path(text).find(raw)?;
        Ok(found.into_iter().map(|v| v.get().to_owned()).collect())
    }

    #[test]
    fn what_is_found_keeps_its_text() {
        let json =
            r#"{"data": {"a b": [{"n": 1.10}, {"n": 12345678901234567890.5}]}, "none": null}"#;
        assert_eq!(
            found("$.data['a b'][*].n", json).unwrap(),
            ["1.10", "12345678901234567890.5"]
        );
        assert_eq!(found("$.data['a b'][1].n", json).unwrap().len(), 1);
        assert!(found("$.data['a b'][7]", json).unwrap().is_empty());
        assert!(found("$.none[*]", json).unwrap().is_empty());
        assert_eq!(
            found("$.rows[*]", json).unwrap_err(),
            "there is no `rows`, but data, none"
        );
        assert!(found("$.data[*]", json).is_err());
        assert_eq!(found("$[*]", "[1, 2]").unwrap(), ["1", "2"]);
    }

    #[test]
    fn values_are_texts() {
        let raw: &RawValue = serde_json::from_str(r#"{"a": "x\u0041", "b": 7, "c": {}}"#).unwrap();
        assert_eq!(path("$.a").text(raw).as_deref(), Some("xA"));
        assert_eq!(path("$.b").text(raw).as_deref(), Some("7"));
        assert_eq!(path("$.c").text(raw), None);
        assert_eq!(path("$.d").text(raw), None);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for bad in [
            "",
            "data",
            "$data",
            "$..a",
            "$.a[",
            "$.a[?(@.b)]",
            "$.a b",
            "$['a",
        ] {
            assert!(bad.parse::<JsonPath>().is_err(), "{bad}");
        }
    }
}
