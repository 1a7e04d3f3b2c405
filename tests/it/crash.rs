//! `kill -9` at random moments: nothing is lost, nothing is done twice.

use crate::support::{Project, repo};
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

const FILES: usize = 200;

/// Kills in the short form; `POINTSMAN_KILLS` asks for more or fewer.
const KILLS: usize = 50;

/// An order-free account of the table: every column takes part.
const CHECKSUM: &str = "select count(*) as rows, count(distinct flight) as flights, \
    sum(flight * 31 + distance) as a, sum(coalesce(dep_delay, -1) * 7 + coalesce(arr_delay, -3)) as b, \
    min(sched_dep) as c, max(sched_dep) as d, sum(length(airline)) as e, \
    sum(cast(cancelled as int) * 2 + cast(late as int)) as f, sum(month) as g from";

/// The sample's rows, dealt out to `FILES` files.
fn files() -> Vec<(String, String)> {
    let (mut header, mut rows) = (String::new(), Vec::new());
    let mut paths: Vec<_> = fs::read_dir(repo().join("examples/flights/inbox"))
        .expect("the samples")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| !path.to_string_lossy().contains("broken"))
        .collect();
    paths.sort();
    for path in paths {
        let text = fs::read_to_string(path).expect("a sample");
        let mut lines = text.lines();
        header = lines.next().expect("a header").to_owned();
        rows.extend(lines.map(str::to_owned));
    }
    (0..FILES)
        .map(|n| {
            let mut text = format!("{header}\n");
            for row in rows.iter().skip(n).step_by(FILES) {
                writeln!(text, "{row}").expect("a line");
            }
            (format!("inbox/flights-part-{n:03}.csv"), text)
        })
        .collect()
}

fn project() -> Project {
    let project = Project::shipped();
    fs::remove_dir_all(project.path("examples/flights/inbox")).expect("no samples");
    // On a slow machine no life of the node may be long enough for a load: whatever is
    // on loan at each kill must not be taken for what kills it.
    let path = project.path("rules/flights.yaml");
    let rules = fs::read_to_string(&path).expect("the rules");
    let patient = "    retry: { lost: 1000 }\n    notify:";
    assert_eq!(rules.matches("    notify:").count(), 2, "each handler");
    fs::write(&path, rules.replace("    notify:", patient)).expect("the rules");
    project
}

fn checksum(project: &Project) -> [String; 2] {
    ["flights", "lake.flights"]
        .map(|table| project.ok(&["query", &format!("{CHECKSUM} {table}"), "--format", "json"]))
}

/// A small generator of its own, so that a seed repeats a run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[test]
fn kills_at_random_moments_change_nothing() {
    let variable = |name: &str| std::env::var(name).ok().and_then(|v| v.parse().ok());
    let kills = variable("POINTSMAN_KILLS").map_or(KILLS, |n: u64| n as usize);
    let seed = variable("POINTSMAN_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("POINTSMAN_SEED={seed} POINTSMAN_KILLS={kills}");
    let files = files();

    let undisturbed = project();
    for (name, text) in &files {
        undisturbed.drop_in(name, text);
    }
    undisturbed.ok(&["run", "--until-idle", "2"]);
    let expected = checksum(&undisturbed);

    let disturbed = project();
    let mut random = Random(seed);
    let mut waiting = files.iter();
    for _ in 0..kills {
        let node = disturbed.start_unchecked(&[]);
        let lifetime = 300 + random.below(1_700);
        // Files keep arriving while it runs, some of them by slow copies.
        let arriving = FILES.div_ceil(kills);
        let pause = Duration::from_millis(lifetime / (arriving as u64 + 1));
        for (name, text) in waiting.by_ref().take(arriving) {
            std::thread::sleep(pause);
            if random.below(2) == 0 {
                disturbed.drop_in(name, text);
            } else {
                disturbed.write(name, text);
            }
        }
        std::thread::sleep(pause);
        node.kill();
    }
    for (name, text) in waiting {
        disturbed.drop_in(name, text);
    }
    disturbed.ok(&["run", "--until-idle", "3"]);

    assert_eq!(checksum(&disturbed), expected, "seed {seed}");
    assert_eq!(
        disturbed.ok(&["dlq", "list"]).trim(),
        "no dead letters",
        "seed {seed}"
    );
    let audit = disturbed.json(&["audit", "--json"]);
    assert_eq!(audit["balanced"], true, "seed {seed}: {audit}");
    let delivered = |route: &str| {
        let routes = audit["ledger"]["routes"].as_array().expect("routes");
        let found = routes.iter().find(|r| r["name"] == route);
        found.expect("a route")["delivered"]
            .as_u64()
            .expect("a count")
    };
    assert_eq!(
        delivered("csv-arrived/to-transform"),
        FILES as u64,
        "seed {seed}"
    );
    assert_eq!(
        delivered("flights-ready/load-flights"),
        FILES as u64,
        "seed {seed}"
    );
}
