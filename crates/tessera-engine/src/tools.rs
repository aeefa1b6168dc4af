//! Tool calls: what a request says about them, how they stand in a prompt and in an answer, and the
//! grammar that makes a model call one.
//!
//! | format | a call in the text |
//! | --- | --- |
//! | Hermes, Qwen | `<tool_call>` newline `{"name": ..., "arguments": ...}` newline `</tool_call>` |
//! | Llama 3.x | `{"name": ..., "parameters": ...}` from the beginning, perhaps after `<\|python_tag\|>` |
//! | Mistral | `[TOOL_CALLS][{"name": ..., "arguments": ...}]`, or `[TOOL_CALLS]name[ARGS]{...}` |
//! | generic | `{"name": ..., "arguments": ...}` from the beginning, one on a line |
//!
//! Where the template does not know tools, the generic format is used, or Hermes' if the tokenizer has its
//! marks, and the prompt gets the text of [`conversation`].

mod choice;
mod json;
mod parser;
mod render;

pub use choice::{Tool, ToolChoice, ToolError};
pub use parser::{ToolEvent, ToolParser};
pub use render::conversation;

use crate::grammar::{GrammarConstraint, GrammarEnv, GrammarError, ToolGrammar};
use crate::tokenizer::Tokenizer;

/// How calls are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolFormat {
    /// Hermes and Qwen.
    Hermes,
    /// Llama 3.1 and later.
    Llama3,
    /// Mistral.
    Mistral,
    /// For models that were not trained on tools.
    Generic,
}

/// The format of a model, and whether its template writes tools into the prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToolSupport {
    /// How calls are written.
    pub format: ToolFormat,
    /// Whether the template takes `tools`. If not, [`conversation`] writes them.
    pub template_knows: bool,
}

impl ToolSupport {
    /// Tells the format by the template's text (a Jinja template; `None` for others), or else by the tokens
    /// that there are.
    pub fn detect(template: Option<&str>, tokenizer: &Tokenizer) -> ToolSupport {
        let known = template.filter(|text| text.contains("tools")).and_then(|text| {
            [
                (ToolFormat::Hermes, text.contains("<tool_call>")),
                (ToolFormat::Mistral, text.contains("[TOOL_CALLS]")),
                (ToolFormat::Llama3, text.contains("<|python_tag|>") || text.contains("\"parameters\": ")),
            ]
            .into_iter()
            .find_map(|(format, is)| is.then_some(format))
        });
        match known {
            Some(format) => ToolSupport { format, template_knows: true },
            None => {
                let hermes = tokenizer.id_of("<tool_call>").is_some();
                let format = if hermes { ToolFormat::Hermes } else { ToolFormat::Generic };
                ToolSupport { format, template_knows: false }
            }
        }
    }

    /// Whether the marks around calls are special tokens, which the answer's text has to keep.
    pub fn keeps_special(&self, tokenizer: &Tokenizer) -> bool {
        [self.format.mark(), self.format.end_mark(), "[ARGS]", "[CALL_ID]"]
            .iter()
            .any(|mark| tokenizer.id_of(mark).is_some_and(|id| tokenizer.is_special(id)))
    }
}

