//! S3's answers: listings, and errors.

use crate::sources::notifications::form_decoded;
use crate::sources::s3::{Listed, Page, What};
use chrono::DateTime;
use quick_xml::Reader;
use quick_xml::events::Event;

/// What a server says when it says no.
#[derive(Debug, Default)]
pub struct Said {
    /// `NoSuchBucket`, `AccessDenied` ...
    pub code: String,
    /// For people.
    pub message: String,
}

/// A page of a listing.
pub fn page(body: &[u8], what: What) -> Result<Page, String> {
    let mut page = Page::default();
    let mut entry: Option<Listed> = None;
    let (mut encoded, mut truncated) = (false, false);
    let (mut token, mut key_marker, mut version_marker) = (None, None, String::new());
    walk(body, |path, event| {
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        match (names.as_slice(), event) {
            ([_, "Contents" | "Version" | "DeleteMarker"], Step::Start) => {
                entry = Some(empty(names[1] == "DeleteMarker"));
            }
            ([_, "Contents" | "Version" | "DeleteMarker"], Step::End) => {
                page.entries.extend(entry.take());
            }
            ([_, _, field], Step::Text(text)) => {
                if let Some(entry) = &mut entry {
                    set(entry, field, text);
                }
            }
            ([_, "IsTruncated"], Step::Text(text)) => truncated = text == "true",
            ([_, "EncodingType"], Step::Text(text)) => encoded = text == "url",
            ([_, "NextContinuationToken"], Step::Text(text)) => token = Some(text.to_owned()),
            ([_, "NextKeyMarker"], Step::Text(text)) => key_marker = Some(text.to_owned()),
            ([_, "NextVersionIdMarker"], Step::Text(text)) => text.clone_into(&mut version_marker),
            _ => {}
        }
    })?;
    let decoded = |text: String| if encoded { form_decoded(&text) } else { text };
    for entry in &mut page.entries {
        entry.key = decoded(std::mem::take(&mut entry.key));
    }
    page.next = match (truncated, what) {
        (false, _) => None,
        (true, What::Objects) => token,
        (true, What::Versions) => {
            key_marker.map(|key| format!("{version_marker}/{}", decoded(key)))
        }
    };
    match truncated && page.next.is_none() {
        true => Err("it goes on, and does not say where".to_owned()),
        false => Ok(page),
    }
}

/// What a server says when it says no; empty when it does not say it in XML.
pub fn error(body: &[u8]) -> Said {
    let mut said = Said::default();
    let walked = walk(body, |path, event| {
        if let (Some(name), Step::Text(text)) = (path.last(), event) {
            match name.as_str() {
                "Code" => text.clone_into(&mut said.code),
                "Message" => text.clone_into(&mut said.message),
                _ => {}
            }
        }
    });
    walked.map(|()| said).unwrap_or_default()
}

fn empty(deleted: bool) -> Listed {
    Listed {
        key: String::new(),
        size: 0,
        etag: String::new(),
        modified_ms: 0,
        version: None,
        deleted,
        class: None,
    }
}

fn set(entry: &mut Listed, field: &str, text: &str) {
    match field {
        "Key" => text.clone_into(&mut entry.key),
        "Size" => entry.size = text.parse().unwrap_or(0),
        "ETag" => text.trim_matches('"').clone_into(&mut entry.etag),
        "VersionId" => entry.version = Some(text.to_owned()),
        "StorageClass" if text != "STANDARD" => entry.class = Some(text.to_owned()),
        "LastModified" => {
            let time = DateTime::parse_from_rfc3339(text);
            entry.modified_ms = time.map_or(0, |t| t.timestamp_millis());
        }
        _ => {}
    }
}

enum Step<'a> {
    Start,
    Text(&'a str),
    End,
}

/// Tells of every element with its path, and of its text before its end.
fn walk(body: &[u8], mut tell: impl FnMut(&[String], Step<'_>)) -> Result<(), String> {
    let mut reader = Reader::from_reader(body);
    let mut path: Vec<String> = Vec::new();
    let mut text = String::new();
    let mut buffer = Vec::new();
    loop {
        match reader
            .read_event_into(&mut buffer)
            .map_err(|e| e.to_string())?
        {
            Event::Start(start) => {
                let name = start.local_name();
                path.push(String::from_utf8_lossy(name.as_ref()).into_owned());
                text.clear();
                tell(&path, Step::Start);
            }
            Event::Text(part) => text.push_str(&part.decode().map_err(|e| e.to_string())?),
            Event::CData(part) => text.push_str(&part.decode().map_err(|e| e.to_string())?),
            Event::GeneralRef(entity) => text.push_str(&resolved(&entity)?),
            Event::End(_) => {
                if !text.is_empty() {
                    tell(&path, Step::Text(&text));
                }
                text.clear();
                tell(&path, Step::End);
                path.pop();
            }
            Event::Eof if path.is_empty() => return Ok(()),
            Event::Eof => return Err("it ends in the middle".to_owned()),
            _ => {}
        }
        buffer.clear();
    }
}

fn resolved(entity: &quick_xml::events::BytesRef<'_>) -> Result<String, String> {
    if let Some(character) = entity.resolve_char_ref().map_err(|e| e.to_string())? {
        return Ok(character.to_string());
    }
    let name = entity.decode().map_err(|e| e.to_string())?;
    quick_xml::escape::resolve_predefined_entity(&name)
        .map(str::to_owned)
        .ok_or_else(|| format!("`&{name};` is unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_with_odd_keys() {
        let body = br#"<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>
<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>
<NextContinuationToken>1/abc&amp;=</NextContinuationToken>
<Contents><Key>a+b%2Bc%0A.csv</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>
<ETag>&quot;abc-2&quot;</ETag><Size>12</Size><StorageClass>GLACIER</StorageClass></Contents>
<CommonPrefixes><Prefix>x/</Prefix></CommonPrefixes></ListBucketResult>"#;
        let page = page(body, What::Objects).unwrap();
        assert_eq!(page.next.as_deref(), Some("1/abc&="));
        let entry = &page.entries[0];
        assert_eq!(entry.key, "a b+c\n.csv");
        assert_eq!((entry.size, entry.etag.as_str()), (12, "abc-2"));
        assert_eq!(entry.modified_ms, 1_767_323_045_000);
        assert_eq!(entry.class.as_deref(), Some("GLACIER"));
    }

    #[test]
    fn versions_and_deletions_are_told_apart() {
        let body = br"<ListVersionsResult><IsTruncated>true</IsTruncated>
<NextKeyMarker>k/1</NextKeyMarker><NextVersionIdMarker>v9</NextVersionIdMarker>
<DeleteMarker><Key>k</Key><VersionId>v2</VersionId><IsLatest>true</IsLatest></DeleteMarker>
<Version><Key>k</Key><VersionId>v1</VersionId><ETag>e</ETag><Size>1</Size></Version>
</ListVersionsResult>";
        let page = page(body, What::Versions).unwrap();
        assert_eq!(page.next.as_deref(), Some("v9/k/1"));
        let seen: Vec<_> = page
            .entries
            .iter()
            .map(|e| (e.version.as_deref(), e.deleted))
            .collect();
        assert_eq!(seen, [(Some("v2"), true), (Some("v1"), false)]);
    }

    #[test]
    fn what_is_cut_short_is_no_listing() {
        assert!(page(b"<ListBucketResult><Contents>", What::Objects).is_err());
        assert_eq!(
            error(b"<Error><Code>NoSuchBucket</Code><Message>gone</Message></Error>").code,
            "NoSuchBucket"
        );
        assert_eq!(error(b"Bad gateway").code, "");
    }
}
