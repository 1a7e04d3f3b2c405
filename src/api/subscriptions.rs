//! Subscriptions and their standing: endpoints confirm and leave by the links that
//! they were sent; people disable and enable.

use super::ApiError;
use crate::app::Node;
use crate::bus::RouteInfo;
use crate::config::{Subscription as Declared, To};
use crate::event::rfc3339;
use crate::topics::{self, Refused, Subscription, topic_arn};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

type Xml = ([(HeaderName, &'static str); 1], String);

/// `GET /topics`: topics, their subscriptions, and how these stand.
pub(super) async fn topics(State(node): State<Arc<Node>>) -> Json<Value> {
    let routes = node.bus.routes();
    let (standings, circuits) = (node.subscriptions(), node.circuits());
    let topic = |topic: &crate::config::Topic| {
        let all = topic.subscriptions.iter();
        let all: Map<String, Value> = all
            .map(|(name, one)| {
                let route = &one.target.route;
                let mut value = told(one, routes.iter().find(|r| r.name == *route));
                if let Some(subscription) = standings.get(route) {
                    add_standing(&mut value, subscription);
                }
                if let Some(circuit) = circuits.get(route) {
                    value["circuit"] = json!(circuit.status());
                }
                (name.clone(), value)
            })
            .collect();
        json!({ "subscriptions": all })
    };
    let config = node.config();
    let all = config.topics.iter();
    Json(all.map(|(name, one)| (name.clone(), topic(one))).collect())
}

fn told(declared: &Declared, route: Option<&RouteInfo>) -> Value {
    let target = &declared.target;
    let (by, to) = match &target.to {
        To::Webhook(webhook) => ("webhook", Some(json!(webhook.url))),
        To::Exec(exec) => ("exec", exec.command.first().map(|program| json!(program))),
        To::Queue(queue) => ("queue", Some(json!(queue))),
        To::Bus(bus) => ("bus", Some(json!(bus))),
        To::Publish(publish) => (publish.kind(), Some(json!(publish.address()))),
        To::Handler(name) | To::Topic(name) => ("handler", Some(json!(name))),
        To::Pull => ("pull", None),
    };
    json!({
        "by": by,
        "to": to,
        "state": "active",
        "pending": route.map_or(0, |route| route.pending),
        "dead": route.map_or(0, |route| route.dead),
    })
}

fn add_standing(value: &mut Value, subscription: &Subscription) {
    let standing = subscription.standing();
    value["state"] = json!(standing.state);
    value["since"] = json!(rfc3339(standing.since_ms));
    value["reason"] = match standing.state {
        topics::State::Pending => json!(subscription.asked()),
        _ => json!(standing.reason),
    };
}

#[derive(Deserialize)]
pub(super) struct Token {
    token: String,
}

/// `GET /topics/{topic}/subscriptions/{name}/confirm`: what `SubscribeURL` leads to.
pub(super) async fn confirm(
    State(node): State<Arc<Node>>,
    Path((topic, name)): Path<(String, String)>,
    Query(Token { token }): Query<Token>,
) -> Result<Xml, ApiError> {
    let subscription = find(&node, &topic, &name)?;
    subscription.confirm(&token).await.map_err(refused)?;
    let config = node.config();
    let defaults = &config.node;
    let arn = topic_arn(&defaults.region, &defaults.account, &topic);
    Ok(xml(&format!(
        "<ConfirmSubscriptionResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><ConfirmSubscriptionResult><SubscriptionArn>{arn}:{name}</SubscriptionArn></ConfirmSubscriptionResult></ConfirmSubscriptionResponse>"
    )))
}

/// `GET /topics/{topic}/subscriptions/{name}/unsubscribe`: what `UnsubscribeURL` leads to.
pub(super) async fn unsubscribe(
    State(node): State<Arc<Node>>,
    Path((topic, name)): Path<(String, String)>,
    Query(Token { token }): Query<Token>,
) -> Result<Xml, ApiError> {
    let subscription = find(&node, &topic, &name)?;
    subscription.leave(&token).await.map_err(refused)?;
    Ok(xml(
        "<UnsubscribeResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"/>",
    ))
}

/// `POST /topics/{topic}/subscriptions/{name}/enable`: messages flow again.
pub(super) async fn enable(
    State(node): State<Arc<Node>>,
    Path((topic, name)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let subscription = find(&node, &topic, &name)?;
    subscription.enable().await.map_err(refused)?;
    Ok(Json(json!({ "state": subscription.standing().state })))
}

#[derive(Deserialize)]
pub(super) struct Disable {
    why: String,
}

/// `POST /topics/{topic}/subscriptions/{name}/disable`: messages wait.
pub(super) async fn disable(
    State(node): State<Arc<Node>>,
    Path((topic, name)): Path<(String, String)>,
    Json(Disable { why }): Json<Disable>,
) -> Result<Json<Value>, ApiError> {
    let subscription = find(&node, &topic, &name)?;
    subscription.disable(&why).await.map_err(refused)?;
    Ok(Json(json!({ "state": subscription.standing().state })))
}

/// `GET /sns/{file}`: the certificate of what is signed in SNS's shape.
pub(super) async fn certificate(
    State(node): State<Arc<Node>>,
    Path(file): Path<String>,
) -> Result<Xml, ApiError> {
    match node.signer() {
        Some(signer) if signer.file() == file => Ok((
            [(CONTENT_TYPE, "application/x-pem-file")],
            signer.certificate().to_owned(),
        )),
        _ => Err(ApiError::missing("certificate", &file, &[])),
    }
}

fn find(node: &Node, topic: &str, name: &str) -> Result<Arc<Subscription>, ApiError> {
    if let Some(found) = node.subscriptions().get(&topics::route_of(topic, name)) {
        return Ok(Arc::clone(found));
    }
    let config = node.config();
    let declared = config.topics.get(topic);
    if declared.is_some_and(|topic| topic.subscriptions.contains_key(name)) {
        let message = format!(
            "`{name}` has no endpoint that could be asked; `POST /routes/pause` holds its messages"
        );
        return Err(ApiError::bad("NoEndpoint", message));
    }
    Err(ApiError::missing("subscription", name, &[]))
}

fn refused(error: Refused) -> ApiError {
    let (status, code) = match &error {
        Refused::Token => (StatusCode::FORBIDDEN, "InvalidToken"),
        Refused::Disabled => (StatusCode::CONFLICT, "Disabled"),
        Refused::State(_) => (StatusCode::SERVICE_UNAVAILABLE, "State"),
    };
    ApiError::new(status, code, error.to_string())
}

fn xml(body: &str) -> Xml {
    ([(CONTENT_TYPE, "text/xml")], format!("{body}\n"))
}
