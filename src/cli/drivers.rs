//! `pointsman drivers`: what is built in.

use super::args::JsonArgs;
use super::table::table;
use super::{Answer, CliError, say};
use crate::drivers::{DRIVERS, Role};
use serde_json::{Value, json};

pub(super) fn drivers(args: &JsonArgs) -> Result<Answer, CliError> {
    if args.json {
        let all: Vec<Value> = DRIVERS
            .iter()
            .map(|driver| {
                let roles: Vec<&str> = driver.roles.iter().copied().map(Role::name).collect();
                json!({
                    "name": driver.name,
                    "summary": driver.summary,
                    "connection": driver.connection,
                    "roles": roles,
                })
            })
            .collect();
        return say(&json!(all).to_string()).map(|()| Answer::Yes);
    }
    let rows: Vec<Vec<String>> = DRIVERS
        .iter()
        .map(|driver| {
            let roles: Vec<&str> = driver.roles.iter().copied().map(Role::name).collect();
            vec![
                driver.name.to_owned(),
                roles.join(", "),
                driver.connection.unwrap_or("-").to_owned(),
                driver.summary.to_owned(),
            ]
        })
        .collect();
    for line in table(&["driver", "roles", "connection", "speaks with"], &rows) {
        say(&line)?;
    }
    Ok(Answer::Yes)
}
