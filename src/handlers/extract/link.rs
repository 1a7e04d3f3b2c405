//! The `Link` header of a page (RFC 8288).

use reqwest::header::{HeaderMap, LINK};

/// The address of the next page.
pub(super) fn next(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(LINK).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .find_map(next_in)
}

fn next_in(value: &str) -> Option<String> {
    let mut rest = value;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (address, after) = after.split_once('>')?;
        // The parameters reach to the comma before the next `<`.
        let end = after.find('<').unwrap_or(after.len());
        let (parameters, next) = after.split_at(end);
        if parameters.split([';', ',']).any(is_next) {
            return Some(address.trim().to_owned());
        }
        rest = next;
    }
}

/// `rel=next`, `rel="next"`, `rel="next last"`.
fn is_next(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else {
        return false;
    };
    let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
    name.trim().eq_ignore_ascii_case("rel") && relations.any(|r| r.eq_ignore_ascii_case("next"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_link_is_found_among_others() {
        let found = |text| next_in(text);
        let github = r#"<https://a/x?page=1>; rel="prev", <https://a/x?page=3,4>; rel="next", <https://a/x?page=9>; rel="last""#;
        assert_eq!(found(github).as_deref(), Some("https://a/x?page=3,4"));
        assert_eq!(found("</n>; title=t; rel=next").as_deref(), Some("/n"));
        assert_eq!(found(r#"</n>; rel="last Next""#).as_deref(), Some("/n"));
        assert_eq!(found(r#"</n>; rel="last""#), None);
        assert_eq!(found("nothing"), None);
    }
}
