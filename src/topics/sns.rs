//! What SNS sends to HTTP endpoints: notifications and the request to confirm.
//! The shapes are those of
//! <https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html>.

use super::{Links, Signer, Subscription};
use crate::event::{Event, rfc3339};
use crate::handlers::http::{Shape, Shaped};
use crate::handlers::{Failure, Message};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A topic's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicName {
    /// The topic.
    pub topic: String,
    /// The subscription.
    pub subscription: String,
    /// The topic's ARN, see [`topic_arn`].
    pub arn: String,
}

/// The ARN of a topic.
#[must_use]
pub fn topic_arn(region: &str, account: &str, topic: &str) -> String {
    format!("arn:aws:sns:{region}:{account}:{topic}")
}

/// How much of SNS's shape a subscription gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Notifications: the message inside a JSON document.
    Wrapped,
    /// "Raw message delivery": the message itself, with SNS's headers.
    Raw,
}

/// Builds SNS's requests for one subscription.
pub struct Sns {
    name: TopicName,
    style: Style,
    subscription: Arc<Subscription>,
    links: Links,
    signer: Arc<Signer>,
}

impl Sns {
    /// Requests for `name`, with links from `links`.
    #[must_use]
    pub fn new(
        name: TopicName,
        style: Style,
        subscription: Arc<Subscription>,
        links: Links,
        signer: Arc<Signer>,
    ) -> Self {
        Self {
            name,
            style,
            subscription,
            links,
            signer,
        }
    }

    /// The request to confirm the subscription.
    ///
    /// # Errors
    /// When the node's address is not known yet or nothing can be signed.
    pub fn confirmation(&self, now_ms: i64) -> Result<Shaped, Failure> {
        let token = self.subscription.standing().token;
        let url = self.link("confirm", &token)?;
        let arn = &self.name.arn;
        let id = uuid::Uuid::new_v4().to_string();
        let mut document = json!({
            "Type": "SubscriptionConfirmation",
            "MessageId": id,
            "Token": token,
            "TopicArn": arn,
            "Message": format!(
                "You have chosen to subscribe to the topic {arn}.\nTo confirm the subscription, visit the SubscribeURL included in this message."
            ),
            "SubscribeURL": url,
            "Timestamp": rfc3339(now_ms),
        });
        self.sign(&mut document)?;
        Ok(self.request(id, "SubscriptionConfirmation", document.to_string().into()))
    }

    fn notification(&self, message: &Message) -> Result<Bytes, Failure> {
        let said = String::from_utf8_lossy(message.payload());
        let mut document = json!({
            "Type": "Notification",
            "MessageId": message.event.id(),
            "TopicArn": self.name.arn,
            "Message": said,
            "Timestamp": rfc3339(message.accepted_ms),
            "UnsubscribeURL": self.link("unsubscribe", &self.subscription.standing().leave)?,
            "MessageAttributes": attributes(&message.event),
        });
        self.sign(&mut document)?;
        Ok(document.to_string().into())
    }

    fn sign(&self, document: &mut Value) -> Result<(), Failure> {
        let unready = || Failure::held("NoAddress", "the node does not listen yet");
        let file = format!("/sns/{}", self.signer.file());
        let url = self.links.to(&file).ok_or_else(unready)?;
        let text = string_to_sign(document);
        let signature = self.signer.sign(&text).map_err(|e| {
            Failure::transient("NotSigned", "the message cannot be signed").caused_by(&e)
        })?;
        document["SignatureVersion"] = json!("2");
        document["Signature"] = json!(signature);
        document["SigningCertURL"] = json!(url);
        Ok(())
    }

    fn link(&self, what: &str, token: &str) -> Result<String, Failure> {
        let TopicName {
            topic,
            subscription,
            ..
        } = &self.name;
        self.links
            .to(&format!(
                "/topics/{topic}/subscriptions/{subscription}/{what}?token={token}"
            ))
            .ok_or_else(|| Failure::held("NoAddress", "the node does not listen yet"))
    }

    fn request(&self, id: String, kind: &str, body: Bytes) -> Shaped {
        let text = |text: &str| text.to_owned();
        let mut headers = vec![
            ("content-type", text("text/plain; charset=UTF-8")),
            ("x-amz-sns-message-type", text(kind)),
            ("x-amz-sns-message-id", id.clone()),
            ("x-amz-sns-topic-arn", self.name.arn.clone()),
        ];
        if kind == "Notification" {
            let arn = format!("{}:{}", self.name.arn, self.name.subscription);
            headers.push(("x-amz-sns-subscription-arn", arn));
            if self.style == Style::Raw {
                headers.push(("x-amz-sns-rawdelivery", text("true")));
            }
        }
        Shaped { id, headers, body }
    }
}

impl Shape for Sns {
    fn shape(&self, message: &Message) -> Result<Shaped, Failure> {
        let body = match self.style {
            Style::Wrapped => self.notification(message)?,
            Style::Raw => message.payload().clone(),
        };
        Ok(self.request(message.event.id().to_owned(), "Notification", body))
    }
}

/// The attributes of a message: the envelope around `detail`.
fn attributes(event: &Event) -> Value {
    let envelope = event.value();
    let mut found = Map::new();
    for (name, value) in envelope.as_object().into_iter().flatten() {
        let (kind, text) = match value {
            Value::String(text) if name != "version" && name != "id" => ("String", text.clone()),
            Value::Array(items) if !items.is_empty() => ("String.Array", value.to_string()),
            _ => continue,
        };
        found.insert(name.clone(), json!({ "Type": kind, "Value": text }));
    }
    found.into()
}

/// The text that a signature is made of: the names and values of these members,
/// a line each, in this order, those that are missing left out.
/// <https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message-verify-message-signature.html>
#[must_use]
pub fn string_to_sign(document: &Value) -> String {
    let members: &[&str] = match document["Type"].as_str() {
        Some("Notification") => &[
            "Message",
            "MessageId",
            "Subject",
            "Timestamp",
            "TopicArn",
            "Type",
        ],
        _ => &[
            "Message",
            "MessageId",
            "SubscribeURL",
            "Timestamp",
            "Token",
            "TopicArn",
            "Type",
        ],
    };
    let mut text = String::new();
    for name in members {
        if let Some(value) = document[*name].as_str() {
            text.push_str(&format!("{name}\n{value}\n"));
        }
    }
    text
}
