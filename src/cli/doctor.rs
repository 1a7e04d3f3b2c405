//! `pointsman doctor`

use super::args::{At, DoctorArgs};
use super::client::load;
use super::table::table;
use super::{Answer, CliError, say};
use crate::bus::{BusError, DoctorReport, SegmentReport, doctor as examine};
use crate::config::format_size;
use crate::state;
use crate::storage::Real;
use serde_json::json;

pub(super) fn doctor(at: &At, args: &DoctorArgs) -> Result<Answer, CliError> {
    if at.url.is_some() {
        return Err(
            CliError::new("the doctor looks at a folder, not at an address")
                .hint("run it where the data is: `pointsman doctor --data DIR`"),
        );
    }
    let data = match &args.data {
        Some(data) => data.clone(),
        None => load(&at.dir)?.node.data,
    };
    let log = data.join("bus");
    if !log.is_dir() {
        return Err(
            CliError::new(format!("there is no log in {}", data.display()))
                .hint("--data names the folder that has `bus/` in it"),
        );
    }
    let report = examine(&log, &Real::shared(), args.repair).map_err(|error| match error {
        BusError::InUse { .. } => CliError::new(format!("a node runs here: {error}"))
            .hint("stop it first; what a running node knows of damage, `pointsman audit` tells"),
        other => CliError::new(other.to_string()),
    })?;
    let side = state::check(&data.join("state.sqlite"));
    let side = side.map_err(|e| CliError::new(e.to_string()))?;
    let sound = report.sound() && side.is_empty();
    if args.json {
        let answer = json!({ "sound": sound, "log": report, "side_state": side });
        say(&answer.to_string())?;
    } else {
        print(&report, &side, args.repair)?;
    }
    Ok(if sound { Answer::Yes } else { Answer::No })
}

fn print(report: &DoctorReport, side: &[String], repair: bool) -> Result<(), CliError> {
    let last = report.segments.last().map(|segment| segment.id);
    let rows: Vec<Vec<String>> = report
        .segments
        .iter()
        .map(|segment| row(segment, Some(segment.id) == last))
        .collect();
    for line in table(
        &["segment", "size", "records", "events", "numbers", "index"],
        &rows,
    ) {
        say(&line)?;
    }
    for damage in &report.damage {
        let lost = if damage.is_loss() { "LOST: " } else { "" };
        say(&format!("{lost}{damage}"))?;
    }
    if report.torn_bytes > 0 {
        say(&format!(
            "{} bytes of an unfinished write at the end; nobody was told that they are kept",
            report.torn_bytes
        ))?;
    }
    for problem in side {
        say(&format!("side state: {problem}"))?;
    }
    for done in &report.repaired {
        say(&format!("repaired: {done}"))?;
    }
    let events: u64 = report.segments.iter().map(|segment| segment.events).sum();
    let left = match (repair, report.torn_bytes > 0 || !report.damage.is_empty()) {
        (false, true) => "; `pointsman doctor --repair` repairs what is safe",
        _ => "",
    };
    if report.sound() && side.is_empty() {
        return say(&format!(
            "sound: {} segments with {events} events, every checksum holds{left}",
            report.segments.len()
        ));
    }
    say(&format!(
        "DAMAGED: what is named above; {events} other events are sound and are served{left}"
    ))
}

fn row(segment: &SegmentReport, open: bool) -> Vec<String> {
    vec![
        segment.id.to_string(),
        format_size(segment.bytes),
        segment.records.to_string(),
        segment.events.to_string(),
        segment
            .seqs
            .map_or("-".to_owned(), |(first, last)| format!("{first} to {last}")),
        match (open, segment.index_sound) {
            (true, _) => "-",
            (false, true) => "sound",
            (false, false) => "missing; built again at the next start",
        }
        .to_owned(),
    ]
}
