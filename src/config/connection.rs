//! Connections: addresses and credentials of other systems, by name, for every
//! source, queue, publisher and loader that refers to them.

pub use crate::drivers::postgres::PostgresTls;
use crate::handlers::objects::BucketFolder;
use crate::text::Text;
use std::path::PathBuf;
use std::time::Duration;

/// A connection. Secrets in it are [`Text`]s that never show their value, even
/// when they were written without a reference.
#[derive(Clone, Debug)]
pub enum Connection {
    /// A broker that speaks AMQP 0-9-1.
    Amqp(AmqpConnection),
    /// AWS, or what speaks its protocols (S3, SQS, SNS).
    Aws(AwsConnection),
    /// PostgreSQL, or what speaks its protocol.
    Postgres(PostgresConnection),
    /// Amazon Redshift, which is loaded through a bucket.
    Redshift(RedshiftConnection),
}

impl Connection {
    /// The kind's name, as in the YAML.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Amqp(_) => "amqp",
            Self::Aws(_) => "aws",
            Self::Postgres(_) => "postgres",
            Self::Redshift(_) => "redshift",
        }
    }
}

/// A broker that speaks AMQP 0-9-1.
#[derive(Clone, Debug)]
pub struct AmqpConnection {
    /// As it was written, where it was written as a URL. Everything in it is in
    /// the other fields, too.
    pub url: Option<Text>,
    /// Hosts and ports, tried in turn; at least one.
    pub hosts: Vec<(String, u16)>,
    /// Who we are (default `guest`).
    pub user: Text,
    /// The password (default `guest`).
    pub password: Text,
    /// The virtual host (default `/`).
    pub vhost: String,
    /// TLS (default: off, or as the URL's scheme says).
    pub tls: Option<Tls>,
    /// How often a sign of life is sent and expected, whole seconds (default
    /// 10 s); a peer that is silent for twice as long counts as gone.
    pub heartbeat: Duration,
}

/// TLS to a broker. Without fields: the machine's root certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM file with the certificates to trust besides the machine's.
    pub ca: Option<PathBuf>,
    /// PEM file with our own certificate.
    pub cert: Option<PathBuf>,
    /// PEM file with its key.
    pub key: Option<PathBuf>,
}

/// AWS, or what speaks its protocols. What is left out comes from where AWS's
/// own tools take it: environment, profiles, instance roles.
#[derive(Clone, Debug, Default)]
pub struct AwsConnection {
    /// The region.
    pub region: Option<String>,
    /// Base URL instead of AWS's own.
    pub endpoint: Option<Text>,
    /// Access key; given with `secret_access_key` or not at all.
    pub access_key_id: Option<Text>,
    /// Its secret.
    pub secret_access_key: Option<Text>,
    /// Token of temporary credentials.
    pub session_token: Option<Text>,
    /// Profile in AWS's configuration files.
    pub profile: Option<String>,
    /// Buckets in the path, not in the host name (default: where `endpoint` is set).
    pub path_style: bool,
}

/// PostgreSQL, or what speaks its protocol.
#[derive(Clone, Debug)]
pub struct PostgresConnection {
    /// As it was written, where it was written as a URL. Everything in it is in
    /// the other fields, too.
    pub url: Option<Text>,
    /// Name or address of the server.
    pub host: String,
    /// Its port (default 5432).
    pub port: u16,
    /// Who we are.
    pub user: Text,
    /// The password.
    pub password: Option<Text>,
    /// The database (default: the user's name).
    pub database: Option<String>,
    /// How TLS is used (default `prefer`).
    pub tls: PostgresTls,
    /// PEM file with the certificates to trust besides the machine's.
    pub ca: Option<PathBuf>,
    /// Longest time for making a connection (default 10 s).
    pub connect_timeout: Duration,
}

/// Amazon Redshift.
#[derive(Clone, Debug)]
pub struct RedshiftConnection {
    /// The cluster or workgroup (default port 5439).
    pub server: PostgresConnection,
    /// The bucket that rows go through.
    pub staging: BucketFolder,
    /// The role by which Redshift reads it: an ARN, several with commas, or `default`.
    pub iam_role: Option<Text>,
    /// The `aws` connection whose keys Redshift reads it with, where no role is given.
    pub credentials: Option<String>,
}
