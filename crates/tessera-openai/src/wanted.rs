//! Whether the work that a thread does is still wanted.

use crate::error::{ApiError, ApiResult};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

thread_local! {
    /// Set when the client of this thread's work has gone.
    static GONE: RefCell<Arc<AtomicBool>> = RefCell::default();
}

/// An error if the client of the work that this thread does has gone. Asked before each step that may take long.
pub fn still_wanted() -> ApiResult<()> {
    match GONE.with_borrow(|gone| gone.load(Ordering::Relaxed)) {
        true => Err(ApiError::unavailable("client_gone", "the client has gone")),
        false => Ok(()),
    }
}

/// Does some work on this thread, for a client that has gone when `gone` is set.
pub fn while_wanted<T>(gone: Arc<AtomicBool>, work: impl FnOnce() -> ApiResult<T>) -> ApiResult<T> {
    GONE.set(gone);
    let done = still_wanted().and_then(|()| work());
    GONE.set(Arc::default());
    done
}
