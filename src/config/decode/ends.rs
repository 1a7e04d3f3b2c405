//! What lies outside: webhooks and programs, for rules, handlers and topics.

use crate::config::fields;
use crate::config::model::{Exec, Webhook, WebhookFormat};
use crate::config::read::{Field, Table};
use crate::config::yaml::Scalar;
use crate::error::{Diagnostic, codes};
use crate::handlers::circuit::CircuitOptions;
use crate::text::Text;
use base64::Engine as _;
use std::collections::BTreeMap;
use std::time::Duration;

/// Most bytes of a program's output that are kept.
const EXEC_OUTPUT_BYTES: usize = 64 * 1024;

/// An HTTP endpoint.
pub(in crate::config) fn webhook(field: &Field<'_>) -> Option<Webhook> {
    webhook_of(&field.table(&fields::WEBHOOK)?)
}

/// An HTTP endpoint that subscribes to a topic.
pub(in crate::config) fn subscribed_webhook(field: &Field<'_>) -> Option<Webhook> {
    let table = field.table(&fields::SUBSCRIBED_WEBHOOK)?;
    let formats = [
        WebhookFormat::Standard,
        WebhookFormat::Raw,
        WebhookFormat::Sns,
    ]
    .map(|format| (format.name(), format));
    let format = table.get("format").and_then(|f| f.choice(&formats));
    let format = format.unwrap_or(WebhookFormat::Standard);
    let confirm = table.bool_or("confirm", format == WebhookFormat::Sns);
    if confirm && format == WebhookFormat::Standard {
        let at = table
            .get("confirm")
            .map_or_else(|| field.key_place(), |f| f.place());
        let message = "`confirm` needs `format: sns` or `format: raw`";
        let diagnostic = Diagnostic::error(&codes::BAD_VALUE, message).at(at);
        field
            .report(diagnostic.hint("the request to confirm is SNS's; Standard Webhooks has none"));
    }
    Some(Webhook {
        format,
        confirm,
        ..webhook_of(&table)?
    })
}

fn webhook_of(table: &Table<'_>) -> Option<Webhook> {
    let url = table.need("url").and_then(|f| url_text(&f));
    let headers = table.get("headers").and_then(|f| headers(&f));
    let webhook = Webhook {
        url: url?,
        secret: table.get("secret").and_then(|f| secret(&f)),
        headers: headers.unwrap_or_default(),
        timeout: table.duration_or("timeout", Duration::from_secs(10)),
        allow_private: table.bool_or("allow_private", false),
        concurrency: table
            .get("concurrency")
            .and_then(|f| f.integer(1..=1_000))
            .map_or(10, |n| usize::try_from(n).unwrap_or(usize::MAX)),
        circuit: table
            .get("circuit")
            .and_then(|f| circuit(&f, &fields::CIRCUIT, 0, &CircuitOptions::default()))
            .unwrap_or_default(),
        format: WebhookFormat::Standard,
        confirm: false,
    };
    Some(webhook)
}

/// When nothing more is sent, after `least` failures or more; what is left out is as in
/// `default`.
pub(super) fn circuit(
    field: &Field<'_>,
    shape: &'static fields::Shape,
    least: u64,
    default: &CircuitOptions,
) -> Option<CircuitOptions> {
    let table = field.table(shape)?;
    let failures = table
        .get("failures")
        .and_then(|f| f.integer(least..=1_000_000))
        .map_or(default.failures, |n| u32::try_from(n).unwrap_or(u32::MAX));
    let pause = table.duration_or("pause", default.pause);
    Some(CircuitOptions {
        failures,
        pause,
        // A long first pause without a word about the limit means that pause.
        max_pause: table.duration_or("max_pause", default.max_pause.max(pause)),
    })
}

/// The address of an HTTP server.
pub(super) fn url(field: &Field<'_>) -> Option<String> {
    url_text(field).map(|url| url.reveal().to_owned())
}

pub(super) fn url_text(field: &Field<'_>) -> Option<Text> {
    let url = field.filled()?;
    let Some(reason) = url_reason(url.reveal()) else {
        return Some(url);
    };
    let message = format!("`{}` is not a URL: {reason}", url.shown());
    let diagnostic = field.error(&codes::BAD_URL, message);
    field.report(diagnostic.hint("write the whole address, like `https://example.com/hook`"));
    None
}

fn url_reason(url: &str) -> Option<String> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Some("`http://` or `https://` is missing".to_owned());
    };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Some("it is neither `http://` nor `https://`".to_owned());
    }
    if rest.split(['/', '?', '#']).next().is_none_or(str::is_empty) {
        return Some("the host is missing".to_owned());
    }
    url.parse::<http::Uri>()
        .err()
        .map(|error| error.to_string())
}

/// Standard Webhooks: `whsec_` and base64, or base64 alone.
fn secret(field: &Field<'_>) -> Option<Text> {
    let secret = field.filled()?;
    let key = secret
        .reveal()
        .strip_prefix("whsec_")
        .unwrap_or(secret.reveal());
    if base64::engine::general_purpose::STANDARD
        .decode(key)
        .is_ok()
    {
        return Some(secret);
    }
    let diagnostic = field.error(&codes::BAD_VALUE, "`secret` must be `whsec_` and base64");
    field.report(
        diagnostic.hint("make one with: printf 'whsec_%s' \"$(head -c 24 /dev/urandom | base64)\""),
    );
    None
}

pub(super) fn headers(field: &Field<'_>) -> Option<BTreeMap<String, Text>> {
    for entry in field.entries()? {
        if http::HeaderName::try_from(&entry.name).is_err() {
            let message = format!("`{}` is not the name of an HTTP header", entry.name);
            field.report(Diagnostic::error(&codes::BAD_VALUE, message).at(entry.key_place()));
        }
    }
    field.texts()
}

/// A program.
pub(in crate::config) fn exec(field: &Field<'_>) -> Option<Exec> {
    let table = field.table(&fields::EXEC)?;
    let env = table.get("env").and_then(|f| f.texts()).unwrap_or_default();
    let cwd = table.get("cwd").and_then(|f| f.path());
    let command = table.need("command")?;
    if matches!(command.item.scalar(), Some(Scalar::Text(_))) {
        let diagnostic = command.error(
            &codes::WRONG_TYPE,
            "`command` must be a list: there is no shell to split it",
        );
        command.report(
            diagnostic.hint("write the program and each argument by itself: `[python3, load.py]`"),
        );
        return None;
    }
    let fields = command.list()?;
    let words: Vec<_> = fields.iter().filter_map(Field::text).collect();
    if words
        .first()
        .is_none_or(|program| program.reveal().is_empty())
    {
        command.report(command.error(&codes::BAD_VALUE, "`command` needs a program"));
        return None;
    }
    Some(Exec {
        command: words,
        env,
        cwd: Some(cwd.unwrap_or_else(|| field.cx.root.to_path_buf())),
        max_output: EXEC_OUTPUT_BYTES,
    })
}
