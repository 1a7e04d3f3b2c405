//! The examples of AWS's documentation with the outputs that it prints, and what
//! AWS answered when LocalStack asked it (the snapshots of its `aws.validated` tests).

use pointsman::rules::input::{Input, InputContext, InputError, TargetInputSpec};
use serde_json::Value;
use std::collections::BTreeMap;

const EC2_EVENT: &str = r#"{
  "version": "0",
  "id": "7bf73129-1428-4cd3-a780-95db273d1602",
  "detail-type": "EC2 Instance State-change Notification",
  "source": "aws.ec2",
  "account": "123456789012",
  "time": "2015-11-11T21:29:54Z",
  "region": "us-east-1",
  "resources": [
    "arn:aws:ec2:us-east-1:123456789012:instance/i-abcd1111"
  ],
  "detail": {
    "instance-id": "i-0123456789",
    "state": "RUNNING"
  }
}"#;

const EC2_PATHS: &[(&str, &str)] = &[
    ("timestamp", "$.time"),
    ("instance", "$.detail.instance-id"),
    ("state", "$.detail.state"),
];

/// The event that LocalStack's tests send.
const ACCOUNT_EVENT: &str = r#"{"version":"0","id":"c0f3ae8d-9b0e-4a52-8a5e-7a1c8b1b0c11",
  "detail-type":"core.update-account-command","source":"core.update-account-command","account":"111111111111",
  "time":"2024-06-11T08:33:12Z","region":"us-east-1","resources":[],
  "detail":{"command":"update-account","payload":{"acc_id":"0a787ecb-4015","sf_id":"baz"}}}"#;

const CX: InputContext<'static> = InputContext {
    rule_name: "example",
    rule_arn: "arn:aws:events:us-east-2:123456789012:rule/example",
    ingestion_time: "2015-11-11T21:29:55Z",
};

struct Case {
    name: &'static str,
    event: &'static str,
    paths: &'static [(&'static str, &'static str)],
    template: &'static str,
    output: Output,
}

