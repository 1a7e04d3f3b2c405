//! Extracts, shown with every default, in the YAML's own shape.

use super::units::{format_duration, format_size};
use crate::handlers::extract::{ApiOptions, Auth, Pages};
use serde_json::{Value, json};

/// With every default visible, in the YAML's own shape.
pub(super) fn shown(api: &ApiOptions) -> Value {
    json!({
        "url": api.url,
        "params": api.params,
        "headers": api.headers,
        "auth": auth(&api.auth),
        "records": api.records.to_string(),
        "pages": pages(&api.pages),
        "since": api.since.as_ref().map(|since| json!({
            "at": since.at.to_string(),
            "param": since.param,
            "start": since.start,
        })),
        "rate": api.rate,
        "timeout": format_duration(api.timeout),
        "max_page": format_size(api.max_page_bytes as u64),
        "allow_private": api.allow_private,
    })
}

fn auth(auth: &Auth) -> Value {
    match auth {
        Auth::None => Value::Null,
        Auth::Bearer(token) => json!({ "bearer": token }),
        Auth::Basic(user, password) => {
            json!({ "basic": { "user": user, "password": password } })
        }
        Auth::Header(name, value) => json!({ "header": { "name": name, "value": value } }),
        Auth::OAuth2 {
            token_url,
            client_id,
            client_secret,
            scope,
        } => json!({ "oauth2": {
            "token_url": token_url,
            "client_id": client_id,
            "client_secret": client_secret,
            "scope": scope,
        }}),
    }
}

fn pages(pages: &Pages) -> Value {
    let sized = |size: &Option<(String, u64)>| {
        let (param, size) = size.clone().unzip();
        (json!(param), json!(size))
    };
    match pages {
        Pages::One => Value::Null,
        Pages::Next(path) => json!({ "next": path.to_string() }),
        Pages::Link => json!({ "link": true }),
        Pages::Cursor { at, param } => {
            json!({ "cursor": { "at": at.to_string(), "param": param } })
        }
        Pages::Number { param, first, size } => {
            let (size_param, size) = sized(size);
            json!({ "number": {
                "param": param, "first": first, "size_param": size_param, "size": size,
            }})
        }
        Pages::Offset { param, size } => {
            let (size_param, size) = sized(size);
            json!({ "offset": { "param": param, "size_param": size_param, "size": size } })
        }
    }
}
