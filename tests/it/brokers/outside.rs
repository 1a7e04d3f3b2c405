//! `check --connect` beyond AMQP: AWS with its permissions, and Postgres.

use crate::support::aws::Aws;
use crate::support::postgres::{PASSWORD, shared};
use crate::support::{Project, text};
use serde_json::Value;

/// What is said of a project with these files, and whether all is well.
fn check(yaml: &str) -> (bool, String) {
    let project = Project::new();
    project.write("rules/a.yaml", yaml);
    let output = project.run(&["check", "--connect"]);
    let said = text(&output.stdout) + &text(&output.stderr);
    (output.status.success(), said)
}

/// Everything that AWS is asked about, with a user who may send and publish, and one
/// who may not. From then on the server looks at permissions.
const SETUP: &str = r#"
import urllib.request
def user(name, actions):
    iam.create_user(UserName=name)
    statement = [{"Effect": "Allow", "Action": actions, "Resource": "*"}]
    iam.put_user_policy(UserName=name, PolicyName="p",
                        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": statement}))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return [key["AccessKeyId"], key["SecretAccessKey"]]
def queue(name, **attributes):
    url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    return url, sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
url, arn = queue("dead")
queue("work", RedrivePolicy=json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 7}))
gone, gone_arn = queue("gone")
queue("orphan", RedrivePolicy=json.dumps({"deadLetterTargetArn": gone_arn, "maxReceiveCount": 3}))
sqs.delete_queue(QueueUrl=gone)
topic = sns.create_topic(Name="orders")["TopicArn"]
look = ["sqs:Get*", "sns:Get*", "sns:List*"]
print(json.dumps({"may": user("may", look + ["sqs:Send*", "sqs:Receive*", "sqs:Delete*", "sqs:Change*", "sns:Publish*"]),
                  "looks": user("looks", look + ["sqs:Send*"]), "topic": topic}))
urllib.request.urlopen(urllib.request.Request(sys.argv[1] + "/moto-api/reset-auth", data=b"0", method="POST",
                                              headers={"Content-Type": "text/plain"}))
"#;

#[test]
fn permissions_and_dead_letter_queues_of_aws_are_tried() {
    let aws = Aws::start_guarded();
    let made: Value = serde_json::from_str(&aws.boto(SETUP, &[])).expect("JSON");
    let connection = |keys: [&str; 2]| {
        let [id, secret] = keys;
        format!(
            "connections: {{ cloud: {{ aws: {{ endpoint: \"{}\", region: eu-west-1, access_key_id: {id}, secret_access_key: {secret} }} }} }}\n",
            aws.url()
        )
    };
    let of = |name: &str| {
        let part = |n: usize| made[name][n].as_str().expect("a key");
        connection([part(0), part(1)])
    };
    let queue = |name: &str, more: &str| {
        format!("queues: {{ work: {{ sqs: {{ connection: cloud, queue: {name}{more} }} }} }}\n")
    };
    let rest = |topic: &str| {
        format!(
            "rules: {{ all: {{ pattern: {{ source: [s] }}, targets: [{{ queue: work }}, {{ sns: {{ connection: cloud, topic: \"{topic}\" }} }}] }} }}\n"
        )
    };
    let topic = made["topic"].as_str().expect("an ARN");

    let (well, said) = check(&(of("may") + &queue("work", "") + &rest(topic)));
    assert!(well, "{said}");
    for found in [
        "connection cloud: credentials are there, region eu-west-1",
        "the queue is there; 0 messages wait",
        "it can be written",
        "it can be read",
        "its dead-letter queue `dead` is there; SQS moves a message after 7 receives",
        "the topic is there",
        "it can be published to",
    ] {
        assert!(said.contains(found), "{found}:\n{said}");
    }

    let (well, said) = check(&(of("looks") + &queue("work", "") + &rest("orders")));
    assert!(!well, "{said}");
    assert!(said.contains("it can be written"), "{said}");
    let lacks = said.matches("lack this permission").count();
    assert_eq!(lacks, 2, "it may neither receive nor publish:\n{said}");

    let (well, said) = check(&(of("may") + &queue("orphan", "") + &rest("other")));
    assert!(!well, "{said}");
    assert!(
        said.contains("WRONG: its dead-letter queue `gone`"),
        "{said}"
    );
    assert!(said.contains("the topic is made at the start"), "{said}");

    let (well, said) = check(&(of("may") + &queue("new", ", declare: passive") + &rest(topic)));
    assert!(!well, "{said}");
    assert!(
        said.contains("make it, or let it be made with `declare: true`"),
        "{said}"
    );

    let (well, said) =
        check(&(connection(["AKIAUNKNOWN", "x"]) + &queue("work", "") + &rest(topic)));
    assert!(!well, "{said}");
    assert!(said.contains("WRONG: finding the queue `work`"), "{said}");
}

