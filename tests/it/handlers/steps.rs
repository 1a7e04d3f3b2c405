//! The SQL of a transform: named steps, parameters, and a transform that changed.

use super::malformed::typed;
use super::world::{World, handle, options};
use crate::support::{Project, text};
use pointsman::handlers::transform::check_sql;
use pointsman::handlers::transform::options::TransformOptions;

const CSV: &str = "id,name,amount\n1,a,1.50\n2,b,2.25\n3,a,4\n";

fn stepped() -> TransformOptions {
    let mut options = typed();
    let view = |name: &str, sql: &str| (name.to_owned(), sql.to_owned());
    options.views = vec![
        view(
            "large",
            "select id, name, amount from input where amount > 2",
        ),
        view(
            "named",
            "select name, count(*) as n, sum(amount) as total from large group by name",
        ),
    ];
    options.sql = Some("select l.id, n.n, n.total, i.all_rows from large l join named n on n.name = l.name cross join (select count(*) as all_rows from input) i".to_owned());
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_read_the_steps_before_them() {
    let world = World::new();
    let event = world.file("x.csv", CSV);
    let done = handle(&world.transform(stepped()), event).await.unwrap();
    assert_eq!(done.summary["rows_in"], 3);
    assert_eq!(
        world
            .csv("select id, n, total, all_rows from lake.t order by id")
            .await,
        "2,1,2.25,3\n3,1,4.00,3"
    );
}

#[test]
fn a_typo_in_a_step_is_shown_with_a_caret() {
    let mut options = stepped();
    options.views[1].1 = "select name,\n  sum(amuont) as total from large group by name".to_owned();
    let problem = check_sql(&options).unwrap_err();
    assert!(
        problem.to_string().starts_with("in the view `named`: "),
        "{problem}"
    );
    let shown = problem.shown_in("");
    assert!(
        shown.contains(" 2 |   sum(amuont) as total from large group by name\n   |       ^"),
        "{shown}"
    );
    let mut backwards = stepped();
    backwards.views.reverse();
    let problem = check_sql(&backwards).unwrap_err();
    assert!(problem.to_string().contains("large"), "{problem}");
    let mut unread = stepped();
    unread.views.clear();
    unread.sql = Some("select 1 as one".to_owned());
    assert!(
        check_sql(&unread)
            .unwrap_err()
            .message
            .contains("does not read `input`")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_bound_and_never_become_sql() {
    let world = World::new();
    let mut options = typed();
    options.params = [
        ("file", "$.detail.object.key"),
        ("size", "$.detail.object.size"),
        ("none", "$.detail.nothing"),
    ]
    .map(|(name, path)| (name.to_owned(), path.to_owned()))
    .into();
    options.views = vec![(
        "mine".to_owned(),
        "select id, $file as file from input where name <> $file".to_owned(),
    )];
    options.sql = Some("select id, file, cast($size as bigint) + 1 as size, coalesce($none, 'nothing') as none from mine".to_owned());
    let columns = check_sql(&options).unwrap();
    assert_eq!(columns.field(2).data_type().to_string(), "Int64");
    let key = "x' or '1'='1.csv";
    let event = world.file(key, CSV);
    handle(&world.transform(options.clone()), event)
        .await
        .unwrap();
    let size = CSV.len() + 1;
    assert_eq!(
        world
            .csv("select id, file, size, none from lake.t order by id limit 1")
            .await,
        format!("1,{key},{size},nothing")
    );
    assert_eq!(world.csv("select count(*) from lake.t").await, "3");
    options.sql = Some("select id, $fiel as file from mine".to_owned());
    let problem = check_sql(&options).unwrap_err();
    assert!(
        problem.message.contains("fiel")
            && problem.message.contains("`params` has: file, none, size"),
        "{problem}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_of_loading_data_are_there() {
    let world = World::new();
    let mut options = options();
    options.sql = Some("select parse_decimal(price, 18, 2, ',') as price, parse_date(day, '%d.%m.%Y', '%Y-%m-%d') as day, json_text(more, '/tags/0') as tag, row_hash(price, day) as hash from input".to_owned());
    let event = world.file("x.csv", "price,day,more\n\"1,234.50\",31.12.2024,\"{\"\"tags\"\":[\"\"new\"\"]}\"\n1.239,2024-02-30,{}\n");
    handle(&world.transform(options), event).await.unwrap();
    let rows = world
        .csv("select price, day, tag, length(hash), arrow_typeof(price) from lake.t order by price")
        .await;
    assert_eq!(
        rows,
        "1234.50,2024-12-31,new,32,\"Decimal128(18, 2)\"\n,,,32,\"Decimal128(18, 2)\""
    );
}

/// The same cause through a transform that changed: the new result takes the
/// old one's place, and is announced as news.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_transform_takes_the_place_of_what_it_made_before() {
    let world = World::new();
    let event = world.file("x.csv", CSV);
    let before = handle(&world.transform(typed()), event.clone())
        .await
        .unwrap();
    let same = handle(&world.transform(typed()), event.clone())
        .await
        .unwrap();
    assert_eq!((same.revision, &same.summary), (0, &before.summary));
    let mut changed = typed();
    changed.sql = Some("select id, amount * 2 as double from input".to_owned());
    let after = handle(&world.transform(changed.clone()), event.clone())
        .await
        .unwrap();
    assert_eq!((after.revision, &after.summary["revision"]), (1, &1.into()));
    assert_ne!(after.summary["publication"], before.summary["publication"]);
    assert_eq!(
        world.csv("select count(*), sum(double) from lake.t").await,
        "3,15.50"
    );
    let again = handle(&world.transform(changed), event.clone())
        .await
        .unwrap();
    assert_eq!((again.revision, &again.summary), (1, &after.summary));
    let back = handle(&world.transform(typed()), event).await.unwrap();
    assert_eq!(back.revision, 2);
    assert_eq!(
        world.csv("select count(*), sum(amount) from lake.t").await,
        "3,7.75"
    );
}

const PROJECT: &str = "
sources: { inbox: { folder: { path: inbox } } }
queues: { q: {} }
rules:
  all: { pattern: { detail-type: [Object Created] }, targets: [ { queue: q } ] }
handlers:
  clean:
    from: q
    transform:
      read: { schema: s.json }
      views:
        good: select id, nmae from input
      params: { file: $.detail.object.key }
      sql: select id, $file as file from good
      write: { table: t }
";

#[test]
fn check_stops_at_a_column_that_is_not_there() {
    let project = Project::new();
    project.write("rules/a.yaml", PROJECT);
    project.write(
        "s.json",
        r#"{"type":"object","properties":{"id":{"type":"integer"},"name":{"type":"string"}}}"#,
    );
    let output = project.run(&["check"]);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("nmae")
            && said.contains("in the view `good`")
            && said.contains("rules/a.yaml:12"),
        "{said}"
    );
    project.write("rules/a.yaml", PROJECT.replace("nmae", "name"));
    project.ok(&["check"]);
}
