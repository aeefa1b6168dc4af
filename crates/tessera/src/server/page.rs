//! The web page at `/`.

use axum::Router;

/// Routes of the page's files. They need no API key: the page asks for one when the API does.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
}
