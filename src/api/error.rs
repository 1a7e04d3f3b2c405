//! One table from what went wrong to an HTTP answer.

use crate::bus::BusError;
use crate::dlq::DlqError;
use crate::sources::IntakeError;
use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;

/// An answer that is not a success.
#[derive(Clone, Debug, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    #[serde(skip)]
    status: u16,
    #[serde(skip)]
    retry_after: Option<Duration>,
    /// A short, stable name.
    pub code: &'static str,
    /// What is wrong, for people.
    pub message: String,
    /// The way out, where there is one to name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// More, for programs.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub details: Value,
}

impl ApiError {
    /// An answer with a status.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: status.as_u16(),
            retry_after: None,
            code,
            message: message.into(),
            hint: None,
            details: Value::Null,
        }
    }

    /// 400: the request is wrong.
    #[must_use]
    pub fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 404: there is no such thing; names what there is.
    #[must_use]
    pub fn missing(what: &str, name: &str, known: &[&str]) -> Self {
        let near = known
            .iter()
            .map(|k| (strsim::damerau_levenshtein(k, name), *k))
            .min()
            .filter(|(distance, _)| *distance <= 3);
        let mut error = Self::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            format!("no {what} is named `{name}`"),
        );
        error.hint = match near {
            Some((_, near)) => Some(format!("did you mean `{near}`?")),
            None if known.is_empty() => None,
            None => Some(format!("there is: {}", known.join(", "))),
        };
        error
    }

    /// Adds data for programs.
    #[must_use]
    pub fn with(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    /// Adds the way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after;
        let mut response = (status, Json(serde_json::json!({ "error": self }))).into_response();
        if let Some(after) = retry_after {
            let seconds = after.as_secs().max(1);
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<IntakeError> for ApiError {
    fn from(error: IntakeError) -> Self {
        let mut answer = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Unavailable",
            error.to_string(),
        );
        if let IntakeError::Busy {
            retry_after,
            overloaded,
            ..
        } = error
        {
            answer.code = "Busy";
            answer.retry_after = Some(retry_after);
            if overloaded {
                answer.status = StatusCode::TOO_MANY_REQUESTS.as_u16();
            }
        }
        answer
    }
}

impl From<BusError> for ApiError {
    fn from(error: BusError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Log", error.to_string())
    }
}

impl From<DlqError> for ApiError {
    fn from(error: DlqError) -> Self {
        match error {
            DlqError::UnknownRoute(_) => {
                Self::new(StatusCode::NOT_FOUND, "NotFound", error.to_string())
                    .hint("`pointsman queues` lists the routes")
            }
            DlqError::Gone(_) | DlqError::Several(..) => {
                Self::new(StatusCode::CONFLICT, "Conflict", error.to_string())
                    .hint("`pointsman dlq list` shows them")
            }
            DlqError::Bus(error) => error.into(),
        }
    }
}

/// 404 for a path that is not served.
pub(super) async fn not_found(uri: Uri) -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "NotFound",
        format!("there is nothing at `{}`", uri.path()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(overloaded: bool, seconds: u64) -> (u16, Option<String>) {
        let response = ApiError::from(IntakeError::Busy {
            reason: "full".to_owned(),
            retry_after: Duration::from_secs(seconds),
            overloaded,
        })
        .into_response();
        let after = response.headers().get(RETRY_AFTER);
        let after = after.and_then(|after| after.to_str().ok());
        (response.status().as_u16(), after.map(str::to_owned))
    }

    #[test]
    fn too_much_is_429_and_no_room_is_503_both_with_a_time() {
        assert_eq!(answered(true, 1), (429, Some("1".to_owned())));
        assert_eq!(answered(false, 30), (503, Some("30".to_owned())));
        assert_eq!(answered(false, 0).1, Some("1".to_owned()));
    }
}
