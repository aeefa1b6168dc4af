//! Every failure that a client sees, in the shape of OpenAI's error object.

#[cfg(feature = "axum")]
use axum::body::Body;
#[cfg(feature = "axum")]
use axum::response::{IntoResponse, Response};
use http::StatusCode;
#[cfg(feature = "axum")]
use http::{HeaderValue, header};
use serde_json::{Value, json};
use tessera_engine::failure::{Failure, FailureKind};
use tessera_engine::request::SubmitError;

/// A request that is not answered, with the reason.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// Status of the response.
    pub status: StatusCode,
    /// What is wrong, what was expected and found.
    pub message: String,
    /// OpenAI's `type`.
    pub kind: &'static str,
    /// Path of the field that is wrong, such as `messages[2].content[0].type`.
    pub param: Option<String>,
    /// A word for programs.
    pub code: Option<&'static str>,
    /// Seconds after which it may be tried again.
    pub retry_after: Option<u64>,
}

/// The result of everything that looks at a request.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: String) -> ApiError {
        ApiError { status, message, kind, param: None, code: Some(code), retry_after: None }
    }

    /// 400 about a field.
    pub fn field(param: impl Into<String>, code: &'static str, message: impl Into<String>) -> ApiError {
        let error = ApiError::new(StatusCode::BAD_REQUEST, "invalid_request_error", code, message.into());
        ApiError { param: Some(param.into()), ..error }
    }

    /// 400 about a value that lies outside what is allowed.
    pub fn value(param: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError::field(param, "invalid_value", message)
    }

    /// 400 about something that is known and not implemented.
    pub fn unsupported(param: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError::field(param, "unsupported_value", message)
    }

    /// Another refusal of the request as a whole.
    pub fn request(status: StatusCode, code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError::new(status, "invalid_request_error", code, message.into())
    }

    /// 401.
    pub fn key(message: &str) -> ApiError {
        ApiError::request(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
    }

    /// 429 with the seconds to wait.
    pub fn rate_limit(message: String, seconds: u64) -> ApiError {
        let error =
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "rate_limit_exceeded", message);
        ApiError { retry_after: Some(seconds), ..error }
    }

    /// 503: later, or elsewhere, it would work.
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> ApiError {
        let error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", code, message.into());
        ApiError { retry_after: Some(1), ..error }
    }

    /// 504: the request took longer than the server allows.
    pub fn timeout(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::GATEWAY_TIMEOUT, "server_error", "timeout", message.into())
    }

    /// 500.
    pub fn internal(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "internal_error", message.into())
    }

    /// The error object.
    pub fn json(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }})
    }
}

#[cfg(feature = "axum")]
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json_response(&self.json());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // The log line of the request says why it was refused.
        response.extensions_mut().insert(self);
        response
    }
}

/// 200 with a JSON body.
#[cfg(feature = "axum")]
pub fn json_response(value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A request that the engine refuses.
pub fn refusal(error: &SubmitError) -> ApiError {
    let message = error.to_string();
    match error {
        SubmitError::QueueFull { .. } => ApiError::unavailable("queue_full", message),
        SubmitError::Closed => ApiError::unavailable("model_not_loaded", "the model is being unloaded"),
        SubmitError::PromptTooLong { .. } => {
            let error = ApiError::request(StatusCode::BAD_REQUEST, "context_length_exceeded", message);
            ApiError { param: Some("messages".into()), ..error }
        }
        SubmitError::EmptyPrompt => ApiError::request(StatusCode::BAD_REQUEST, "empty_prompt", message),
        SubmitError::BadToken { field, .. } => ApiError::value(*field, message),
        SubmitError::Logprobs { .. } => ApiError::value("top_logprobs", message),
        SubmitError::Encoder => {
            let message = format!("{message}: ask POST /v1/embeddings for its vectors");
            ApiError::request(StatusCode::BAD_REQUEST, "embedding_model", message)
        }
        SubmitError::Sampling(_) | SubmitError::Embed { .. } => {
            ApiError::request(StatusCode::BAD_REQUEST, "invalid_value", message)
        }
    }
}

/// A request that failed on the way.
pub fn failure(failure: &Failure) -> ApiError {
    let error = failure.to_string();
    match failure.kind() {
        FailureKind::Constraint => ApiError::request(StatusCode::BAD_REQUEST, "grammar_failed", error),
        FailureKind::Shutdown => ApiError::unavailable("shutting_down", error),
        FailureKind::Files => ApiError::unavailable("model_files_changed", error),
        FailureKind::Pages => ApiError::unavailable("out_of_memory", error),
        FailureKind::Model | FailureKind::NoToken | FailureKind::Internal => ApiError::internal(error),
    }
}
