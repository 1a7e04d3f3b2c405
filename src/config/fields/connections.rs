//! Connections to other systems.

use super::Kind::{Bool, Choice, Duration, Integer, OneOf, Table, Text};
use super::{FieldSpec, S3_FOLDER, Shape, TEXT_OR_LIST, field};

/// Kinds of connections.
pub(in crate::config) const CONNECTION_KINDS: [&str; 4] = ["amqp", "aws", "postgres", "redshift"];

pub(in crate::config) static CONNECTION: Shape = Shape {
    title: "a connection",
    fields: &[
        field(
            "amqp",
            Table(&AMQP),
            "",
            "a broker that speaks AMQP 0-9-1, such as RabbitMQ",
        ),
        field(
            "aws",
            Table(&AWS),
            "",
            "AWS, or what speaks its protocols: S3, SQS, SNS",
        ),
        field(
            "postgres",
            Table(&POSTGRES),
            "",
            "PostgreSQL, or what speaks its protocol",
        ),
        field(
            "redshift",
            Table(&REDSHIFT),
            "",
            "Amazon Redshift, which is loaded through a bucket",
        ),
    ],
};

pub(in crate::config) static AMQP: Shape = Shape {
    title: "an AMQP connection",
    fields: &[
        field(
            "url",
            Text,
            "",
            "`amqp://USER:PASSWORD@HOST:PORT/VHOST`, or `amqps://`; instead of `hosts`, `user`, `password` and `vhost`",
        ),
        field(
            "hosts",
            TEXT_OR_LIST,
            "localhost",
            "`HOST` or `HOST:PORT`; the nodes of a cluster are tried in turn",
        ),
        field("user", Text, "guest", "who we are"),
        field("password", Text, "guest", "the password"),
        field("vhost", Text, "/", "the virtual host"),
        field(
            "tls",
            OneOf(&[Bool, Table(&TLS)]),
            "false",
            "`true`, or the certificates (default for `amqps://`: `true`)",
        ),
        field(
            "heartbeat",
            Duration,
            "10s",
            "a broker that gives no sign of life for twice as long counts as gone",
        ),
    ],
};

pub(in crate::config) static TLS: Shape = Shape {
    title: "`tls`",
    fields: &[
        field(
            "ca",
            Text,
            "",
            "PEM file with certificates to trust besides the machine's",
        ),
        field("cert", Text, "", "PEM file with our own certificate"),
        field("key", Text, "", "PEM file with its key"),
    ],
};

pub(in crate::config) static AWS: Shape = Shape {
    title: "an AWS connection",
    fields: &[
        field("region", Text, "", "the region, like `eu-west-1`"),
        field("endpoint", Text, "", "base URL instead of AWS's own"),
        field(
            "access_key_id",
            Text,
            "",
            "access key (default: as AWS's tools find it: environment, profile, role)",
        ),
        field("secret_access_key", Text, "", "its secret"),
        field("session_token", Text, "", "token of temporary credentials"),
        field("profile", Text, "", "profile in AWS's configuration files"),
        field(
            "path_style",
            Bool,
            "",
            "put buckets into the path of URLs (default: where `endpoint` is set)",
        ),
    ],
};

const URL: FieldSpec = field(
    "url",
    Text,
    "",
    "`postgres://USER:PASSWORD@HOST:PORT/DATABASE`; instead of the fields up to `database`",
);
const HOST: FieldSpec = field("host", Text, "localhost", "name or address of the server");
const PASSWORD: FieldSpec = field("password", Text, "", "the password");
const DATABASE: FieldSpec = field(
    "database",
    Text,
    "",
    "the database (default: the user's name)",
);
const SERVER_TLS: FieldSpec = field(
    "tls",
    Choice(&["disable", "prefer", "require", "verify-full"]),
    "prefer",
    "as libpq's `sslmode`: only `verify-full` checks the certificate",
);
const CA: FieldSpec = field(
    "ca",
    Text,
    "",
    "PEM file with certificates to trust besides the machine's",
);
const CONNECT_TIMEOUT: FieldSpec = field(
    "connect_timeout",
    Duration,
    "10s",
    "longest time for making a connection",
);

pub(in crate::config) static POSTGRES: Shape = Shape {
    title: "a Postgres connection",
    fields: &[
        URL,
        HOST,
        field("port", Integer(1, 65_535), "5432", "its port"),
        field("user", Text, "postgres", "who we are"),
        PASSWORD,
        DATABASE,
        SERVER_TLS,
        CA,
        CONNECT_TIMEOUT,
    ],
};

pub(in crate::config) static REDSHIFT: Shape = Shape {
    title: "a Redshift connection",
    fields: &[
        URL,
        HOST,
        field("port", Integer(1, 65_535), "5439", "its port"),
        field("user", Text, "awsuser", "who we are"),
        PASSWORD,
        DATABASE,
        SERVER_TLS,
        CA,
        CONNECT_TIMEOUT,
        field(
            "staging",
            Table(&S3_FOLDER),
            "",
            "the bucket that rows go through, in the region of the cluster",
        ),
        field(
            "iam_role",
            Text,
            "",
            "the role by which Redshift reads the bucket: its ARN, several with commas, or `default`",
        ),
        field(
            "credentials",
            Text,
            "",
            "instead of a role: an `aws` connection whose access key Redshift reads the bucket with",
        ),
    ],
};
