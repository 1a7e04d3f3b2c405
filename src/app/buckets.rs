//! The buckets that a configuration names, and how each is reached.

use crate::config::{AwsConnection, Config, Connection, Source};
use crate::drivers::s3::{Bucket, S3Error, S3Options};
use crate::handlers::Failure;
use crate::handlers::objects::Places;
use crate::text::Text;

/// The places that events may name objects of: folders, and buckets.
pub(super) fn places(config: &Config) -> Result<Places, Failure> {
    let mut places = Places::default();
    for (name, source) in &config.sources {
        if let Source::Folder(options) = source {
            places.add_folder(name, options.root.clone());
        }
    }
    for one in config.buckets() {
        if places.bucket(one.bucket).is_none() {
            let bucket = open(config, one.connection, one.bucket)
                .map_err(|e| Failure::permanent("BadBucket", e.to_string()).caused_by(&e))?;
            places.add_bucket(one.bucket, bucket.store);
        }
    }
    Ok(places)
}

/// A bucket by a connection.
pub(super) fn open(
    config: &Config,
    connection: Option<&str>,
    bucket: &str,
) -> Result<Bucket, S3Error> {
    let options = match connection.and_then(|name| config.connections.get(name)) {
        Some(Connection::Aws(aws)) => options(aws),
        _ => S3Options::default(),
    };
    Bucket::open(bucket, &options)
}

/// The region that the events of a bucket bear, where the connection names one.
pub(super) fn region<'a>(config: &'a Config, connection: Option<&str>) -> Option<&'a str> {
    match config.connections.get(connection?) {
        Some(Connection::Aws(aws)) => aws.region.as_deref(),
        _ => None,
    }
}

fn options(aws: &AwsConnection) -> S3Options {
    let text = |text: &Option<Text>| text.as_ref().map(|t| t.reveal().to_owned());
    S3Options {
        region: aws.region.clone(),
        endpoint: text(&aws.endpoint),
        keys: text(&aws.access_key_id).zip(text(&aws.secret_access_key)),
        session_token: text(&aws.session_token),
        profile: aws.profile.clone(),
        path_style: aws.path_style,
    }
}
