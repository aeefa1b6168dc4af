//! `POST /tokenize` and `POST /detokenize`.

use super::tools::Tools;
use super::{messages, sampling};
use crate::server::App;
use crate::server::asked::planned;
use crate::server::error::{ApiError, ApiResult, json_response};
use crate::server::fields::{Fields, other};
use crate::server::models::Served;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::json;
use std::sync::Arc;
use tessera_engine::template::RenderOptions;

/// The tokens of a text or a conversation.
pub async fn tokenize(State(app): State<Arc<App>>, request: Request) -> ApiResult<Response> {
    let response = planned(&app, request, &other::TOKENIZE, |body, served| {
        let fields = Fields::check(body, &other::TOKENIZE, "")?;
        let tokens = tokens(&fields, served)?;
        let mut response = json!({
            "count": tokens.len(),
            "max_model_len": served.engine.context(),
            "tokens": tokens,
        });
        if fields.bool("return_token_strs") == Some(true) {
            let text = |id: &u32| served.text.tokenizer.token_text(*id).unwrap_or_default().to_owned();
            response["token_strs"] = tokens.iter().map(text).collect::<Vec<_>>().into();
        }
        Ok(json_response(&response))
    });
    Ok(response.await?.plan)
}

fn tokens(fields: &Fields<'_>, served: &Served) -> ApiResult<Vec<u32>> {
    // A field that belongs to the other kind would be ignored.
    let alien = |name: &str, of: &str| {
        if fields.get(name).is_none() {
            return Ok(());
        }
        Err(ApiError::value(name, format!("{name} has no meaning for {of}")))
    };
    match (fields.text("prompt"), fields.list("messages")) {
        (Some(text), None) => {
            alien("add_generation_prompt", "prompt")?;
            let add_special = fields.bool("add_special_tokens") != Some(false);
            served.text.tokenizer.encode(text, add_special).map_err(|e| messages::text_error(&e.into()))
        }
        (None, Some(list)) => {
            alien("add_special_tokens", "messages: the chat template has them all")?;
            let options = RenderOptions {
                add_generation_prompt: fields.bool("add_generation_prompt") != Some(false),
                now: i64::try_from(super::now()).ok(),
                ..RenderOptions::default()
            };
            let rendering = messages::Rendering { options, continues: false };
            let conversation = messages::parse(list, served)?;
            Ok(messages::prompt(served, &conversation, &rendering, &Tools::default())?.tokens)
        }
        _ => Err(ApiError::field(
            "prompt",
            "missing_required_parameter",
            "expected one of prompt and messages",
        )),
    }
}

/// The text of tokens.
pub async fn detokenize(State(app): State<Arc<App>>, request: Request) -> ApiResult<Response> {
    let response = planned(&app, request, &other::DETOKENIZE, |body, served| {
        let fields = Fields::check(body, &other::DETOKENIZE, "")?;
        let tokens = sampling::token_ids(&fields, "tokens")?;
        let tokenizer = &served.text.tokenizer;
        let mut bytes = Vec::new();
        for (i, id) in tokens.iter().enumerate() {
            let Some(token) = tokenizer.token_bytes(*id) else {
                let param = format!("tokens[{i}]");
                let message = format!("{param}: no token has the id {id}");
                return Err(ApiError::value(param, message));
            };
            bytes.extend_from_slice(token);
        }
        Ok(json_response(&json!({"prompt": String::from_utf8_lossy(&bytes)})))
    });
    Ok(response.await?.plan)
}
