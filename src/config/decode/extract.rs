//! Extracts: an API, and a transform of its records.

use super::{ends, transform};
use crate::config::fields::{self, AUTH_KINDS, PAGES_KINDS};
use crate::config::read::{Field, Table};
use crate::config::yaml::shorten;
use crate::error::{Diagnostic, codes};
use crate::handlers::extract::{ApiOptions, Auth, ExtractOptions, JsonPath, Pages, Since};
use crate::handlers::transform::{Format, Input};
use std::time::Duration;

pub(super) fn extract(field: &Field<'_>) -> Option<ExtractOptions> {
    let table = field.table(&fields::EXTRACT)?;
    let http = table.need("http").and_then(|f| api(&f));
    let mut transform = transform::transform_of(&table)?;
    let read = table.get("read").and_then(|f| f.table(&fields::READ));
    if let Some(read) = &read {
        // Records are lines of JSON; what is said of files is said in vain.
        for name in transform::FILE_FIELDS {
            if let Some(field) = read.get(name).filter(|_| name != "drift") {
                let message = format!("`{name}` has no effect in an extract");
                field.report(Diagnostic::warning(&codes::NO_EFFECT, message).at(field.key_place()));
            }
        }
        if let (Input::Events | Input::Publication, Some(field)) =
            (transform.read.input, read.get("input"))
        {
            let message = "an extract reads what the API answers, not events";
            field.report(field.error(&codes::BAD_VALUE, message));
        }
    }
    transform.read.format = Some(Format::Ndjson);
    Some(ExtractOptions {
        http: http?,
        transform: Box::new(transform),
    })
}

fn api(field: &Field<'_>) -> Option<ApiOptions> {
    let table = field.table(&fields::API)?;
    let url = table.need("url").and_then(|f| ends::url_text(&f));
    let records = match table.get("records") {
        Some(field) => path(&field),
        None => "$[*]".parse().ok(),
    };
    let auth = table.get("auth").map(|f| auth(&f));
    let pages = table.get("pages").map(|f| pages(&f));
    let since = table.get("since").map(|f| since(&f));
    let headers = table.get("headers").and_then(|f| ends::headers(&f));
    let max_page = table.get("max_page").and_then(|f| match f.size() {
        Some(0) => {
            f.report(f.error(&codes::BAD_VALUE, "`max_page` must be above 0"));
            None
        }
        size => size,
    });
    let max_page = max_page.and_then(|bytes| usize::try_from(bytes).ok());
    Some(ApiOptions {
        url: url?,
        params: table
            .get("params")
            .and_then(|f| f.texts())
            .unwrap_or_default(),
        headers: headers.unwrap_or_default(),
        auth: match auth {
            None => Auth::None,
            Some(auth) => auth?,
        },
        records: records?,
        pages: match pages {
            None => Pages::One,
            Some(pages) => pages?,
        },
        since: match since {
            None => None,
            Some(since) => Some(since?),
        },
        rate: table.get("rate").and_then(|f| f.positive()),
        timeout: table.duration_or("timeout", Duration::from_secs(30)),
        max_page_bytes: max_page.unwrap_or(64 << 20),
        allow_private: table.bool_or("allow_private", false),
    })
}

fn path(field: &Field<'_>) -> Option<JsonPath> {
    let text = field.string()?;
    match text.parse() {
        Ok(path) => Some(path),
        Err(error) => {
            let message = format!("`{}` is not a path: {error}", shorten(&text));
            let diagnostic = field.error(&codes::BAD_VALUE, message);
            field.report(diagnostic.hint("write it like `$.data.items[*]` or `$['next page']`"));
            None
        }
    }
}

fn auth(field: &Field<'_>) -> Option<Auth> {
    let kind = field.table(&fields::AUTH)?.one_of(&AUTH_KINDS)?;
    let need = |table: &Table<'_>, name: &str| table.need(name).and_then(|f| f.secret());
    match kind.name.as_str() {
        "bearer" => kind.secret().map(Auth::Bearer),
        "basic" => {
            let table = kind.table(&fields::BASIC)?;
            let (user, password) = (need(&table, "user"), need(&table, "password"));
            Some(Auth::Basic(user?, password?))
        }
        "header" => {
            let table = kind.table(&fields::OWN_HEADER)?;
            let value = need(&table, "value");
            let name = table.need("name").and_then(|f| {
                let name = f.string()?;
                if http::HeaderName::try_from(&name).is_err() {
                    let message = format!("`{name}` is not the name of an HTTP header");
                    f.report(f.error(&codes::BAD_VALUE, message));
                    return None;
                }
                Some(name)
            });
            Some(Auth::Header(name?, value?))
        }
        _ => {
            let table = kind.table(&fields::OAUTH2)?;
            let token_url = table.need("token_url").and_then(|f| ends::url_text(&f));
            let (id, secret) = (need(&table, "client_id"), need(&table, "client_secret"));
            Some(Auth::OAuth2 {
                token_url: token_url?,
                client_id: id?,
                client_secret: secret?,
                scope: table.string("scope"),
            })
        }
    }
}

fn pages(field: &Field<'_>) -> Option<Pages> {
    let kind = field.table(&fields::PAGES)?.one_of(&PAGES_KINDS)?;
    match kind.name.as_str() {
        "next" => path(&kind).map(Pages::Next),
        "link" => match kind.bool()? {
            true => Some(Pages::Link),
            false => Some(Pages::One),
        },
        "cursor" => {
            let table = kind.table(&fields::CURSOR)?;
            Some(Pages::Cursor {
                param: table.string_or("param", "cursor"),
                at: table.need("at").and_then(|f| path(&f))?,
            })
        }
        "number" => {
            let table = kind.table(&fields::NUMBER)?;
            let first = table.get("first").and_then(|f| f.integer(0..=1_000_000));
            Some(Pages::Number {
                param: table.string_or("param", "page"),
                first: first.unwrap_or(1),
                size: size(&table)?,
            })
        }
        _ => {
            let table = kind.table(&fields::OFFSET)?;
            Some(Pages::Offset {
                param: table.string_or("param", "offset"),
                size: size(&table)?,
            })
        }
    }
}

/// Parameter and value of the size of a page; the outer `None` is a mistake.
#[allow(clippy::option_option)]
fn size(table: &Table<'_>) -> Option<Option<(String, u64)>> {
    let (param, size) = (table.get("size_param"), table.get("size"));
    match (param, size) {
        (None, None) => Some(None),
        (Some(param), Some(size)) => Some(Some((param.string()?, size.integer(1..=1_000_000)?))),
        (Some(one), None) | (None, Some(one)) => {
            let message = "`size` and `size_param` belong together";
            let diagnostic = Diagnostic::error(&codes::MISSING_FIELD, message);
            one.report(diagnostic.at(one.key_place()));
            None
        }
    }
}

fn since(field: &Field<'_>) -> Option<Since> {
    let table = field.table(&fields::SINCE)?;
    let start = table.get("start").and_then(|f| f.text());
    Some(Since {
        at: table.need("at").and_then(|f| path(&f))?,
        param: table.string_or("param", "since"),
        start: start.map(|text| text.reveal().to_owned()),
    })
}
