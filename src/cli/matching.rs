//! `pointsman match`

use super::args::MatchArgs;
use super::{Answer, CliError, say};
use crate::app;
use crate::rules::{self, Pattern};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::io::{self, BufRead, BufWriter, Read, Write};
use std::path::Path;

pub(super) fn run(args: &MatchArgs) -> Result<Answer, CliError> {
    if args.batch {
        return batch();
    }
    let event = match &args.event {
        Some(text) => file_or_text(text)?,
        None => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text)?;
            text
        }
    };
    match (&args.pattern, &args.rules) {
        (Some(pattern), None) => one(args, &file_or_text(pattern)?, &event),
        (None, Some(folder)) => of_rules(args, folder, &event),
        _ => Err(CliError::new("give either --pattern or --rules")
            .hint("`pointsman match --rules . --event @event.json` tries every rule")),
    }
}

/// The text itself, or the content of the file behind `@`.
fn file_or_text(given: &str) -> Result<String, CliError> {
    match given.strip_prefix('@') {
        None => Ok(given.to_owned()),
        Some(path) => std::fs::read_to_string(path)
            .map_err(|e| CliError::new(format!("cannot read {path}: {e}"))),
    }
}

fn one(args: &MatchArgs, pattern: &str, event: &str) -> Result<Answer, CliError> {
    let pattern = Pattern::parse(pattern)
        .map_err(|e| CliError::new(format!("event pattern is not valid: {e}")))?;
    let matched = rules::matches(&pattern, event.as_bytes())
        .map_err(|e| CliError::new(format!("the event: {e}")))?;
    if args.explain {
        let explained = rules::explain(&pattern, event.as_bytes())
            .map_err(|e| CliError::new(format!("the event: {e}")))?;
        if args.json {
            say(&serde_json::json!(explained).to_string())?;
        } else {
            say(explained.to_string().trim_end())?;
        }
    } else if args.json {
        say(&serde_json::json!({ "match": matched }).to_string())?;
    } else {
        say(if matched { "match" } else { "no match" })?;
    }
    Ok(if matched { Answer::Yes } else { Answer::No })
}

/// Every rule of a folder: those that match, and with `--explain` or `--near`
/// why the others do not, the closest first.
fn of_rules(args: &MatchArgs, folder: &Path, event: &str) -> Result<Answer, CliError> {
    let config = super::client::load(folder)?;
    let table = app::table_of(&config).map_err(|e| CliError::new(e.to_string()))?;
    let mut explained = Vec::new();
    for (name, pattern) in table.patterns(&args.bus) {
        let why = rules::explain(pattern, event.as_bytes())
            .map_err(|e| CliError::new(format!("the event: {e}")))?;
        explained.push((name, why));
    }
    explained.sort_by(|(a, x), (b, y)| x.distance().cmp(&y.distance()).then(a.cmp(b)));
    let any = explained.iter().any(|(_, why)| why.matched);
    let shown = args
        .near
        .unwrap_or(if args.explain { usize::MAX } else { 0 });
    let near = explained.iter().filter(|(_, why)| !why.matched).take(shown);
    let chosen = explained.iter().filter(|(_, why)| why.matched).chain(near);
    for (name, why) in chosen {
        if args.json {
            say(&serde_json::json!({ "rule": name, "explanation": why }).to_string())?;
        } else if shown > 0 {
            say(&format!("rule {name}: {}", why.to_string().trim_end()))?;
        } else {
            say(name)?;
        }
    }
    Ok(if any { Answer::Yes } else { Answer::No })
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    pattern: &'a RawValue,
    #[serde(borrow)]
    event: &'a RawValue,
}

/// NDJSON in, NDJSON out, in order, a line at a time.
fn batch() -> Result<Answer, CliError> {
    let mut input = io::stdin().lock();
    let mut output = BufWriter::new(io::stdout().lock());
    let mut line = Vec::new();
    let mut number = 0_u64;
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        number += 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match serde_json::from_slice::<Line<'_>>(&line) {
            Ok(asked) => writeln!(output, "{{\"id\":{},{}}}", asked.id.get(), answer(&asked))?,
            Err(error) => {
                let why = format!("line {number}: {error}");
                writeln!(
                    output,
                    "{}",
                    serde_json::json!({ "id": null, "invalid": why })
                )?;
            }
        }
    }
    output.flush()?;
    Ok(Answer::Yes)
}

/// `"match":true`, or `"invalid":"why"`; both, and the complexity, if nothing
/// but its wildcard complexity keeps the pattern from being accepted: such a
/// pattern has an answer, but no rule can have it.
fn answer(asked: &Line<'_>) -> String {
    let pattern = raw(asked.pattern);
    let answered = match Pattern::parse(&pattern) {
        Ok(pattern) => matches(&pattern, asked).map(|matched| format!("\"match\":{matched}")),
        Err(refused) => match Pattern::parse_unlimited(&pattern) {
            Ok(pattern) => matches(&pattern, asked).map(|matched| {
                let (complexity, why) = (pattern.complexity(), refused.to_string());
                let why = serde_json::json!(why);
                format!("\"match\":{matched},\"complexity\":{complexity},\"invalid\":{why}")
            }),
            Err(_) => Err(refused.to_string()),
        },
    };
    answered.unwrap_or_else(|why| format!("\"invalid\":{}", serde_json::json!(why)))
}

fn matches(pattern: &Pattern, asked: &Line<'_>) -> Result<bool, String> {
    rules::matches(pattern, raw(asked.event).as_bytes()).map_err(|e| e.to_string())
}

/// The raw text; where the member is a string, its content.
fn raw(value: &RawValue) -> Cow<'_, str> {
    let text = value.get();
    if text.starts_with('"')
        && let Ok(inner) = serde_json::from_str::<String>(text)
    {
        return Cow::Owned(inner);
    }
    Cow::Borrowed(text)
}
