//! The shipped pipeline with both of its buffers on a broker.

use crate::conformance::{Backing, unique};
use crate::support::Project;
use std::fs;

/// An order-free account of the table: every kind of column takes part.
const CHECKSUM: &str = "select count(*) as rows, count(distinct flight) as flights, \
    sum(flight * 31 + distance) as a, sum(coalesce(dep_delay, -1) * 7 + coalesce(arr_delay, -3)) as b, \
    min(sched_dep) as c, max(sched_dep) as d, sum(length(airline)) as e, \
    sum(cast(cancelled as int) * 2 + cast(late as int)) as f, sum(month) as g from flights";

/// What the pipeline makes of the samples.
fn run(backing: Backing) -> String {
    let project = Project::shipped();
    let path = project.path("rules/flights.yaml");
    let shipped = fs::read_to_string(&path).expect("the rules");
    let queue = |name: &str| backing.queue(&unique(name), "");
    let rules = shipped
        .replace(
            "  to-transform: {}",
            &format!(
                "  to-transform: {}\n  to-load: {}",
                queue("to-transform"),
                queue("to-load")
            ),
        )
        .replace("      - handler: load-flights", "      - queue: to-load")
        .replace("  load-flights:\n", "  load-flights:\n    from: to-load\n");
    assert!(rules.contains("from: to-load") && rules.contains("queue: to-load"));
    fs::write(&path, rules).expect("the rules");
    project.write("rules/connections.yaml", backing.connections());
    let node = project.start();
    project.wait("the samples to be loaded", || {
        project.count("select count(*) from flights") == Some(7_975)
    });
    project.wait_idle();
    project.ok(&["audit"]);
    assert!(project.json_lines(&["dlq", "list", "--json"]).is_empty());
    assert_eq!(node.stop(), 0);
    project.ok(&["query", CHECKSUM, "--format", "csv"])
}

#[test]
fn both_buffers_on_rabbitmq_and_on_sqs_give_the_same_table() {
    let embedded = run(Backing::Embedded);
    assert_eq!(run(Backing::RabbitMq), embedded);
    assert_eq!(run(Backing::Sqs), embedded);
}
