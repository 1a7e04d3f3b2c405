//! What a message carries beside its body.

use serde::ser::{Serialize, SerializeMap, Serializer};
use std::borrow::Cow;

/// Name of a header; Pointsman's own need no memory.
type Name = Cow<'static, str>;

/// What the names of Pointsman's own begin with.
const OURS: &str = "pointsman-";

/// Headers that are text, a few of them, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Name, String)>);

impl Headers {
    /// The value of a header; of one that came twice, the first.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(own, _)| own == name)?;
        Some(&found.1)
    }

    /// Takes a header out.
    pub fn remove(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(own, _)| own == name)?;
        Some(self.0.remove(at).1)
    }
}

impl<'a> FromIterator<(&'a str, String)> for Headers {
    fn from_iter<I: IntoIterator<Item = (&'a str, String)>>(headers: I) -> Self {
        let headers = headers.into_iter();
        let mut all = Vec::with_capacity(headers.size_hint().1.unwrap_or(0));
        all.extend(headers.map(|(name, value)| (known(name), value)));
        Self(all)
    }
}

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

fn known(name: &str) -> Name {
    let ours = match name.strip_prefix(OURS) {
        Some("accepted") => super::wire::ACCEPTED,
        Some("bus") => super::wire::BUS,
        Some("cause") => super::wire::CAUSE,
        Some("claim") => super::wire::CLAIM,
        Some("delivery") => super::wire::DELIVERY,
        Some("hops") => super::wire::HOPS,
        Some("key") => super::wire::KEY,
        Some("root") => super::wire::ROOT,
        Some("route") => super::wire::ROUTE,
        _ => return Name::Owned(name.to_owned()),
    };
    Name::Borrowed(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_by_their_names_and_keep_their_order() {
        let text = |text: &str| text.to_owned();
        let mut headers: Headers = [
            ("shop", text("Zürich")),
            ("pointsman-bus", text("orders")),
            ("pointsman-other", text("1")),
        ]
        .into_iter()
        .collect();
        assert_eq!(headers.get("pointsman-bus"), Some("orders"));
        assert_eq!((headers.get("Shop"), headers.get("")), (None, None));
        let said = serde_json::to_string(&headers).unwrap();
        let wanted = r#"{"shop":"Zürich","pointsman-bus":"orders","pointsman-other":"1"}"#;
        assert_eq!(said, wanted);
        assert_eq!(headers.remove("shop").as_deref(), Some("Zürich"));
        assert_eq!(headers.get("shop"), None);
    }

    #[test]
    fn names_of_our_own_are_spelled_as_they_are_known() {
        use super::super::wire::{ACCEPTED, BUS, CAUSE, CLAIM, DELIVERY, HOPS, KEY, ROOT, ROUTE};
        let all = [
            ACCEPTED, BUS, CAUSE, CLAIM, DELIVERY, HOPS, KEY, ROOT, ROUTE,
        ];
        for name in all {
            assert_eq!(known(name), Name::Borrowed(name));
            assert!(matches!(known(name), Name::Borrowed(_)), "{name}");
        }
    }
}
