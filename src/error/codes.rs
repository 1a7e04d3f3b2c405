//! Every code, with a short page each. Codes are for ever: a new mistake gets
//! a new number, and a number is never used for something else.
//!
//! P01 the YAML itself, P02 names and references, P03 rules, P04 addresses and
//! times, P05 files, tables and schemas, P06 SQL, P07 rule tests, P08 the
//! running node.

use std::fmt::Write as _;

/// A kind of mistake.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// Stable, like `P0101`.
    pub id: &'static str,
    /// A few words.
    pub title: &'static str,
    /// What it means and the way out, in Markdown.
    pub page: &'static str,
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.id)
    }
}

/// The code with this id, in either case.
#[must_use]
pub fn find(id: &str) -> Option<&'static Code> {
    ALL.iter()
        .copied()
        .find(|code| code.id.eq_ignore_ascii_case(id))
}

/// All codes as one Markdown document (`docs/errors.md`).
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(
        "# Error codes\n\nWritten from `src/error/codes.rs`; `pointsman explain CODE` prints one.\n",
    );
    for code in ALL {
        // Writing to a string does not fail.
        let _ = write!(out, "\n## {}: {}\n\n{}\n", code.id, code.title, code.page);
    }
    out
}

macro_rules! codes {
    ($($name:ident $id:literal $title:literal $page:literal)*) => {
        $(
            #[doc = $title]
            pub static $name: Code = Code { id: $id, title: $title, page: $page };
        )*
        /// Every code, ordered by id.
        pub static ALL: &[&Code] = &[$(&$name),*];
    };
}

codes! {
    YAML_SYNTAX "P0101" "the file is not YAML"
"The file cannot be read as YAML, so nothing in it was looked at; other files were.

Look at the line that is named and at the one above it: a missing `:` or a space after it, a tab used as
indentation, a quote or bracket that is not closed, a value with `: ` or `#` in it that needs quotes.
One file holds one document; `---` between two is refused."

    UNKNOWN_FIELD "P0102" "unknown field"
"There is no field of this name at this place. It would have no effect, so it is refused instead of being
passed over.

Check the spelling and the indentation: a field that is moved two spaces to the left belongs to something
else. `pointsman schema` prints a JSON Schema that editors complete and check fields with."

    WRONG_TYPE "P0103" "a value of another kind is needed"
"The field wants another kind of value: a table (`name: value` lines), a list (`[a, b]` or `- a` lines),
text, a number, or `true` / `false`.

YAML reads `yes` as text and `1.20` as a number; put quotes round what is meant as text."

    MISSING_FIELD "P0104" "a field is missing"
"A field that has no default was left out, or is there without a value (`path:` alone is null)."

    DUPLICATE_KEY "P0105" "a key stands twice in one table"
"The same key stands twice in one table. One of them would be ignored without a word, so both are refused.
Remove one, or give it another name."

    DUPLICATE_NAME "P0106" "a name is declared twice"
"Names of sources, queues, rules, handlers, topics and schedules are unique across all files, each in its
own section; the node's fields may be set once. The message shows both places. Rename one of them or remove it."

    BAD_NAME "P0107" "a name that cannot be used"
"Names become parts of paths, addresses and metrics. They consist of letters, digits, `-` and `_`, start
with a letter or digit, and have at most 64 characters."

    FILE_UNREADABLE "P0108" "a file or folder cannot be read"
"The file does not exist, may not be read by this user, or is not UTF-8 text.

Check the path (paths in the YAML start at the folder of `pointsman.yaml`) and the permissions. A file in
another encoding can be converted with `iconv -f latin1 -t utf-8`."

    BAD_DURATION "P0109" "not a duration"
"Durations are a number and a unit: `250ms`, `5s`, `2m`, `12h`, `7d`, also put together: `1h30m`. The number
alone is refused, because it does not say whether seconds or milliseconds are meant. `0` needs no unit."

    BAD_SIZE "P0110" "not a size"
"Sizes are a number of bytes, or a number and a unit: `64KiB`, `128MiB`, `2GiB` (powers of 1024) or `64kB`,
`10MB`, `2GB` (powers of 1000)."

    BAD_VALUE "P0111" "a value that is not possible here"
"The value has the right kind, and is still not possible: a number outside the range that is named, a word
that is not among the choices, an empty text where one is needed."

    BAD_REFERENCE "P0112" "a reference that leads nowhere"
"`${env:NAME}` stands for an environment variable and `${file:PATH}` for the content of a file (without the
line end). The variable is not set, or the file cannot be read.

