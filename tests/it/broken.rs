//! Broken inputs at run time: each ends in a clear error that names the place
//! and the way out; none panics, none is silent, none stops the others. (Broken
//! configurations are in `diagnostics`.)

use crate::support::{Project, text};
use std::fmt::Write as _;
use std::fs;
use std::process::Output;

/// The shipped pipeline without its samples, giving up after two attempts.
fn pipeline() -> Project {
    let project = Project::shipped();
    let samples = project.path("examples/flights/inbox");
    for entry in fs::read_dir(&samples).expect("the samples") {
        fs::remove_file(entry.expect("an entry").path()).expect("a removal");
    }
    let rules = fs::read_to_string(project.path("rules/flights.yaml")).expect("the rules");
    let quick = "    retry: { attempts: 2, base: 10ms, cap: 10ms }\n";
    let rules = rules
        .replacen("    transform:\n", &format!("{quick}    transform:\n"), 1)
        .replacen("    load:\n", &format!("{quick}    load:\n"), 1);
    project.write("rules/flights.yaml", rules);
    project
}

const GOOD: &str = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour\n\
2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z\n";

/// The dead letters' last errors, with what changes from run to run taken out.
fn dead(project: &Project) -> String {
    let mut told = String::new();
    for letter in project.json_lines(&["dlq", "list", "--json"]) {
        let last = letter["errors"]
            .as_array()
            .and_then(|e| e.last())
            .expect("an error");
        writeln!(
            told,
            "{} on {}: [{}] {}",
            letter["event"]["detail"]["object"]["key"],
            letter["route"],
            last["class"].as_str().unwrap_or_default(),
            last["message"].as_str().unwrap_or_default()
        )
        .expect("a line");
        for cause in last["chain"].as_array().into_iter().flatten() {
            writeln!(told, "  because: {}", cause.as_str().unwrap_or_default()).expect("a line");
        }
    }
    plain(project, &told)
}

/// Without the temporary folder's name.
fn plain(project: &Project, told: &str) -> String {
    told.replace(&*project.root().to_string_lossy(), "ROOT")
}

/// Exit code and standard error, without the log lines before the error.
fn refusal(project: &Project, output: &Output) -> String {
    let told = plain(project, &text(&output.stderr));
    let lines: Vec<&str> = told
        .lines()
        .filter(|line| !line.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    format!(
        "exit {}\n{}\n",
        output.status.code().unwrap_or(-1),
        lines.join("\n")
    )
}

/// What each bad file leads to; a good one beside them must get through.
fn outcome(files: &[(&str, &[u8])]) -> String {
    let project = pipeline();
    for (name, content) in files {
        project.drop_in(&format!("inbox/{name}"), content);
    }
    project.drop_in("inbox/flights-good.csv", GOOD);
    project.ok(&["run", "--until-idle", "2"]);
    assert_eq!(
        project.count("select count(*) from flights"),
        Some(1),
        "the good file"
    );
    assert!(project.ok(&["audit"]).contains("the ledger adds up"));
    dead(&project)
}

#[test]
fn a_wrong_header_names_the_columns() {
    insta::assert_snapshot!(outcome(&[("flights-wrong.csv", b"a,b,c\n1,2,3\n")]));
}

#[test]
fn random_bytes_are_told_from_a_csv() {
    let mut state = 1_u32;
    let mut noise = Vec::new();
    for _ in 0..20_000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise.push((state >> 24) as u8);
    }
    insta::assert_snapshot!(outcome(&[("flights-noise.csv", &noise)]));
}

#[test]
fn a_truncated_gzip_says_that_it_ends_too_early() {
    let whole = [
        0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x4b, 0x4c, 0x4a, 0x4e, 0x49, 0x4d, 0x4b, 0xcf, 0xc8,
    ];
    insta::assert_snapshot!(outcome(&[("flights-short.csv", &whole)]));
}

