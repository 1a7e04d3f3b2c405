//! `pointsman query` and `pointsman maintain`

use super::args::{At, MaintainArgs, QueryArgs, QueryFormat};
use super::client::connect;
use super::{Answer, CliError};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};

pub(super) async fn query(at: &At, args: &QueryArgs) -> Result<Answer, CliError> {
    let format = match args.format {
        QueryFormat::Table => "table",
        QueryFormat::Csv => "csv",
        QueryFormat::Json => "json",
        QueryFormat::Parquet => "parquet",
    };
    let shown = args.output.is_none() && std::io::stdout().is_terminal();
    if format == "parquet" && shown && !args.explain {
        return Err(CliError::new("a Parquet file is not for the terminal")
            .hint("write it to a file: `--output answer.parquet`"));
    }
    let client = connect(at).await?;
    let request = json!({
        "sql": args.sql,
        "limit": args.limit,
        "format": format,
        "timeout_seconds": args.timeout.as_secs().max(1),
        "explain": args.explain,
    });
    let answer = client
        .post("/query", request.to_string().into_bytes())
        .await;
    client.close().await;
    match &args.output {
        None => std::io::stdout().lock().write_all(&answer?)?,
        Some(path) => std::fs::write(path, answer?)
            .map_err(|e| CliError::new(format!("{} cannot be written: {e}", path.display())))?,
    }
    Ok(Answer::Yes)
}

pub(super) async fn maintain(at: &At, args: &MaintainArgs) -> Result<Answer, CliError> {
    let client = connect(at).await?;
    let request = json!({ "tables": args.tables, "keep_seconds": args.keep.as_secs() });
    let answer = client
        .post("/maintain", request.to_string().into_bytes())
        .await;
    client.close().await;
    let answer = answer?;
    let mut out = std::io::stdout().lock();
    if args.json {
        out.write_all(&answer)?;
        writeln!(out)?;
        return Ok(Answer::Yes);
    }
    let tables: Vec<Value> = serde_json::from_slice(&answer)
        .map_err(|e| CliError::new(format!("the node's answer is not understood: {e}")))?;
    for table in tables {
        let name = table["table"].as_str().unwrap_or_default();
        let (compacted, removed) = (&table["compacted"], &table["removed"]);
        writeln!(
            out,
            "{name}: {compacted} small files put together, {removed} old files removed"
        )?;
    }
    Ok(Answer::Yes)
}