impl ToolFormat {
    /// The member that holds the arguments.
    fn arguments_key(self) -> &'static str {
        if self == ToolFormat::Llama3 { "parameters" } else { "arguments" }
    }

    /// What has to hold for an answer: `required` and named choices force calls by the schemas of the
    /// tools; `auto` holds calls of `strict` tools to their schemas, and calls to one at most if they may not
    /// be parallel. `None` where anything goes. A schema that cannot be enforced is an error wherever it would
    /// have to be; its pointer begins with `/tools`.
    pub fn constraint(
        self,
        env: &GrammarEnv,
        tools: &[Tool],
        choice: &ToolChoice,
        parallel: bool,
    ) -> Result<Option<GrammarConstraint>, GrammarError> {
        let forced = matches!(choice, ToolChoice::Required | ToolChoice::Named(_));
        let free = parallel && !tools.iter().any(|tool| tool.strict);
        if tools.is_empty() || *choice == ToolChoice::None || (!forced && free) {
            return Ok(None);
        }
        let mut calls = Vec::new();
        for (i, tool) in tools.iter().enumerate() {
            if matches!(choice, ToolChoice::Named(name) if *name != tool.name) {
                continue;
            }
            // Without `strict`, a free choice promises an object and no more.
            let schema = if forced || tool.strict {
                tool.schema()
            } else {
                serde_json::json!({ "additionalProperties": true })
            };
            calls.push((tool.name.as_str(), schema, format!("/tools/{i}/function/parameters")));
        }
        let grammar = ToolGrammar {
            calls: &calls,
            arguments_key: self.arguments_key(),
            // A named choice is one call.
            many: parallel && !matches!(choice, ToolChoice::Named(_)),
            forced,
        };
        env.tool_calls(&grammar, |object| self.lark(env.tokenizer(), object, grammar.many, forced)).map(Some)
    }

    /// The grammar around the JSON of calls.
    fn lark(self, tokenizer: &Tokenizer, object: &str, many: bool, forced: bool) -> String {
        let literal = |text: &str| serde_json::Value::from(text).to_string();
        let special = |mark: &str| tokenizer.id_of(mark).filter(|id| tokenizer.is_special(*id));
        let mark = |mark: &str| special(mark).map_or_else(|| literal(mark), |id| format!("<[{id}]>"));
        let more = |separator: &str| {
            if many { format!("({} call)*", literal(separator)) } else { String::new() }
        };
        let (open, end) = (self.mark(), self.end_mark());
        let (calls, call) = match self {
            ToolFormat::Hermes => {
                let call = format!("{} \"\\n\" object \"\\n\" {}", mark(open), mark(end));
                (format!("call {}", more("\n")), call)
            }
            ToolFormat::Mistral => {
                (format!("{} \"[\" call {} \"]\"", mark(open), more(", ")), "object".to_owned())
            }
            ToolFormat::Llama3 => (format!("call {}", more("; ")), "object".to_owned()),
            ToolFormat::Generic => (format!("call {}", more("\n")), "object".to_owned()),
        };
        let rules = format!("calls: {calls}\ncall: {call}\nobject: %json {object}\n");
        if forced {
            return format!("start: calls\n{rules}");
        }
        let unmarked = |regex: &str| format!("{regex} & ~/(?s:.*){}(?s:.*)/", literal_regex(open));
        match self {
            ToolFormat::Hermes | ToolFormat::Mistral if special(open).is_some() => {
                format!("start: TEXT (calls)?\nTEXT: {}\n{rules}", unmarked("/(?s:.*)/"))
            }
            // Text up to the mark is one lexeme with it: what ends a lexeme is that nothing longer matches.
            ToolFormat::Hermes | ToolFormat::Mistral => {
                let (inner, again) = match self {
                    ToolFormat::Hermes => {
                        (format!("\"\\n\" object \"\\n\" {}", mark(end)), if many { "*" } else { "?" })
                    }
                    _ => (format!("\"[\" object {} \"]\"", more(", ").replace("call", "object")), "?"),
                };
                format!(
                    "start: (upto inner){again} REST\nupto[lazy]: /(?s:.*){}/\ninner: {inner}\n\
                     object: %json {object}\nREST: {}\n",
                    literal_regex(open),
                    unmarked("/(?s:.*)/")
                )
            }
            // Without a mark, an answer that begins with a brace is a call.
            ToolFormat::Llama3 | ToolFormat::Generic => {
                format!("start: calls | TEXT\nTEXT: /([^{{\\s](?s:.*))?/\n{rules}")
            }
        }
    }
}

/// A text as a regular expression in Lark.
fn literal_regex(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' {
                c.to_string()
            } else {
                format!("\\x{{{:X}}}", c as u32)
            }
        })
        .collect()
}

/// Ids of calls: `call_` and 24 letters and digits.
#[derive(Clone, Debug)]
pub struct CallIds(u64);

impl CallIds {
    /// The same seed gives the same ids.
    pub fn new(seed: u64) -> CallIds {
        CallIds(seed)
    }

    /// The next id.
    pub fn next_id(&mut self) -> String {
        let mut id = String::from("call_");
        for _ in 0..3 {
            push_letters(&mut id, self.next(), 8);
        }
        id
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn push_letters(out: &mut String, mut value: u64, n: usize) {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    for _ in 0..n {
        out.push(char::from(LETTERS[(value % 62) as usize]));
        value /= 62;
    }
}
