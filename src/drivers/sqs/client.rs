//! How AWS is reached, and what its errors mean.

use crate::queues::BrokerError;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::config::Credentials;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use std::error::Error;

/// Where AWS is, and who we are there. What is left out is found as AWS's own
/// tools find it: environment, profiles, instance roles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AwsOptions {
    /// Name of the connection, for people.
    pub name: String,
    /// The region.
    pub region: Option<String>,
    /// Base URL instead of AWS's own.
    pub endpoint: Option<String>,
    /// Access key and its secret.
    pub key: Option<(String, String)>,
    /// Token of temporary credentials.
    pub session_token: Option<String>,
    /// Profile in AWS's configuration files.
    pub profile: Option<String>,
}

/// What the clients of all services are made of.
pub async fn sdk_config(options: &AwsOptions) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12());
    if let Some(region) = &options.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(endpoint) = &options.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    if let Some((id, secret)) = &options.key {
        let token = options.session_token.clone();
        loader =
            loader.credentials_provider(Credentials::new(id, secret, token, None, "pointsman"));
    }
    if let Some(profile) = &options.profile {
        loader = loader.profile_name(profile);
    }
    loader.load().await
}

/// What an error of the SDK means. `what`: what was tried, for people.
pub fn refused<E>(error: &SdkError<E, HttpResponse>, what: &str) -> BrokerError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let status = error.raw_response().map(|raw| raw.status().as_u16());
    let code = error.as_service_error().and_then(|said| said.code());
    if let (None, Some(401 | 403)) = (code, status) {
        // Whoever stands before the service may refuse in words of its own.
        return judged("AccessDenied", "it answered 403 Forbidden", what);
    }
    let SdkError::ServiceError(said) = error else {
        // Not reached, cut off, too late, or an answer that cannot be read.
        return BrokerError::Unavailable(format!("{what}: {}", DisplayErrorContext(error)));
    };
    let said = said.err();
    let code = said.code().unwrap_or("Unknown");
    let message = said.message().unwrap_or("no reason was given");
    judged(code, message, what)
}

/// Codes are those of the services' references, with and without the prefix of the
/// older protocol.
fn judged(code: &str, message: &str, what: &str) -> BrokerError {
    let short = code.rsplit('.').next().unwrap_or(code);
    let told = |hint: &str| format!("{what}: {message} ({code}); {hint}");
    let refuse = |code, hint: &str, permanent| BrokerError::Refused {
        code,
        reason: told(hint),
        permanent,
    };
    match short {
        "QueueDoesNotExist" | "NonExistentQueue" => refuse(
            "NoSuchQueue",
            "make it, or let it be made with `declare: true`",
            false,
        ),
        "NotFound" | "NotFoundException" => {
            refuse("NoSuchTopic", "check its ARN and the region", false)
        }
        "AccessDenied"
        | "AccessDeniedException"
        | "AuthorizationError"
        | "AuthorizationErrorException" => refuse(
            "AccessDenied",
            "the credentials of the connection lack this permission",
            false,
        ),
        "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "InvalidSecurity"
        | "MissingAuthenticationToken" => refuse(
            "BadCredentials",
            "check the keys of the connection, the clock and the region",
            false,
        ),
        "InvalidMessageContents" | "BatchRequestTooLong" | "MessageTooLong" => {
            refuse("NotTaken", "the message cannot be sent as it is", true)
        }
        "InvalidParameterValue"
        | "InvalidParameter"
        | "InvalidParameterException"
        | "ParameterValueInvalid" => {
            refuse("BadParameter", "the message cannot be sent as it is", true)
        }
        "QueueNameExists" => refuse(
            "OtherAttributes",
            "it is there with other attributes; `declare: passive` takes it as it is",
            false,
        ),
        // Throttles and whatever is the service's own trouble.
        _ => BrokerError::Unavailable(format!("{what}: {message} ({code})")),
    }
}

/// The answer for one entry of a batch.
pub(in crate::drivers) fn entry_refused(
    code: &str,
    message: Option<&str>,
    sender_fault: bool,
    what: &str,
) -> BrokerError {
    let judged = judged(code, message.unwrap_or("no reason was given"), what);
    match (&judged, sender_fault) {
        (BrokerError::Unavailable(reason), true) => BrokerError::Refused {
            code: "NotTaken",
            reason: reason.clone(),
            permanent: true,
        },
        _ => judged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_to_do_and_whether_to_try_again() {
        let said = |code: &str| match judged(code, "no", "sending to `q`") {
            BrokerError::Refused {
                code, permanent, ..
            } => (code, permanent),
            _ => ("away", false),
        };
        assert_eq!(
            said("AWS.SimpleQueueService.NonExistentQueue"),
            ("NoSuchQueue", false)
        );
        assert_eq!(said("QueueDoesNotExist"), ("NoSuchQueue", false));
        assert_eq!(said("AccessDenied"), ("AccessDenied", false));
        assert_eq!(said("InvalidMessageContents"), ("NotTaken", true));
        assert_eq!(said("RequestThrottled"), ("away", false));
        assert_eq!(said("InternalError"), ("away", false));
        let entry = entry_refused("Strange", None, true, "sending");
        assert!(matches!(
            entry,
            BrokerError::Refused {
                permanent: true,
                ..
            }
        ));
    }
}