#[test]
fn a_file_of_nothing_but_rejects_is_told_with_its_first_reasons() {
    let bad = GOOD.replace("2013,1,1", "2013,x,y");
    let project = pipeline();
    project.drop_in("inbox/flights-bad.csv", bad);
    project.ok(&["run", "--until-idle", "2"]);
    let rejects = project.ok(&[
        "query",
        "select key, line, \"column\", message from rejects",
        "--format",
        "csv",
    ]);
    insta::assert_snapshot!(format!("{}{rejects}", dead(&project)));
}

#[test]
fn an_empty_file_is_not_taken_and_a_header_alone_has_no_rows() {
    let header = GOOD.lines().next().expect("a header");
    let project = pipeline();
    project.drop_in("inbox/flights-empty.csv", b"");
    project.drop_in("inbox/flights-header.csv", format!("{header}\n"));
    project.drop_in("inbox/flights-good.csv", GOOD);
    project.ok(&["run", "--until-idle", "2"]);
    assert_eq!(project.count("select count(*) from flights"), Some(1));
    let arrived = project.ok(&["events", "list", "--detail-type", "Object Created"]);
    assert!(!arrived.contains("flights-empty.csv"), "{arrived}");
    assert_eq!(dead(&project), "");
}

#[test]
fn a_file_that_is_gone_before_it_is_read_is_told_as_gone() {
    let project = pipeline();
    // A queue that waits gives the time to take the file away.
    let rules = fs::read_to_string(project.path("rules/flights.yaml")).expect("the rules");
    project.write(
        "rules/flights.yaml",
        rules.replace("to-transform: {}", "to-transform: { delay: 3s }"),
    );
    project.drop_in("inbox/flights-gone.csv", GOOD);
    let node = project.start();
    project.wait("the event", || {
        project.ok(&["events", "list"]).contains("flights-gone.csv")
    });
    fs::remove_file(project.path("inbox/flights-gone.csv")).expect("a removal");
    project.wait("the dead letter", || !dead(&project).is_empty());
    assert_eq!(node.stop(), 0);
    insta::assert_snapshot!(dead(&project));
}

#[test]
fn an_event_that_names_a_place_outside_is_refused() {
    let project = pipeline();
    project.run_with(&["run", "--until-idle", "0.2"], b"");
    for (bucket, key) in [("inbox", "../../etc/passwd.csv"), ("secrets", "x.csv")] {
        let event = format!(
            r#"{{"source":"x","detail-type":"Object Created","detail":{{"bucket":{{"name":"{bucket}"}},"object":{{"key":"{key}"}}}}}}"#
        );
        project.run_with(&["send"], event.as_bytes());
    }
    project.ok(&["run", "--until-idle", "1"]);
    insta::assert_snapshot!(dead(&project));
}

#[test]
fn a_table_whose_column_changes_its_type_is_told_by_name() {
    let project = pipeline();
    project.drop_in("inbox/flights-good.csv", GOOD);
    project.ok(&["run", "--until-idle", "2"]);
    let rules = fs::read_to_string(project.path("rules/flights.yaml")).expect("the rules");
    project.write(
        "rules/flights.yaml",
        rules.replace(
            "          distance,\n",
            "          cast(distance as varchar) as distance,\n",
        ),
    );
    project.drop_in("inbox/flights-later.csv", GOOD.replace(",515,", ",520,"));
    project.ok(&["run", "--until-idle", "2"]);
    insta::assert_snapshot!(dead(&project));
}

#[test]
fn a_port_in_use_is_named_with_the_way_out() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let project = pipeline();
    let output = project.run(&["run", "--listen", &address]);
    insta::assert_snapshot!(refusal(&project, &output).replace(&address, "127.0.0.1:PORT"));
}

#[test]
fn a_folder_that_is_a_file_is_named() {
    let project = pipeline();
    project.write("inbox", "not a folder");
    let output = project.run(&["run", "--until-idle", "0.5"]);
    insta::assert_snapshot!(refusal(&project, &output));
}

#[test]
fn a_data_folder_that_is_a_file_is_named() {
    let project = pipeline();
    project.write("data", "not a folder");
    let output = project.run(&["run", "--until-idle", "0.5"]);
    insta::assert_snapshot!(refusal(&project, &output));
}