#[test]
fn an_endpoint_that_nobody_answers_at_is_told() {
    let (well, said) = check(
        "connections: { cloud: { aws: { endpoint: \"http://127.0.0.1:1\", region: r, access_key_id: a, secret_access_key: b } } }\n",
    );
    assert!(!well, "{said}");
    assert!(
        said.contains("http://127.0.0.1:1 cannot be reached"),
        "{said}"
    );
}

#[test]
fn postgres_is_asked_whether_tables_are_there_and_can_be_written() {
    let database = shared().database();
    database.sql(
        "create table mine (id int primary key); create table theirs (id int primary key);
         create schema closed; create schema hidden;
         do $$ begin create role limited login password 'limited'; exception when duplicate_object then null; end $$;
         grant select, insert, update, delete on mine to limited; grant select on theirs to limited;
         grant usage on schema closed to limited",
    );
    let project = |connection: &str, loads: &str| {
        format!(
            "connections: {{ dw: {{ postgres: {{ {connection} }} }} }}\nrules: {{ all: {{ pattern: {{ source: [s] }}, targets: [{{ handler: a }}] }} }}\nhandlers:\n{loads}"
        )
    };
    let load = |name: &str, table: &str, more: &str| {
        format!("  {name}: {{ load: {{ table: {table}, to: dw{more} }} }}\n")
    };
    let port = shared().port;
    let (me, limited) = ("user: postgres, password", "user: limited, password");
    let with = |who: &str, password: &str| {
        format!(
            "host: 127.0.0.1, port: {port}, {who}: {password}, database: {}",
            database.name
        )
    };

    let both =
        load("a", "mine", ", mode: upsert, key: [id]") + &load("b", "fresh", ", create: true");
    let (well, said) = check(&project(&with(me, PASSWORD), &both));
    assert!(well, "{said}");
    assert!(
        said.contains("connection dw: connected, PostgreSQL"),
        "{said}"
    );
    assert!(
        said.contains("the table \"public\".\"mine\" is there and can be written"),
        "{said}"
    );
    assert!(
        said.contains("\"fresh\" is made with the first load"),
        "{said}"
    );

    let some = load("a", "theirs", "")
        + &load("b", "missing", "")
        + &load("c", "closed.t", ", create: true")
        + &load("d", "hidden.t", "")
        + &load("e", "nowhere.t", "");
    let (well, said) = check(&project(&with(limited, "limited"), &some));
    assert!(!well, "{said}");
    for found in [
        "\"theirs\" is there, but not permitted: insert",
        "\"missing\" is not there; make it, or write `create: true`",
        "making tables in schema `closed` is not permitted",
        "using the schema `hidden` is not permitted",
        "the schema `nowhere` is not there",
    ] {
        assert!(said.contains(found), "{found}:\n{said}");
    }

    let (well, said) = check(&project(&with(me, "wrong"), &load("a", "mine", "")));
    assert!(!well, "{said}");
    assert!(said.contains("password authentication failed"), "{said}");
}
