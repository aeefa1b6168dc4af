//! The endpoints whose answers a page makes too: what is asked for is checked, run and answered, whole or in parts.

use crate::server::App;
use crate::server::Caller;
use crate::server::asked::{Planned, planned};
use crate::server::error::{ApiResult, json_response};
use crate::server::generation::Generation;
use crate::server::models::Lease;
use crate::server::stream::{Events, Gone, respond};
use axum::extract::{Request, State};
use axum::response::Response;
use std::sync::Arc;
use tessera_openai::chat::{self, Chat};
use tessera_openai::completions::{self, Completion};
use tessera_openai::embeddings::{self, Embeddings};
use tessera_openai::fields;
use tessera_openai::reply::Reply;

/// `POST /v1/chat/completions`.
pub async fn chat(State(app): State<Arc<App>>, request: Request) -> ApiResult<Response> {
    let Planned { caller, lease, model, plan } =
        planned(&app, request, &fields::chat::REQUEST, |body, served| chat::plan(body, served)).await?;
    answer(&app, &caller, lease, Chat::new(plan, model)).await
}

/// `POST /v1/completions`.
pub async fn completions(State(app): State<Arc<App>>, request: Request) -> ApiResult<Response> {
    let Planned { caller, lease, model, plan } =
        planned(&app, request, &fields::completions::REQUEST, |body, served| completions::plan(body, served))
            .await?;
    answer(&app, &caller, lease, Completion::new(plan, model)).await
}

/// `POST /v1/embeddings`.
pub async fn embeddings(State(app): State<Arc<App>>, request: Request) -> ApiResult<Response> {
    let Planned { caller, lease, model, plan } =
        planned(&app, request, &fields::other::EMBEDDINGS, |body, served| embeddings::plan(body, served))
            .await?;
    answer(&app, &caller, lease, Embeddings::new(plan, model)).await
}

async fn answer(
    app: &App,
    caller: &Caller,
    lease: Lease,
    mut reply: impl Reply + 'static,
) -> ApiResult<Response> {
    let mut generation = Generation::start(app, caller, lease, reply.jobs(caller.flow))?;
    if reply.is_streamed() {
        return Ok(respond(move |events| write(events, generation, reply)));
    }
    reply.begin(generation.model());
    while let Some((i, event)) = generation.next().await? {
        reply.take(i, event, generation.model())?;
    }
    Ok(json_response(&reply.whole()?))
}

/// Writes the parts of a stream.
async fn write(events: Events, mut generation: Generation, mut reply: impl Reply) -> Result<(), Gone> {
    for part in reply.begin(generation.model()) {
        events.data(&part).await?;
    }
    loop {
        let parts = match events.next(&mut generation).await? {
            Ok(Some((i, event))) => reply.take(i, event, generation.model()),
            Ok(None) => break,
            Err(error) => Err(error),
        };
        match parts {
            Ok(parts) => {
                for part in parts {
                    events.data(&part).await?;
                }
            }
            Err(error) => return events.error(&error).await,
        }
    }
    for part in reply.end() {
        events.data(&part).await?;
    }
    events.done().await
}