Set it before the start, or give a default: `${env:NAME:-default}`. To write the text itself, double the
dollar sign: `$${env:NAME}`. Values of references are never shown; the reference is."

    ONE_OF "P0113" "exactly one of several fields"
"Exactly one of the fields that are named must be given: a handler does one thing, a target is one place.
Split it in two, or remove what is too much."

    BAD_GLOB "P0114" "not a glob"
"`include` and `exclude` are globs on the path below the folder: `*.csv`, `2013/**/*.csv`, `[!.]*`,
`{a,b}-*.json`. A `[` or `{` that is meant literally is written `[[]` or `[{]`."

    NO_CONFIG "P0115" "nothing to run"
"The folder holds neither `pointsman.yaml` nor `rules/*.yaml`, so there is nothing to do. Check that the
command was started in the right folder, or name it: `pointsman run DIR`."

    NO_CONNECTIONS "P0116" "an unknown kind of connection"
"`connections` holds the addresses and credentials of brokers, buckets and databases, by name. Each has
exactly one kind: `amqp`, `aws` or `postgres`. `pointsman drivers` lists what is built in, and which kind
of connection each driver needs."

    NO_EFFECT "P0117" "a field without effect"
"The field is right in itself and means nothing beside the others: CSV's `null` where no file is read, for example.
Remove it, or change what it does not fit."

    UNKNOWN_NAME "P0201" "a name that nothing declares"
"A connection, queue, handler or topic is referred to and never declared. Everything must be declared once, so that a
slip of the pen does not make a queue that nobody reads. A queue with all defaults is `to-transform: {}`
under `queues:`."

    UNREAD_QUEUE "P0202" "a queue that nobody reads"
"Events go into the queue and no handler takes them out: they would wait until the retention ends. Add the
queue to a handler's `from`, or remove it."

    IDLE_HANDLER "P0203" "a handler that gets nothing"
"The handler has no `from` and no rule has it as a target, so it never runs."

    DUPLICATE_ROUTE "P0204" "two routes of one name"
"A route is one target of one rule. It is named `RULE/ID`, where the id defaults to the name of the queue,
handler, topic or bus; deliveries, retries and dead letters are kept under this name. Give one of the two
targets an `id` of its own."

    UNHEARD_BUS "P0205" "a bus that nobody listens on"
"Events are sent to the bus and no rule listens there. Add `bus: NAME` to a rule, or correct the name."

    UNUSED_QUEUE "P0206" "a queue that nothing goes into"
"No rule has the queue as a target, so whoever reads it never gets anything."

    UNUSED_TOPIC "P0207" "a topic that nothing is published to"
"No handler's `notify` and no rule names the topic, so its subscribers never hear anything."

    SHORT_VISIBILITY "P0208" "a visibility that is shorter than the work"
"A message that was received stays invisible for `visibility`. When the handler may work longer, the message is
received a second time while the first is still at work. Make `visibility` longer than the handler's `timeout`, or
leave it out: the default is that timeout and 30 seconds."

    WRONG_CONNECTION "P0209" "a connection of another kind"
"The connection that is named leads to a system of another kind: an `amqp` queue needs an `amqp` connection,
an S3 source an `aws` one. Each connection under `connections:` has one kind."

    UNWATCHED_QUEUE "P0210" "files that would be tidied up too early"
