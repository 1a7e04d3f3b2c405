//! `pointsman check`, `explain` and `schema`

use super::args::{At, SchemaCommand};
use super::client::connect;
use super::{Answer, CliError, colour, say, talk};
use crate::app;
use crate::config::Config;
use crate::error::{self, Diagnostic, Severity, render_all};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

#[derive(Args)]
pub(super) struct CheckArgs {
    /// Folder of the configuration.
    #[arg(value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Print JSON, one diagnostic a line.
    #[arg(long)]
    pub json: bool,
    /// Also try every connection, and every queue on a broker: is it there, can it be
    /// written and read, do its dead letters go somewhere. Makes nothing.
    #[arg(long)]
    pub connect: bool,
    #[arg(from_global)]
    pub dir: PathBuf,
}

#[derive(Args)]
pub(super) struct ExplainArgs {
    /// The code.
    pub code: String,
}

pub(super) async fn check(args: &CheckArgs) -> Result<Answer, CliError> {
    let root = args.root.as_deref().unwrap_or(&args.dir);
    let loaded = app::load(root);
    let mut found = loaded.diagnostics.clone();
    found.extend(loaded.test_diagnostics.iter().cloned());
    if let Some(config) = &loaded.config {
        let failed = app::run_rule_tests(config, &loaded);
        found.extend(failed.map_err(|e| CliError::new(e.to_string()))?);
    }
    if args.json {
        for diagnostic in &found {
            say(&json!(diagnostic).to_string())?;
        }
    } else if !found.is_empty() {
        talk(&render_all(&found, &loaded.sources, colour()));
    }
    let wrong = |d: &Diagnostic| d.severity == Severity::Error;
    if found.iter().any(wrong) {
        return Ok(Answer::No);
    }
    if let (Some(config), true) = (&loaded.config, args.connect)
        && !connects(config, args.json).await?
    {
        return Ok(Answer::No);
    }
    if let (Some(config), false) = (&loaded.config, args.json) {
        for (name, rule) in &config.rules {
            let complexity = rule.pattern.complexity();
            if complexity > 1 {
                say(&format!(
                    "rule {name}: wildcard complexity {complexity} of at most {}",
                    crate::rules::MAX_COMPLEXITY
                ))?;
            }
        }
        say(&format!(
            "{}: {} rules, {} handlers, {} topics, {} rule tests",
            if found.is_empty() {
                "all is well"
            } else {
                "it works, with warnings"
            },
            config.rules.len(),
            config.handlers.len(),
            config.topics.len(),
            loaded.tests.len()
        ))?;
    }
    Ok(Answer::Yes)
}

/// Tries what lies outside; whether all is well.
async fn connects(config: &Config, as_json: bool) -> Result<bool, CliError> {
    let probes = app::probe(config).await;
    for probe in &probes {
        if as_json {
            say(&json!(probe).to_string())?;
        } else {
            let wrong = if probe.ok { "" } else { "WRONG: " };
            say(&format!("{}: {wrong}{}", probe.what, probe.found))?;
        }
    }
    Ok(probes.iter().all(|probe| probe.ok))
}

pub(super) fn explain(args: &ExplainArgs) -> Result<Answer, CliError> {
    let Some(code) = error::find(&args.code) else {
        return Err(
            CliError::new(format!("there is no error code `{}`", args.code))
                .hint("codes look like P0101; docs/errors.md lists them"),
        );
    };
    say(&format!(
        "{}: {}\n\n{}",
        code.id,
        code.title,
        code.page.trim()
    ))?;
    Ok(Answer::Yes)
}

pub(super) async fn schema(at: &At, what: Option<SchemaCommand>) -> Result<Answer, CliError> {
    let schema = match what {
        None => crate::config::json_schema(),
        Some(SchemaCommand::Infer {
            source,
            detail_type,
            limit,
        }) => {
            let client = connect(at).await?;
            let query = [
                ("source", source),
                ("detail_type", detail_type),
                ("limit", limit.to_string()),
            ];
            let schema = client.get_json("/schema/infer", &query).await;
            client.close().await;
            schema?
        }
    };
    let text = serde_json::to_string_pretty(&schema).map_err(|e| CliError::new(e.to_string()))?;
    say(&text)?;
    Ok(Answer::Yes)
}
