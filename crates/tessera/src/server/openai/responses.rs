//! `POST /v1/responses`.

use crate::server::App;
use crate::server::error::{ApiError, ApiResult};
use axum::extract::{Request, State};
use axum::response::Response;
use std::sync::Arc;

/// Answers a request.
pub async fn handle(State(_app): State<Arc<App>>, _request: Request) -> ApiResult<Response> {
    Err(ApiError::internal("not yet"))
}