"A folder source with `after: delete` or `after: { move: ... }` does that when all deliveries of a file's event
are done. A message counts as delivered when a broker has it, before its handler has worked on it; so a file
could be gone before it is read. Keep the files, or keep the queue in the log."

    TWO_BUCKETS "P0211" "one bucket name by two connections"
"An event names its bucket, and nothing in it tells by which connection the bucket is reached. Two buckets of one
name, at two endpoints, cannot be told apart in one node; the same bucket is reached by the same connection everywhere."

    BAD_PATTERN "P0301" "not an event pattern"
"The pattern is not one that EventBridge would take. A pattern has the event's shape; its leaves are lists of
what is allowed: `source: [aws.s3]`, `detail: { size: [{ numeric: [\">\", 0] }] }`.

A single value needs its brackets too, and an operator stands inside the list: `[{ prefix: a }]`."

    LOOP "P0302" "a loop"
"A handler emits events that match the rule that feeds it, or buses forward to each other in a circle. The
hop limit (32) would end it, after 32 rounds of work per event.

Make the pattern narrower: name the `table` in `detail`, or the `source`."

    AMBIGUOUS_SCALAR "P0303" "a value that YAML reads in another way"
"In a pattern it matters whether a value is text or a number. YAML reads `007`, `0x1F` and `+5` as numbers,
where text may be meant, and `.inf` as a number that JSON does not have.

Put quotes round it to match the text, or write the plain number (`7`, `31`, `5`)."

    BAD_INPUT "P0304" "an input that cannot work"
"What a target gets is the event, a constant (`input`), a part (`input_path`, JSONPath) or a template
(`input_transformer` with `paths` and `template`). A path does not parse, the template is not JSON (text
needs double quotes), or it uses `<name>` and `paths` does not define it. Reserved: `<aws.events.rule-arn>`, `<aws.events.rule-name>`,
`<aws.events.event.ingestion-time>`, `<aws.events.event>`, `<aws.events.event.json>`."

    NO_TARGETS "P0305" "a rule without targets"
"The rule matches events and sends them nowhere. Add a target, or set `enabled: false` while it is being
written."

    DEAD_PATTERN "P0306" "a pattern that never matches"
"No event can meet the pattern, or one branch of it: a range that is empty, a field that must exist and must not, a
field of the envelope compared with what it never is, a path that is wanted as a value and as an object."

    BROAD_PATTERN "P0307" "a pattern that lets everything in"
"The pattern, or the list of one field, takes whatever comes. `anything-but` twice in one list is a usual cause:
the alternatives are joined by OR, so each lets in what the other keeps out. Put all values into one
`anything-but` list. When every event is meant, `source: [{ exists: true }]` says so."

    REDUNDANT_PATTERN "P0308" "something that is there twice"
"An alternative, a branch of `$or`, or a whole rule does what another one does. Two rules with the same pattern and
the same target deliver every event twice."

    UNKNOWN_PATH "P0309" "a field that no such event has"
"The events that the rule is for have a schema (`x-pointsman`), and the pattern asks for a field that differs from
one of theirs in case or by a slip of the pen."

    BAD_LISTEN "P0401" "not an address to listen on"
"`listen` is an IP address and a port: `127.0.0.1:7070`, `[::1]:7070`, `0.0.0.0:7070`; or a port alone, which
means this machine only."

    OPEN_LISTEN "P0402" "open to the network"
"The HTTP interface listens on an address that other machines can reach. Everyone who reaches it can send
events and read dead letters. Use `127.0.0.1` and a proxy that asks who is there."

    BAD_URL "P0403" "not a URL"
"Webhooks need a whole URL with `http://` or `https://` and a host."

    BAD_CRON "P0404" "not a cron line"
"A cron line has five fields: minute, hour, day of the month, month, day of the week. `0 2 * * *` is every
night at two, `*/15 * * * 1-5` every quarter of an hour on working days. `@daily` and its like are taken too."

    BAD_TIMEZONE "P0405" "not a time zone"
