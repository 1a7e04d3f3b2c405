//! Ids. Those of derived events are computed from their cause, so that work
//! that is done twice names its results alike and the bus takes them once.

use uuid::Uuid;

/// The name space of ids that Pointsman computes.
const SPACE: Uuid = Uuid::from_u128(0x7c6f_2f3a_5d0e_5b1c_9a55_706f_696e_7473);

/// A new id, ordered by time (UUID version 7).
#[must_use]
pub fn random_id() -> String {
    let mut text = Uuid::encode_buffer();
    Uuid::now_v7()
        .hyphenated()
        .encode_lower(&mut text)
        .to_owned()
}

/// The id of an event that `cause` brought about: the same for every retry of
/// the same `handler` and place in its output.
#[must_use]
pub fn derived_id(cause: &str, handler: &str, index: usize) -> String {
    computed(&["derived", cause, handler, &index.to_string()])
}

/// The id of an object event: one per version of an object.
///
/// `version` is what tells two versions apart: a version id, an etag, or size
/// and modification time.
#[must_use]
pub fn object_id(source: &str, key: &[u8], version: &str, what: &str) -> String {
    let key: String = key.iter().map(|b| format!("{b:02x}")).collect();
    computed(&["object", source, &key, version, what])
}

fn computed(parts: &[&str]) -> String {
    let mut name = Vec::new();
    for part in parts {
        // The length goes first, so that no two lists of parts make one name.
        name.extend_from_slice(&(part.len() as u64).to_le_bytes());
        name.extend_from_slice(part.as_bytes());
    }
    Uuid::new_v5(&SPACE, &name).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_depend_on_every_part() {
        let id = derived_id("a", "h", 0);
        assert_eq!(id, derived_id("a", "h", 0));
        assert_ne!(id, derived_id("a", "h", 1));
        assert_ne!(derived_id("ab", "c", 0), derived_id("a", "bc", 0));
        assert_ne!(
            object_id("s", b"k", "1", "created"),
            object_id("s", b"k", "2", "created")
        );
    }
}
