//! `pointsman query`

use super::args::{At, QueryArgs, QueryFormat};
use super::client::connect;
use super::{Answer, CliError};
use serde_json::json;
use std::io::Write;

pub(super) async fn query(at: &At, args: &QueryArgs) -> Result<Answer, CliError> {
    let client = connect(at).await?;
    let format = match args.format {
        QueryFormat::Table => "table",
        QueryFormat::Csv => "csv",
        QueryFormat::Json => "json",
    };
    let request = json!({ "sql": args.sql, "limit": args.limit, "format": format });
    let answer = client
        .post("/query", request.to_string().into_bytes())
        .await;
    client.close().await;
    std::io::stdout().lock().write_all(&answer?)?;
    Ok(Answer::Yes)
}