enum Output {
    /// To the byte.
    Text(&'static str),
    /// The documentation prints it in another layout.
    Json(&'static str),
}
use Output::{Json, Text};

fn table(paths: &[(&str, &str)]) -> BTreeMap<String, String> {
    paths
        .iter()
        .map(|(name, path)| ((*name).to_owned(), (*path).to_owned()))
        .collect()
}

fn transform(event: &str, paths: &[(&str, &str)], template: &str) -> Result<String, InputError> {
    let spec = TargetInputSpec::Transformer {
        paths: &table(paths),
        template,
    };
    let output = Input::compile(&spec)?.apply(event.as_bytes(), &CX)?;
    Ok(String::from_utf8(output).expect("UTF-8"))
}

fn run(cases: &[Case]) {
    for case in cases {
        let output = transform(case.event, case.paths, case.template);
        let output = output.unwrap_or_else(|error| panic!("{}: {error}", case.name));
        match case.output {
            Text(expected) => assert_eq!(output, expected, "{}", case.name),
            Json(expected) => {
                let value: Value = serde_json::from_str(&output).expect(case.name);
                let expected: Value = serde_json::from_str(expected).expect(case.name);
                assert_eq!(value, expected, "{}", case.name);
            }
        }
    }
}

/// <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-transform-target-input.html#eb-transform-input-examples>
const GUIDE: &[Case] = &[
    Case {
        name: "Simple string",
        event: EC2_EVENT,
        paths: EC2_PATHS,
        template: r#""instance <instance> is in <state>""#,
        output: Text(r#""instance i-0123456789 is in RUNNING""#),
    },
    Case {
        name: "String with escaped quotes",
        event: EC2_EVENT,
        paths: EC2_PATHS,
        template: r#""instance \"<instance>\" is in <state>""#,
        output: Text(r#""instance \"i-0123456789\" is in RUNNING""#),
    },
    Case {
        name: "Simple JSON",
        event: EC2_EVENT,
        paths: EC2_PATHS,
        template: "{\n  \"instance\" : <instance>,\n  \"state\": <state>\n}",
        output: Text("{\n  \"instance\" : \"i-0123456789\",\n  \"state\": \"RUNNING\"\n}"),
    },
    Case {
        name: "JSON with strings and variables",
        event: EC2_EVENT,
        paths: EC2_PATHS,
        template: "{\n \"instance\" : <instance>,\n \"state\": \"<state>\",\n \"instanceStatus\": \"instance \\\"<instance>\\\" is in <state>\"\n}",
        output: Text(
            "{\n \"instance\" : \"i-0123456789\",\n \"state\": \"RUNNING\",\n \"instanceStatus\": \"instance \\\"i-0123456789\\\" is in RUNNING\"\n}",
        ),
    },
    Case {
        name: "JSON with a mix of variables and static information",
        event: EC2_EVENT,
        paths: EC2_PATHS,
        template: "{\n  \"instance\" : <instance>,\n  \"state\": [ 9, <state>, true ],\n  \"Transformed\" : \"Yes\"\n}\n",
        output: Json(
            r#"{"instance": "i-0123456789", "state": [9, "RUNNING", true], "Transformed": "Yes"}"#,
        ),
    },
    Case {
        name: "Including reserved variables in JSON",
        event: EC2_EVENT,
        paths: EC2_PATHS,
        template: "{\n  \"instance\" : <instance>,\n  \"state\": <state>,\n  \"ruleArn\" : <aws.events.rule-arn>,\n  \"ruleName\" : <aws.events.rule-name>,\n  \"originalEvent\" : <aws.events.event.json>\n}",
        output: Json(
            r#"{
              "instance" : "i-0123456789",
              "state": "RUNNING",
              "ruleArn" : "arn:aws:events:us-east-2:123456789012:rule/example",
              "ruleName" : "example",
              "originalEvent" : {
                "version": "0",
                "id": "7bf73129-1428-4cd3-a780-95db273d1602",
                "detail-type": "EC2 Instance State-change Notification",
                "source": "aws.ec2",
                "account": "123456789012",
                "time": "2015-11-11T21:29:54Z",
                "region": "us-east-1",
                "resources": ["arn:aws:ec2:us-east-1:123456789012:instance/i-abcd1111"],
                "detail": { "instance-id": "i-0123456789", "state": "RUNNING" }
              }
            }"#,
        ),
    },
    Case {
        name: "Including reserved variables in a string",
        event: EC2_EVENT,
        paths: EC2_PATHS,
        template: r#""<aws.events.rule-name> triggered""#,
        output: Text(r#""example triggered""#),
    },
    Case {
        // The page prints the timestamp without quotes, against its own "EventBridge
        // automatically adds quotes to string variable values".
        name: "Amazon CloudWatch log group",
        event: EC2_EVENT,
        paths: EC2_PATHS,
        template: "{\n  \"timestamp\" : <timestamp>,\n  \"message\": \"instance \\\"<instance>\\\" is in <state>\"\n}",
        output: Text(
            "{\n  \"timestamp\" : \"2015-11-11T21:29:54Z\",\n  \"message\": \"instance \\\"i-0123456789\\\" is in RUNNING\"\n}",
        ),
    },
];

/// The same page, #eb-transform-input-issues.
const ISSUES: &[Case] = &[
    Case {
        name: "a variable whose path does not exist won't appear in the output",
        event: EC2_EVENT,
        paths: &[("gone", "$.detail.gone")],
        template: r#""before<gone>after""#,
        output: Text(r#""beforeafter""#),
    },
    Case {
        name: "internal quotes of an object in a string are removed",
        event: EC2_EVENT,
        paths: &[("detail", "$.detail")],
        template: r#""Detail is <detail>""#,
        output: Text(r#""Detail is {instance-id:i-0123456789,state:RUNNING}""#),
    },
    Case {
        name: "an object is put out by placing it as a key",
        event: EC2_EVENT,
        paths: &[("detail", "$.detail")],
        template: r#"{"detail": <detail>}"#,
        output: Text(r#"{"detail": {"instance-id":"i-0123456789","state":"RUNNING"}}"#),
    },
    Case {
        name: "text of several lines has each line in quotes",
        event: EC2_EVENT,
        paths: EC2_PATHS,
        template: "\"<instance> changed\"\n\"State: <state>\"\n\"Time: \\\"<timestamp>\\\"\"",
        output: Text(
            "\"i-0123456789 changed\"\n\"State: RUNNING\"\n\"Time: \\\"2015-11-11T21:29:54Z\\\"\"",
        ),
    },
    Case {
        name: "array indices and wildcards",
        event: EC2_EVENT,
        paths: &[("first", "$.resources[0]"), ("all", "$.resources[*]")],
        template: r#"{"first": <first>, "all": <all>}"#,
        output: Text(
            r#"{"first": "arn:aws:ec2:us-east-1:123456789012:instance/i-abcd1111", "all": ["arn:aws:ec2:us-east-1:123456789012:instance/i-abcd1111"]}"#,
        ),
    },
];

/// <https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_InputTransformer.html>,
/// the first example in the quotes that a string needs.
const API: &[Case] = &[
    Case {
        name: "a string",
        event: r#"{"detail":{"instance":"i-1","status":"stopped"}}"#,
        paths: &[
            ("instance", "$.detail.instance"),
            ("status", "$.detail.status"),
        ],
        template: r#""<instance> is in state <status>""#,
        output: Text(r#""i-1 is in state stopped""#),
    },
    Case {
        name: "escaped quotes",
        event: r#"{"detail":{"instance":"i-1","status":"stopped"}}"#,
        paths: &[
            ("instance", "$.detail.instance"),
            ("status", "$.detail.status"),
        ],
        template: r#""<instance> is in state \"<status>\"""#,
        output: Text(r#""i-1 is in state \"stopped\"""#),
    },
    Case {
        name: "variables in quotes and out",
        event: r#"{"detail":{"instance":"i-1","status":"stopped"}}"#,
        paths: &[
            ("instance", "$.detail.instance"),
            ("status", "$.detail.status"),
        ],
        template: r#"{"myInstance": <instance>,"myStatus": "<instance> is in state \"<status>\""}"#,
        output: Text(r#"{"myInstance": "i-1","myStatus": "i-1 is in state \"stopped\""}"#),
    },
];

/// <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-input-transformer-tutorial.html>
const TUTORIAL: &[Case] = &[Case {
    name: "This event was of customerCreated type",
    event: r#"{"detail-type": "customerCreated"}"#,
    paths: &[("detail-type", "$.detail-type")],
    template: r#""This event was of <detail-type> type.""#,
    output: Text(r#""This event was of customerCreated type.""#),
}];

const ACCOUNT_PATHS: &[(&str, &str)] = &[
    ("detail-type", "$.detail-type"),
    ("timestamp", "$.time"),
    ("command", "$.detail.command"),
];
const NO_COMMAND: &[(&str, &str)] = &[
    ("detail-type", "$.detail-type"),
    ("timestamp", "$.time"),
    ("command", "$.detail.notinmessage"),
];

/// <https://github.com/localstack/localstack/blob/83e73a7002b23cbb02902aa41bb02e78163360a9/tests/aws/services/events/test_events_inputs.snapshot.json>
const RECORDED: &[Case] = &[
    Case {
        name: "input_template_string, match all",
        event: ACCOUNT_EVENT,
        paths: ACCOUNT_PATHS,
        template: r#""Event of <detail-type> type, at time <timestamp>, info extracted from detail <command>""#,
        output: Text(
            r#""Event of core.update-account-command type, at time 2024-06-11T08:33:12Z, info extracted from detail update-account""#,
        ),
    },
    Case {
        name: "input_template_string, not match all",
        event: ACCOUNT_EVENT,
        paths: NO_COMMAND,
        template: r#""Event of <detail-type> type, at time <timestamp>, info extracted from detail <command>""#,
        output: Text(
            r#""Event of core.update-account-command type, at time 2024-06-11T08:33:12Z, info extracted from detail ""#,
        ),
    },
    Case {
        name: "input_template_string, special starting characters",
        event: ACCOUNT_EVENT,
        paths: ACCOUNT_PATHS,
        template: r#""{[/Check with special starting characters for event of <detail-type> type""#,
        output: Text(
            r#""{[/Check with special starting characters for event of core.update-account-command type""#,
        ),
    },
    Case {
        name: "input_template_json, match all",
        event: ACCOUNT_EVENT,
        paths: ACCOUNT_PATHS,
        template: r#"{"detailType": <detail-type>,  "time": <timestamp>, "command": <command>}"#,
        output: Json(
            r#"{"detailType":"core.update-account-command","time":"2024-06-11T08:33:12Z","command":"update-account"}"#,
        ),
    },
    Case {
        name: "input_template_json, not match all",
        event: ACCOUNT_EVENT,
        paths: NO_COMMAND,
        template: r#"{"detailType": <detail-type>,  "time": <timestamp>, "command": <command>}"#,
        output: Json(
            r#"{"detailType":"core.update-account-command","time":"2024-06-11T08:33:12Z","command":""}"#,
        ),
    },
    Case {
        name: "predefined_variables in a string",
        event: ACCOUNT_EVENT,
        paths: &[],
        template: r#""Message containing all pre defined variables <aws.events.rule-arn> <aws.events.rule-name> <aws.events.event.ingestion-time>""#,
        output: Text(
            r#""Message containing all pre defined variables arn:aws:events:us-east-2:123456789012:rule/example example 2015-11-11T21:29:55Z""#,
        ),
    },
    Case {
        name: "predefined_variables in JSON",
        event: ACCOUNT_EVENT,
        paths: &[],
        template: r#"{"originalEvent": <aws.events.event>, "originalEventJson": <aws.events.event.json>}"#,
        output: Json(
            r#"{
              "originalEvent": {
                "id": "c0f3ae8d-9b0e-4a52-8a5e-7a1c8b1b0c11",
                "account": "111111111111",
                "detailType": "core.update-account-command",
                "time": "2024-06-11T08:33:12Z",
                "source": "core.update-account-command",
                "region": "us-east-1",
                "resources": [],
                "version": "0"
              },
              "originalEventJson": {
                "version": "0",
                "id": "c0f3ae8d-9b0e-4a52-8a5e-7a1c8b1b0c11",
                "detail-type": "core.update-account-command",
                "source": "core.update-account-command",
                "account": "111111111111",
                "time": "2024-06-11T08:33:12Z",
                "region": "us-east-1",
                "resources": [],
                "detail": {
                  "command": "update-account",
                  "payload": { "acc_id": "0a787ecb-4015", "sf_id": "baz" }
                }
              }
            }"#,
        ),
    },
];

#[test]
fn the_guides_examples() {
    run(GUIDE);
    run(ISSUES);
    run(TUTORIAL);
}

#[test]
fn the_apis_examples() {
    run(API);
}

#[test]
fn what_aws_answered() {
    run(RECORDED);
}

/// The same snapshots: `missing_keys`.
#[test]
fn a_template_with_an_unknown_variable_is_refused() {
    let template = r#""Event of <detail-type> type, with not defined key <notdefinedkey>""#;
    let error = transform(ACCOUNT_EVENT, ACCOUNT_PATHS, template).expect_err("refused");
    assert_eq!(
        error,
        InputError::Unknown {
            offset: 51,
            name: "notdefinedkey".to_owned()
        }
    );
}

/// The same snapshots: `TestInputPath`.
#[test]
fn input_paths() {
    let nested = r#"{"detail":{"command":"update-account","payload":{"acc_id":"0a787ecb-4015","payload":{"message":"baz","id":"123"}}}}"#;
    let cases = [
        (
            ACCOUNT_EVENT,
            "$.detail",
            r#"{"command":"update-account","payload":{"acc_id":"0a787ecb-4015","sf_id":"baz"}}"#,
        ),
        (
            ACCOUNT_EVENT,
            "$.detail.payload",
            r#"{"acc_id":"0a787ecb-4015","sf_id":"baz"}"#,
        ),
        (
            nested,
            "$.detail.payload",
            r#"{"acc_id":"0a787ecb-4015","payload":{"message":"baz","id":"123"}}"#,
        ),
        (ACCOUNT_EVENT, "$.detail.payload.sf_id", r#""baz""#),
    ];
    for (event, path, expected) in cases {
        let input = Input::compile(&TargetInputSpec::Path(path)).expect(path);
        let output = input.apply(event.as_bytes(), &CX).expect(path);
        assert_eq!(
            String::from_utf8(output).expect("UTF-8"),
            expected,
            "{path}"
        );
    }
}

/// Where AWS would deliver something else than the template shows, or nothing:
/// "EventBridge doesn't escape values extracted by Input Path".
#[test]
fn a_value_cannot_break_out_of_its_quotes() {
    let event = r#"{"detail":{"name":"x\",\"admin\":true,\"y\":\"","path":"C:\\new\nline"}}"#;
    let paths = &[
        ("name", "$.detail.name"),
        ("path", "$.detail.path"),
        ("detail", "$.detail"),
    ];
    let output = transform(
        event,
        paths,
        r#"{"a":"<name>","b":"at <path>","c":"<detail>"}"#,
    )
    .expect("an output");
    let value: Value = serde_json::from_str(&output).expect("JSON");
    assert_eq!(value["a"], "x\",\"admin\":true,\"y\":\"");
    assert_eq!(value["b"], "at C:\\new\nline");
    assert_eq!(value["c"], "{name:x,admin:true,y:,path:C:\\new\nline}");
    assert_eq!(value.get("admin"), None);
}
