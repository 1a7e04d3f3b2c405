//! Extracts: an API, and what becomes of its records.

use super::Kind::{Bool, Duration, Integer, Number, Size, Table, Text, Texts};
use super::handlers::{PARAMS, READ_FIELD, SQL, TABLES, VIEWS, WRITE_FIELD};
use super::{FieldSpec, Shape, field};

/// Ways to show who we are.
pub(in crate::config) const AUTH_KINDS: [&str; 4] = ["bearer", "basic", "header", "oauth2"];

/// Ways from one page to the next.
pub(in crate::config) const PAGES_KINDS: [&str; 5] = ["next", "link", "cursor", "number", "offset"];

pub(in crate::config) static EXTRACT: Shape = Shape {
    title: "an extract",
    fields: &[
        field(
            "http",
            Table(&API),
            "",
            "the API that is asked, page by page",
        ),
        READ_FIELD,
        TABLES,
        VIEWS,
        PARAMS,
        SQL,
        WRITE_FIELD,
    ],
};

pub(in crate::config) static API: Shape = Shape {
    title: "`http`",
    fields: &[
        field("url", Text, "", "address of the first page"),
        field(
            "params",
            Texts,
            "{}",
            "parameters of the query, sent with every page but those whose address the API names",
        ),
        field("headers", Texts, "{}", "sent with every request"),
        field(
            "auth",
            Table(&AUTH),
            "",
            "how we show who we are (default: not at all)",
        ),
        field(
            "records",
            Text,
            "\"$[*]\"",
            "where in a page its records are: a path of names, positions and `[*]`, like `$.data[*]`",
        ),
        field(
            "pages",
            Table(&PAGES),
            "",
            "how the next page is found (default: there is one page)",
        ),
        field(
            "since",
            Table(&SINCE),
            "",
            "ask only for what is new since the last run (default: everything)",
        ),
        field(
            "rate",
            Number,
            "",
            "requests per second at most (default: as fast as it goes)",
        ),
        field("timeout", Duration, "30s", "longest time for one request"),
        field("max_page", Size, "64MiB", "largest page"),
        field(
            "allow_private",
            Bool,
            "false",
            "allow addresses of private networks and of this machine",
        ),
    ],
};

pub(in crate::config) static AUTH: Shape = Shape {
    title: "`auth`",
    fields: &[
        field(
            "bearer",
            Text,
            "",
            "a token, sent as `Authorization: Bearer`",
        ),
        field("basic", Table(&BASIC), "", "a user and a password"),
        field(
            "header",
            Table(&OWN_HEADER),
            "",
            "a header of the API's own",
        ),
        field(
            "oauth2",
            Table(&OAUTH2),
            "",
            "a token that is given for our id and secret (client credentials)",
        ),
    ],
};

pub(in crate::config) static BASIC: Shape = Shape {
    title: "`basic`",
    fields: &[
        field("user", Text, "", "the user"),
        field("password", Text, "", "the password"),
    ],
};

pub(in crate::config) static OWN_HEADER: Shape = Shape {
    title: "`header`",
    fields: &[
        field("name", Text, "", "name of the header, like `X-Api-Key`"),
        field("value", Text, "", "its value"),
    ],
};

pub(in crate::config) static OAUTH2: Shape = Shape {
    title: "`oauth2`",
    fields: &[
        field("token_url", Text, "", "where tokens are given"),
        field("client_id", Text, "", "our id"),
        field("client_secret", Text, "", "our secret"),
        field("scope", Text, "", "what the token is for"),
    ],
};

pub(in crate::config) static PAGES: Shape = Shape {
    title: "`pages`",
    fields: &[
        field(
            "next",
            Text,
            "",
            "where in a page the address of the next one is; none or null: it was the last",
        ),
        field(
            "link",
            Bool,
            "",
            "`true`: the `Link` header has the address of the next page, as `rel=\"next\"`",
        ),
        field(
            "cursor",
            Table(&CURSOR),
            "",
            "a value of the page is sent as a parameter of the next one",
        ),
        field("number", Table(&NUMBER), "", "pages have numbers"),
        field(
            "offset",
            Table(&OFFSET),
            "",
            "pages begin after a number of records",
        ),
    ],
};

pub(in crate::config) static CURSOR: Shape = Shape {
    title: "`cursor`",
    fields: &[
        field(
            "at",
            Text,
            "",
            "where in a page it is; none, null or empty: it was the last page",
        ),
        field("param", Text, "cursor", "the parameter that it is sent as"),
    ],
};

const SIZE_PARAM: FieldSpec = field(
    "size_param",
    Text,
    "",
    "the parameter that `size` is sent as",
);
const SIZE: FieldSpec = field(
    "size",
    Integer(1, 1_000_000),
    "",
    "records of a page; a page with fewer is the last (default: a page without any)",
);

pub(in crate::config) static NUMBER: Shape = Shape {
    title: "`number`",
    fields: &[
        field("param", Text, "page", "the parameter"),
        field("first", Integer(0, 1_000_000), "1", "the first page's"),
        SIZE_PARAM,
        SIZE,
    ],
};

pub(in crate::config) static OFFSET: Shape = Shape {
    title: "`offset`",
    fields: &[
        field("param", Text, "offset", "the parameter"),
        SIZE_PARAM,
        SIZE,
    ],
};

pub(in crate::config) static SINCE: Shape = Shape {
    title: "`since`",
    fields: &[
        field(
            "at",
            Text,
            "",
            "where in a record its time or number is, like `$.updated_at`",
        ),
        field(
            "param",
            Text,
            "since",
            "the parameter that the greatest one so far is sent as",
        ),
        field(
            "start",
            Text,
            "",
            "what the first run sends (default: it asks for everything)",
        ),
    ],
};
