//! The web page at `/`.

use super::App;
use axum::Router;
use std::sync::Arc;

/// Adds the page's routes.
pub fn routes(router: Router<Arc<App>>) -> Router<Arc<App>> {
    router
}
