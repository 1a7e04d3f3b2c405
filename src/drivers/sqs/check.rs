//! Looking whether AWS, and a queue there, will do as they are asked, before anything
//! runs.

use super::client::{AwsOptions, refused, sdk_config};
use super::queue::SqsQueue;
use crate::drivers::Finding;
use crate::queues::BrokerError;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::ProvideCredentials;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::QueueAttributeName;
use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;
use tokio::net::TcpStream;

/// How long the endpoint may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether there is a region, and credentials, and an endpoint that answers.
pub async fn check_account(options: &AwsOptions) -> Finding {
    let config = sdk_config(options).await;
    let Some(region) = config.region() else {
        return Err("no region: write `region`, or set `AWS_REGION`".to_owned());
    };
    let Some(provider) = config.credentials_provider() else {
        return Err("no credentials: write keys or a profile".to_owned());
    };
    if let Err(error) = provider.provide_credentials().await {
        return Err(format!(
            "no credentials: {}; write keys or a `profile`, or set `AWS_ACCESS_KEY_ID`",
            DisplayErrorContext(&error)
        ));
    }
    if let Some(endpoint) = &options.endpoint {
        reach(endpoint).await?;
    }
    Ok(format!("credentials are there, region {region}"))
}

async fn reach(endpoint: &str) -> Result<(), String> {
    let wrong = |why: &dyn std::fmt::Display| format!("{endpoint} cannot be reached: {why}");
    let uri: http::Uri = endpoint.parse().map_err(|e| wrong(&e))?;
    let default = if uri.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = (host, uri.port_u16().unwrap_or(default));
    match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(wrong(&error)),
        Err(_) => Err(wrong(&"no answer")),
    }
}

/// What a call without entries says about the permission to make it: it does
/// nothing, and is refused for being empty by those alone who may make it.
pub(in crate::drivers) fn permitted<T, E>(
    answer: Result<T, SdkError<E, HttpResponse>>,
    what: &str,
) -> Result<(), BrokerError>
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let Err(error) = answer else { return Ok(()) };
    let reached = matches!(error, SdkError::ServiceError(_));
    match refused(&error, what) {
        refusal @ BrokerError::Refused {
            code: "AccessDenied" | "BadCredentials",
            ..
        } => Err(refusal),
        away if !reached => Err(away),
        _ => Ok(()),
    }
}

impl SqsQueue {
    /// Looks whether the queue is there, whether it can be written and read, and
    /// whether its dead letters have somewhere to go. Makes nothing, sends nothing,
    /// and takes nothing.
    pub async fn check(&self) -> Vec<Finding> {
        let (client, url) = match self.find().await {
            Ok(Some(found)) => found,
            Ok(None) => return vec![Ok("the queue is made at the start".to_owned())],
            Err(error) => return vec![Err(error.to_string())],
        };
        let asked = client.get_queue_attributes().queue_url(&url);
        let asked = asked.attribute_names(QueueAttributeName::All).send().await;
        let attributes = match asked {
            Ok(told) => told.attributes.unwrap_or_default(),
            Err(error) => {
                let error = refused(&error, &self.doing("asking about the queue"));
                return vec![Err(error.to_string())];
            }
        };
        let ready = attributes.get(&QueueAttributeName::ApproximateNumberOfMessages);
        let ready = ready.map_or("0", String::as_str);
        let mut findings = vec![Ok(format!("the queue is there; {ready} messages wait"))];
        findings.push(told(
            "it can be written",
            self.may_write(&client, &url).await,
        ));
        // A message that is received is counted as received.
        let may_read = self.may_read(&client, &url, ready == "0").await;
        findings.push(told("it can be read", may_read));
        findings.extend(self.dead_letters(&client, &attributes).await);
        findings
    }

    async fn may_write(&self, client: &Client, url: &str) -> Result<(), BrokerError> {
        let send = client.send_message_batch().queue_url(url);
        let sent = send.set_entries(Some(Vec::new())).send().await;
        permitted(sent, &self.doing("sending to the queue"))
    }

    async fn may_read(&self, client: &Client, url: &str, empty: bool) -> Result<(), BrokerError> {
        if empty {
            let receive = client.receive_message().queue_url(url);
            let received = receive.visibility_timeout(0).wait_time_seconds(0);
            permitted(
                received.send().await,
                &self.doing("receiving from the queue"),
            )?;
        }
        let delete = client.delete_message_batch().queue_url(url);
        let deleted = delete.set_entries(Some(Vec::new())).send().await;
        permitted(deleted, &self.doing("deleting from the queue"))?;
        let hide = client.change_message_visibility_batch().queue_url(url);
        let hidden = hide.set_entries(Some(Vec::new())).send().await;
        permitted(hidden, &self.doing("changing visibility in the queue"))
    }

    /// Whether the queue that the redrive policy names is there.
    async fn dead_letters(
        &self,
        client: &Client,
        attributes: &HashMap<QueueAttributeName, String>,
    ) -> Option<Finding> {
        let policy = attributes.get(&QueueAttributeName::RedrivePolicy)?;
        let policy: serde_json::Value = serde_json::from_str(policy).ok()?;
        let arn = policy["deadLetterTargetArn"].as_str()?;
        // arn:aws:sqs:REGION:ACCOUNT:NAME
        let mut parts = arn.rsplit(':');
        let (name, account) = (parts.next()?, parts.next()?);
        let ask = client.get_queue_url().queue_name(name);
        let found = ask.queue_owner_aws_account_id(account).send().await;
        let count = policy["maxReceiveCount"].to_string();
        let count = count.trim_matches('"');
        Some(match found {
            Ok(_) => Ok(format!(
                "its dead-letter queue `{name}` is there; SQS moves a message after {count} receives"
            )),
            Err(error) => {
                let what = format!("its dead-letter queue `{name}`");
                Err(refused(&error, &what).to_string())
            }
        })
    }
}

fn told(well: &str, checked: Result<(), BrokerError>) -> Finding {
    match checked {
        Ok(()) => Ok(well.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