#[test]
fn an_address_open_to_the_network_is_refused() {
    let project = pipeline();
    let output = project.run(&["run", "--listen", "0.0.0.0:0"]);
    insta::assert_snapshot!(refusal(&project, &output));
}

#[test]
fn a_log_of_a_newer_version_is_refused() {
    let project = pipeline();
    project.ok(&["run", "--until-idle", "0.2"]);
    let folder = project.path("data/bus");
    let segment = fs::read_dir(&folder)
        .expect("the log")
        .map(|e| e.expect("an entry").path())
        .find(|p| p.extension().is_some_and(|e| e == "seg"))
        .expect("a segment");
    let mut bytes = fs::read(&segment).expect("a segment");
    // The format version follows the eight bytes of magic.
    bytes[8] = 99;
    fs::write(&segment, bytes).expect("a segment");
    let output = project.run(&["run", "--until-idle", "0.2"]);
    assert_ne!(
        output.status.code(),
        Some(0),
        "{}",
        refusal(&project, &output)
    );
    assert_ne!(
        output.status.code(),
        Some(101),
        "a panic: {}",
        refusal(&project, &output)
    );
    assert!(
        refusal(&project, &output).contains("error: "),
        "{}",
        refusal(&project, &output)
    );
}

/// Runs the node with a small file system mounted at `at`.
fn on_a_small_disk(project: &Project, at: &str, size: &str, seconds: &str) -> Output {
    fs::create_dir_all(project.path(at)).expect("a folder");
    let script = format!(
        "mount -t tmpfs -o size={size} tmpfs '{at}' && exec '{}' run --until-idle {seconds}",
        env!("CARGO_BIN_EXE_pointsman")
    );
    std::process::Command::new("unshare")
        .args(["-rm", "sh", "-c", &script])
        .current_dir(project.root())
        .env("NO_COLOR", "1")
        .output()
        .expect("unshare runs")
}

#[test]
fn a_lake_on_a_full_disk_is_told_and_the_file_is_kept_for_later() {
    let project = pipeline();
    let rows: String = GOOD.lines().nth(1).expect("a row").to_owned();
    let mut large = GOOD.to_owned();
    for n in 0..60_000_u32 {
        // Numbers that do not compress away.
        let mixed = n.wrapping_mul(2_654_435_761);
        writeln!(
            large,
            "{}",
            rows.replace("1545", &(mixed % 9999 + 1).to_string())
                .replace("N14228", &format!("N{mixed:08x}"))
        )
        .expect("a line");
    }
    project.drop_in("inbox/flights-large.csv", large);
    let output = on_a_small_disk(&project, "data/lake", "64k", "2");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let told = dead(&project);
    assert!(told.contains("No space left on device"), "{told}");
    // With room again, the letter is redriven and the rows arrive.
    assert_eq!(
        project.ok(&["dlq", "redrive", "--all"]).trim(),
        "redriven: 1"
    );
    project.ok(&["run", "--until-idle", "2"]);
    assert_eq!(dead(&project), "");
    assert!(
        project
            .count("select count(*) from lake.flights")
            .is_some_and(|rows| rows > 60_000)
    );
}

#[test]
fn a_log_without_room_refuses_events_and_says_why() {
    let project = pipeline();
    project.drop_in("inbox/flights-good.csv", GOOD);
    let script = format!(
        "mount -t tmpfs -o size=32m tmpfs data && exec '{}' run",
        env!("CARGO_BIN_EXE_pointsman")
    );
    fs::create_dir_all(project.path("data")).expect("a folder");
    let mut command = std::process::Command::new("unshare");
    command
        .args(["-rm", "sh", "-c", &script])
        .current_dir(project.root())
        .env("NO_COLOR", "1");
    let node = project.start_command(command);
    project.wait("the reason why events are refused", || {
        node.log().contains("bytes are free on the disk")
    });
    assert_eq!(node.stop(), 0, "it stops in good order");
    let told = fs::read_to_string(project.path("node.log")).expect("a log");
    assert!(
        told.contains("stopped") && !told.contains("panicked"),
        "{told}"
    );
}
