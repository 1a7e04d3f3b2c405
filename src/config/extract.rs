//! Extracts, as they are used: an API with its secrets, and a transform.

use super::text::Text;
use super::units::{format_duration, format_size};
use crate::handlers::extract::{ApiOptions, Auth, ExtractOptions, JsonPath, Pages, Since};
use crate::handlers::transform::TransformOptions;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Records of an API into a table of the lake.
#[derive(Clone, Debug)]
pub struct Extract {
    /// The API.
    pub http: Api,
    /// What is made of its records.
    pub transform: Box<TransformOptions>,
}

/// An API that gives records in pages. Its texts are shown as references wherever
/// they are printed.
#[derive(Clone, Debug)]
pub struct Api {
    /// Address of the first page.
    pub url: Text,
    /// Parameters of the query.
    pub params: BTreeMap<String, Text>,
    /// Sent with every request.
    pub headers: BTreeMap<String, Text>,
    /// How we show who we are (default: not at all).
    pub auth: ApiAuth,
    /// Where in a page its records are.
    pub records: JsonPath,
    /// How the next page is found (default: there is one page).
    pub pages: Pages,
    /// Only what is new since the last run (default: everything).
    pub since: Option<Since>,
    /// Most requests per second (default: as fast as it goes).
    pub rate: Option<f64>,
    /// Longest time for one request (default 30 s).
    pub timeout: Duration,
    /// Largest page in bytes (default 64 MiB).
    pub max_page_bytes: usize,
    /// Allow addresses of private networks and of this machine (default false).
    pub allow_private: bool,
}

/// How we show who we are.
#[derive(Clone, Debug)]
pub enum ApiAuth {
    /// Not at all.
    None,
    /// A token.
    Bearer(Text),
    /// A user and a password.
    Basic(Text, Text),
    /// A header of the API's own, and its value.
    Header(String, Text),
    /// A token for our id and secret.
    OAuth2 {
        /// Where tokens are given.
        token_url: Text,
        /// Our id.
        client_id: Text,
        /// Our secret.
        client_secret: Text,
        /// What the token is for.
        scope: Option<String>,
    },
}

impl Extract {
    /// The extract with its secrets in the clear, for the part that runs it.
    #[must_use]
    pub fn options(&self) -> ExtractOptions {
        let revealed = |texts: &BTreeMap<String, Text>| {
            let texts = texts.iter();
            texts
                .map(|(name, text)| (name.clone(), text.reveal().to_owned()))
                .collect()
        };
        let http = &self.http;
        ExtractOptions {
            http: ApiOptions {
                url: http.url.reveal().to_owned(),
                params: revealed(&http.params),
                headers: revealed(&http.headers),
                auth: http.auth.options(),
                records: http.records.clone(),
                pages: http.pages.clone(),
                since: http.since.clone(),
                rate: http.rate,
                timeout: http.timeout,
                max_page_bytes: http.max_page_bytes,
                allow_private: http.allow_private,
            },
            transform: (*self.transform).clone(),
        }
    }
}

impl ApiAuth {
    fn options(&self) -> Auth {
        let clear = |text: &Text| text.reveal().to_owned();
        match self {
            Self::None => Auth::None,
            Self::Bearer(token) => Auth::Bearer(clear(token)),
            Self::Basic(user, password) => Auth::Basic(clear(user), clear(password)),
            Self::Header(name, value) => Auth::Header(name.clone(), clear(value)),
            Self::OAuth2 {
                token_url,
                client_id,
                client_secret,
                scope,
            } => Auth::OAuth2 {
                token_url: clear(token_url),
                client_id: clear(client_id),
                client_secret: clear(client_secret),
                scope: scope.clone(),
            },
        }
    }

    fn shown(&self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Bearer(token) => json!({ "bearer": token }),
            Self::Basic(user, password) => {
                json!({ "basic": { "user": user, "password": password } })
            }
            Self::Header(name, value) => json!({ "header": { "name": name, "value": value } }),
            Self::OAuth2 {
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
}

impl Api {
    /// With every default visible, in the YAML's own shape.
    pub(super) fn shown(&self) -> Value {
        json!({
            "url": self.url,
            "params": self.params,
            "headers": self.headers,
            "auth": self.auth.shown(),
            "records": self.records.to_string(),
            "pages": pages(&self.pages),
            "since": self.since.as_ref().map(|since| json!({
                "at": since.at.to_string(),
                "param": since.param,
                "start": since.start,
            })),
            "rate": self.rate,
            "timeout": format_duration(self.timeout),
            "max_page": format_size(self.max_page_bytes as u64),
            "allow_private": self.allow_private,
        })
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