"Time zones are names from the IANA data base: `UTC`, `Europe/Paris`, `America/New_York`."

    BAD_TIME "P0406" "not a point in time"
"Times are RFC 3339, like `2013-01-01T00:00:00Z`, or a day, like `2013-01-01` (midnight, UTC)."

    SCHEMA_MISSING "P0501" "a schema file that is not there"
"The file named by `schema` cannot be read. Paths start at the folder of `pointsman.yaml`."

    SCHEMA_NOT_JSON "P0502" "a schema that is not JSON"
"Schemas are JSON documents; YAML and comments are not taken."

    BAD_SCHEMA "P0503" "not a valid JSON Schema"
"The document is JSON, and is not a JSON Schema that can be compiled: a keyword has a value of a wrong type,
a `$ref` leads nowhere, a regular expression does not parse."

    BAD_EVENT_SCHEMA "P0504" "a wrong x-pointsman"
"`x-pointsman` at the top of a schema names the event type that it is for:
`{ \"source\": \"shop\", \"detail-type\": \"Order\", \"policy\": \"reject\" }`. The policy is `reject` (the
default), `dead-letter` or `warn`."

    TABLE_MISSING "P0505" "a reference table that is not there"
"The file named under `tables` cannot be read. Paths start at the folder of `pointsman.yaml`."

    BAD_COLUMNS "P0506" "columns that cannot be used"
"Partition columns become folders, `month=2/`, and key columns are compared: names must not be empty, stand
twice, or hold `/` or `=`. Where the transform has no SQL, they must be columns of the schema."

    BAD_KEY "P0507" "a load whose key does not fit its mode"
"`mode: upsert` replaces rows with the same `key`, so it needs one: `key: [carrier, flight]`. `mode: append`
compares nothing, so a key would have no effect."

    SOURCE_OVERLAP "P0508" "a folder that overlaps another"
"A source must not watch the node's own `data` folder, or its outputs would come back as inputs. Two sources
on one folder take every file twice."

    DUPLICATE_EVENT_SCHEMA "P0509" "two schemas for one event type"
"Two schemas name the same `source` and `detail-type`. Which one would an event have to meet? Merge them, or
remove `x-pointsman` from one."

    BAD_SQL "P0601" "SQL that cannot be planned"
"The query was planned against the columns of the schema and of the reference tables, and does not work: a
table or column of that name is not there, or the text does not parse. The records are the table `input`."

    BAD_TEST "P0701" "a rule test that cannot be run"
"A rule test is a list of `{ name, event, routes }`. The event is a whole envelope; `id`, `time`, `account`,
`region` and `resources` may be left out."

    TEST_FAILED "P0702" "a rule test failed"
"The event of the test goes to other routes than those that it expects. `pointsman match --rules . --explain`
shows for each rule the first field that did not match."

    PORT_IN_USE "P0801" "the port is taken"
"Another program listens on the address. If it is another Pointsman, use it, or stop it; otherwise set
`node.listen` to a free port."

    DATA_IN_USE "P0802" "the data folder is taken"
"Another Pointsman is running on the same `data` folder. Two would destroy each other's log."

    DATA_UNWRITABLE "P0803" "the data folder cannot be written"
"The node keeps everything durable below `data`. Check the permissions and the free space, or set `node.data`."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_ordered_and_unique() {
        let ids: Vec<_> = ALL.iter().map(|code| code.id).collect();
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(ids, sorted);
        assert!(ids.iter().all(|id| id.len() == 5 && id.starts_with('P')));
    }

    #[test]
    fn codes_are_found_by_id() {
        assert_eq!(find("p0102"), Some(&UNKNOWN_FIELD));
        assert_eq!(find("P9999"), None);
    }

    #[test]
    fn every_code_has_a_page_that_ends_in_a_sentence() {
        for code in ALL {
            assert!(code.page.ends_with(['.', '`']), "{code}");
            assert!(!code.title.ends_with('.'), "{code}");
        }
        assert!(markdown().contains("## P0102: unknown field\n"));
    }
}
