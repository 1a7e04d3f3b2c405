//! What can be said of an extract, as it is used.

use super::path::JsonPath;
use crate::handlers::transform::TransformOptions;
use crate::text::Text;
use std::collections::BTreeMap;
use std::time::Duration;

/// An extract: an API, and what becomes of its records.
#[derive(Clone, Debug)]
pub struct ExtractOptions {
    /// Where the records come from.
    pub http: ApiOptions,
    /// What is made of them. It reads NDJSON.
    pub transform: Box<TransformOptions>,
}

/// An API that gives records in pages. Its texts are shown as references wherever
/// they are printed.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// Address of the first page.
    pub url: Text,
    /// Parameters of the query, sent with every page but those whose address the
    /// API names itself.
    pub params: BTreeMap<String, Text>,
    /// Sent with every request.
    pub headers: BTreeMap<String, Text>,
    /// How we show who we are (default: not at all).
    pub auth: Auth,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    None,
    /// `Authorization: Bearer TOKEN`.
    Bearer(Text),
    /// A user and a password.
    Basic(Text, Text),
    /// A header of the API's own, and its value.
    Header(String, Text),
    /// A token for our id and secret, fetched again before it ends
    /// (RFC 6749, 4.4).
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

/// How the next page is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pages {
    /// There is one page.
    One,
    /// The page has the address of the next one; none, or null: it was the last.
    Next(JsonPath),
    /// The `Link` header has it, as `rel="next"` (RFC 8288).
    Link,
    /// The page has a value that is sent for the next one; none, null or empty:
    /// it was the last.
    Cursor {
        /// Where in the page it is.
        at: JsonPath,
        /// The parameter that it is sent as.
        param: String,
    },
    /// Pages have numbers. A page without records, or with fewer than the size,
    /// is the last.
    Number {
        /// The parameter.
        param: String,
        /// The number of the first page.
        first: u64,
        /// Parameter and value of the size, where it is sent.
        size: Option<(String, u64)>,
    },
    /// Pages begin after a number of records.
    Offset {
        /// The parameter.
        param: String,
        /// Parameter and value of the size, where it is sent.
        size: Option<(String, u64)>,
    },
}

/// Only what is new since the last run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since {
    /// Where in a record its time or number is.
    pub at: JsonPath,
    /// The parameter that the greatest one so far is sent as.
    pub param: String,
    /// What the first run sends; `None`: the first run asks for everything.
    pub start: Option<String>,
}
