//! The engine's thread.

use super::{EngineEvent, FailureKind, Shared};
use crate::model::Model;
use crate::tokenizer::Tokenizer;
use std::sync::Arc;

/// Serves until the engine is closed.
pub(super) fn run(shared: &Shared, _model: Model, _tokenizer: &Arc<Tokenizer>) {
    loop {
        let mut inbox = shared.inbox();
        while inbox.submitted.is_empty() && inbox.closes.is_none() {
            inbox = shared.wake.wait(inbox).unwrap_or_else(|e| e.into_inner());
        }
        let submitted = std::mem::take(&mut inbox.submitted);
        inbox.live -= submitted.len();
        inbox.ended = inbox.closes.is_some();
        let ended = inbox.ended;
        drop(inbox);
        for mut submission in submitted {
            let error = "this engine does not run requests yet".to_owned();
            (submission.sink)(EngineEvent::Failed { error, kind: FailureKind::Internal });
        }
        if ended {
            return;
        }
    }
}
