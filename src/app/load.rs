//! A configuration with every check that the parts can make of it.

use super::wiring;
use crate::bus::RouteId;
use crate::clock::{self, SharedClock};
use crate::config::{Checker, Config, Loaded, run_tests};
use crate::error::{Diagnostic, codes};
use crate::handlers::transform::check_sql;
use crate::router::{Table, TableError};
use std::path::Path;

/// Reads the configuration below `root` and checks all of it, SQL included.
#[must_use]
pub fn load(root: &Path) -> Loaded {
    let mut loaded = Config::load(root, &|name| std::env::var(name).ok());
    loaded.check(&[&SqlChecker]);
    loaded
}

/// Plans each transform's SQL against the declared schema.
struct SqlChecker;

impl Checker for SqlChecker {
    fn check(&self, config: &Config) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        for (name, handler) in &config.handlers {
            let Some(options) = handler.kind.transform() else {
                continue;
            };
            if let Err(problem) = check_sql(options) {
                let sql = options.sql.as_deref().unwrap_or_default();
                let mut diagnostic = Diagnostic::error(
                    &codes::BAD_SQL,
                    format!("the SQL of handler `{name}` cannot be planned: {problem}"),
                );
                let part = match &problem.view {
                    None => "sql".to_owned(),
                    Some((view, _)) => format!("views.{view}"),
                };
                diagnostic.place =
                    config.place(&format!("handlers.{name}.{}.{part}", handler.kind.name()));
                diagnostic.notes.push(problem.shown_in(sql));
                found.push(diagnostic);
            }
        }
        found
    }
}

/// The compiled rules of a configuration without a log: routes are numbered in
/// order. For `check` and `match`.
///
/// # Errors
/// When a rule cannot be compiled.
pub fn table_of(config: &Config) -> Result<Table, TableError> {
    let clock: SharedClock = clock::system();
    let routes = wiring::route_names(config)
        .into_iter()
        .zip(0..)
        .map(|((name, _), id)| (name, RouteId(id)))
        .collect();
    wiring::table(config, &routes, &clock)
}

/// Runs the tests beside the rules; one diagnostic per test that fails.
///
/// # Errors
/// When a rule cannot be compiled.
pub fn run_rule_tests(config: &Config, loaded: &Loaded) -> Result<Vec<Diagnostic>, TableError> {
    let table = table_of(config)?;
    let known: Vec<String> = wiring::route_names(config)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let buses = config.buses();
    Ok(run_tests(&loaded.tests, &known, &|event| {
        let mut routes: Vec<String> = buses
            .iter()
            .flat_map(|bus| table.routes(bus, event).unwrap_or_default())
            .collect();
        routes.sort();
        routes
    }))
}
