//! `tessera tokenize`: a text as token ids and pieces, plain and in the chat template.

use super::run::render_options;
use crate::checkpoint;
use crate::cli::TokenizeArgs;
use crate::models;
use crate::output::Output;
use crate::stdin;
use serde::Serialize;
use std::process::ExitCode;
use tessera_engine::template::{ChatTemplates, Message, TemplateChoice};
use tessera_engine::tokenizer::Tokenizer;
use tessera_weights::chat_config::ChatConfig;

#[derive(Serialize)]
struct Tokens {
    ids: Vec<u32>,
    pieces: Vec<String>,
}

#[derive(Serialize)]
struct InTemplate {
    template: String,
    prompt: String,
    #[serde(flatten)]
    tokens: Tokens,
}

#[derive(Serialize)]
struct Tokenized {
    text: String,
    #[serde(flatten)]
    tokens: Tokens,
    /// Null if the model has no chat template.
    chat: Option<InTemplate>,
    notes: Vec<String>,
}

/// Prints both.
pub fn run(args: TokenizeArgs, out: &Output) -> anyhow::Result<ExitCode> {
    let path = models::resolve(&args.model, out)?;
    let folder = if path.is_dir() { path.as_path() } else { path.parent().unwrap_or(&path) };
    let text = match args.text {
        Some(text) => text,
        None => stdin::text()?,
    };
    let tokenizer = Tokenizer::from_folder(folder)?;
    let tokens = |ids: Vec<u32>| {
        let pieces = ids.iter().map(|id| tokenizer.token_text(*id).unwrap_or("?").to_owned()).collect();
        Tokens { ids, pieces }
    };
    let mut notes = tokenizer.notes().to_vec();
    let config = checkpoint::read(&folder.join("mlc-chat-config.json"))?;
    let config = config.as_deref().map(ChatConfig::parse).transpose()?;
    // A file that cannot be read counts as missing here; opening the tokenizer has reported those it needs.
    let lookup = |name: &str| checkpoint::read(&folder.join(name)).ok().flatten();
    let templates = ChatTemplates::from_files(config.as_ref(), lookup)?;
    let chat = match templates.choose(TemplateChoice::Auto) {
        Ok(template) => {
            let prompt = template.render(&[Message::new("user", text.clone())], &render_options())?;
            let tokens = tokens(prompt.encode(&tokenizer)?);
            Some(InTemplate { template: template.name().to_owned(), prompt: prompt.text, tokens })
        }
        Err(why) => {
            notes.push(why.to_string());
            None
        }
    };
    let plain = tokens(tokenizer.encode(&text, true)?);
    let result = Tokenized { text, tokens: plain, chat, notes };
    if out.json {
        out.print_json(&result)?;
        return Ok(ExitCode::SUCCESS);
    }
    for note in &result.notes {
        out.note(format_args!("note: {note}"));
    }
    out.line(format_args!("without template: {} tokens", result.tokens.ids.len()))?;
    print(&result.tokens, out)?;
    if let Some(chat) = &result.chat {
        out.line(format_args!("\nin template {}: {} tokens", chat.template, chat.tokens.ids.len()))?;
        print(&chat.tokens, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(tokens: &Tokens, out: &Output) -> anyhow::Result<()> {
    for (id, piece) in tokens.ids.iter().zip(&tokens.pieces) {
        out.line(format_args!("{id:>7}  {piece:?}"))?;
    }
    Ok(())
}
