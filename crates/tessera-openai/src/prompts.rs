//! Prompts that are texts or tokens, one or many.

use crate::error::{ApiError, ApiResult};
use crate::fields::wrong_type;
use crate::json::kind;
use crate::sampling::tokens;
use crate::subject::Subject;
use crate::wanted::still_wanted;
use http::StatusCode;
use serde_json::Value;

/// A prompt.
#[derive(Clone, Debug)]
pub struct RawPrompt {
    /// As it was given, if as text.
    pub text: Option<String>,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Where it is in the request.
    pub param: String,
}

/// Reads a field that holds a string, strings, token ids, or lists of token ids.
pub fn parse(
    value: &Value,
    param: &str,
    most: usize,
    add_special: bool,
    served: &Subject,
) -> ApiResult<Vec<RawPrompt>> {
    const EXPECTED: &str = "a string, an array of strings, an array of token ids or an array of such arrays";
    let text = |text: &str, param: String| {
        may_fit(served, text, &param)?;
        still_wanted()?;
        let tokens = served
            .text
            .tokenizer
            .encode(text, add_special)
            .map_err(|e| ApiError::value(&*param, format!("{param}: {e}")))?;
        finish(served, RawPrompt { text: Some(text.to_owned()), tokens, param })
    };
    let ids = |list: &[Value], param: String| {
        let tokens = tokens(list, &param)?;
        finish(served, RawPrompt { text: None, tokens, param })
    };
    let list = match value {
        Value::String(one) => return Ok(vec![text(one, param.to_owned())?]),
        Value::Array(list) if list.is_empty() => {
            return Err(ApiError::value(param, format!("{param} is empty: there is nothing to do")));
        }
        Value::Array(list) if list[0].is_number() => return Ok(vec![ids(list, param.to_owned())?]),
        Value::Array(list) => list,
        other => return Err(wrong_type(param, EXPECTED, kind(other))),
    };
    if list.len() > most {
        let message = format!("{param}: at most {most} are taken at once, found {}", list.len());
        return Err(ApiError::value(param, message));
    }
    let mut prompts = Vec::new();
    for (i, value) in list.iter().enumerate() {
        let param = format!("{param}[{i}]");
        prompts.push(match value {
            Value::String(one) => text(one, param)?,
            Value::Array(list) => ids(list, param)?,
            other => return Err(wrong_type(&param, "a string or an array of token ids", kind(other))),
        });
    }
    Ok(prompts)
}

fn finish(served: &Subject, prompt: RawPrompt) -> ApiResult<RawPrompt> {
    let param = &prompt.param;
    if prompt.tokens.is_empty() {
        return Err(ApiError::value(&**param, format!("{param} has no tokens: there is nothing to do")));
    }
    let vocab_size = served.vocab_size;
    if let Some((i, token)) = prompt.tokens.iter().enumerate().find(|(_, t)| **t as usize >= vocab_size) {
        let param = format!("{param}[{i}]");
        let message = format!("{param}: token {token} does not exist, the vocabulary has {vocab_size}");
        return Err(ApiError::value(param, message));
    }
    Ok(prompt)
}

/// Refuses what is too long by its length alone: encoding it would take a hundred times that in memory.
pub fn may_fit(served: &Subject, text: &str, param: &str) -> ApiResult<()> {
    let (least, context) = (served.text.tokenizer.least_tokens(text), served.context);
    if least <= context {
        return Ok(());
    }
    let message =
        format!("{param}: {} bytes are at least {least} tokens, the context holds {context}", text.len());
    let error = ApiError::request(StatusCode::BAD_REQUEST, "context_length_exceeded", message);
    Err(ApiError { param: Some(param.to_owned()), ..error })
}

/// A prompt has to leave room for a token of the answer.
pub fn check_length(served: &Subject, tokens: usize, param: &str) -> ApiResult<()> {
    fits(served, tokens, 1, param)
}

/// Whether a prompt and at least so many tokens of an answer fit.
pub fn fits(served: &Subject, tokens: usize, answer: usize, param: &str) -> ApiResult<()> {
    let context = served.context;
    if tokens.saturating_add(answer) <= context {
        return Ok(());
    }
    let room = if answer > 0 { " with the answer" } else { "" };
    let message = format!("{param}: the prompt has {tokens} tokens, the context holds {context}{room}");
    let error = ApiError::request(StatusCode::BAD_REQUEST, "context_length_exceeded", message);
    Err(ApiError { param: Some(param.to_owned()), ..error })
}
