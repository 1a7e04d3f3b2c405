//! The references that texts are written with.

use crate::text::Text;
use std::path::Path;

/// Why a reference could not be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RefError {
    #[error("environment variable `{0}` is not set")]
    Unset(String),
    #[error("`${{env:...}}` needs the name of an environment variable")]
    NoName,
    #[error("file `{path}` cannot be read: {reason}")]
    File { path: String, reason: String },
    #[error("unknown reference `${{{0}:...}}`")]
    Unknown(String),
    #[error("`${{` is not closed")]
    Open,
}

/// Where references lead.
pub(super) struct References<'a> {
    /// Looks up an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Relative paths of `${file:...}` start here.
    pub root: &'a Path,
}

impl References<'_> {
    /// Resolves the references in `written`. `$${` stands for `${` itself; `${`
    /// that no `word:` follows is left alone.
    pub fn resolve(&self, written: &str) -> Result<Text, RefError> {
        if !written.contains("${") {
            return Ok(Text::plain(written));
        }
        let mut value = String::with_capacity(written.len());
        let mut found = false;
        let mut rest = written;
        while let Some(at) = rest.find("${") {
            let (before, after) = (&rest[..at], &rest[at + 2..]);
            if let Some(before) = before.strip_suffix('$') {
                value.push_str(before);
                value.push_str("${");
                rest = after;
                continue;
            }
            value.push_str(before);
            match reference(after)? {
                None => {
                    value.push_str("${");
                    rest = after;
                }
                Some((kind, body, length)) => {
                    value.push_str(&self.look_up(kind, body)?);
                    found = true;
                    rest = &after[length..];
                }
            }
        }
        value.push_str(rest);
        let text = Text::plain(value);
        Ok(match found {
            true => text.shown_as(written),
            false => text,
        })
    }

    fn look_up(&self, kind: &str, body: &str) -> Result<String, RefError> {
        match kind {
            "env" => {
                let (name, default) = match body.split_once(":-") {
                    Some((name, default)) => (name, Some(default)),
                    None => (body, None),
                };
                if name.is_empty() {
                    return Err(RefError::NoName);
                }
                // As in a shell, `:-` also stands in for an empty value.
                match ((self.env)(name), default) {
                    (Some(value), None) => Ok(value),
                    (Some(value), Some(_)) if !value.is_empty() => Ok(value),
                    (_, Some(default)) => Ok(default.to_owned()),
                    (None, None) => Err(RefError::Unset(name.to_owned())),
                }
            }
            "file" => self.read(body),
            _ => Err(RefError::Unknown(kind.to_owned())),
        }
    }

    fn read(&self, path: &str) -> Result<String, RefError> {
        let failed = |reason: String| RefError::File {
            path: path.to_owned(),
            reason,
        };
        let text =
            super::files::read_text(&self.root.join(path)).map_err(|e| failed(e.to_string()))?;
        // Editors end a file with a line end that no password has.
        let text = text.strip_suffix('\n').unwrap_or(&text);
        Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
    }
}

/// The kind, the body and the length (with `}`) of the reference after `${`.
fn reference(after: &str) -> Result<Option<(&str, &str, usize)>, RefError> {
    let word = after
        .find(|c: char| !c.is_ascii_lowercase())
        .unwrap_or(after.len());
    if word == 0 || !after[word..].starts_with(':') {
        return Ok(None);
    }
    let end = after.find('}').ok_or(RefError::Open)?;
    Ok(Some((&after[..word], &after[word + 1..end], end + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(written: &str) -> Result<Text, RefError> {
        let env = |name: &str| match name {
            "HOOK" => Some("https://u:p@host".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let references = References {
            env: &env,
            root: Path::new("/nowhere"),
        };
        references.resolve(written)
    }

    #[test]
    fn references_are_resolved_and_shown_as_written() {
        let text = resolve("a ${env:HOOK} b").unwrap();
        assert_eq!(text.reveal(), "a https://u:p@host b");
        assert_eq!(
            format!("{text} {text:?}"),
            "a ${env:HOOK} b \"a ${env:HOOK} b\""
        );
        assert_eq!(serde_json::to_string(&text).unwrap(), "\"a ${env:HOOK} b\"");
    }

    #[test]
    fn defaults_stand_in_for_what_is_unset_or_empty() {
        assert_eq!(resolve("${env:NO:-x}").unwrap().reveal(), "x");
        assert_eq!(resolve("${env:EMPTY:-x}").unwrap().reveal(), "x");
        assert_eq!(resolve("${env:EMPTY}").unwrap().reveal(), "");
        assert_eq!(resolve("${env:NO:-}").unwrap().reveal(), "");
        assert_eq!(resolve("${env:NO}"), Err(RefError::Unset("NO".to_owned())));
    }

    #[test]
    fn a_doubled_dollar_and_other_braces_are_text() {
        assert_eq!(resolve("$${env:NO}").unwrap(), Text::plain("${env:NO}"));
        assert_eq!(resolve("${1} ${} $").unwrap(), Text::plain("${1} ${} $"));
    }

    #[test]
    fn broken_references_are_refused() {
        assert_eq!(resolve("${env:HOOK"), Err(RefError::Open));
        assert_eq!(
            resolve("${enf:HOOK}"),
            Err(RefError::Unknown("enf".to_owned()))
        );
        assert_eq!(resolve("${env:}"), Err(RefError::NoName));
        assert!(matches!(resolve("${file:x}"), Err(RefError::File { .. })));
    }
}
