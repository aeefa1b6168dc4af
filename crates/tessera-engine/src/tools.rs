//! Tool calls: what a request says about them, how they stand in a prompt and in an answer, and the
//! grammar that makes a model call one.
//!
//! | format | a call in the text |
//! | --- | --- |
//! | Hermes, Qwen | `<tool_call>` newline `{"name": ..., "arguments": ...}` newline `</tool_call>` |
//! | tagged: Qwen3-Coder, Qwen3.5 | `<tool_call>`, `<function=name>`, `<parameter=key>`, value, and what closes them, a line each |
//! | Llama 3.x | `{"name": ..., "parameters": ...}` from the beginning, perhaps after `<\|python_tag\|>` |
//! | Llama 4 | the same, perhaps between `<\|python_start\|>` and `<\|python_end\|>` |
//! | pythonic | `[name(key=value), ...]` from the beginning, perhaps between the same |
//! | Mistral | `[TOOL_CALLS][{"name": ..., "arguments": ...}]` |
//! | Mistral from version 11 of its tokenizers, Ministral 3 | `[TOOL_CALLS]name[ARGS]{...}` |
//! | Phi-4-mini | `<\|tool_call\|>[{"name": ..., "arguments": ...}]<\|/tool_call\|>` |
//! | DeepSeek V3, R1 | `<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>name`, the arguments in a fence of Markdown, `<｜tool▁call▁end｜><｜tool▁calls▁end｜>` |
//! | DeepSeek V3.1 | the same with `name<｜tool▁sep｜>{...}` inside |
//! | generic | `{"name": ..., "arguments": ...}` from the beginning, one on a line |
//!
//! Where the template does not know tools, the generic format is used, or that whose marks the tokenizer has,
//! and the prompt gets the text of [`conversation`].

mod calls;
mod choice;
mod grammar;
mod json;
mod lark;
mod literal;
mod marks;
mod members;
mod parser;
mod pythonic;
mod render;
mod tagged;
mod types;

pub use calls::ToolEvent;
pub use choice::{Tool, ToolChoice, ToolError};
pub use parser::ToolParser;
pub use render::conversation;

use crate::tokenizer::Tokenizer;

/// How calls are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolFormat {
    /// Hermes and Qwen.
    Hermes,
    /// Tags for the function and for each argument: Qwen3-Coder, Qwen3.5.
    Tagged,
    /// Llama 3.1 and later.
    Llama3,
    /// Llama 4.
    Llama4,
    /// A list of Python's calls.
    Pythonic,
    /// Mistral, as a list.
    Mistral,
    /// Mistral, the name before the arguments.
    MistralNamed,
    /// Phi-4-mini.
    Phi4,
    /// DeepSeek V3 and R1.
    DeepSeekV3,
    /// DeepSeek V3.1.
    DeepSeekV31,
    /// For models that were not trained on tools.
    Generic,
}

/// The format of a model, and whether its template writes tools into the prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToolSupport {
    /// How calls are written.
    pub format: ToolFormat,
    /// Whether the template has a place for calls and results. If not, [`conversation`] writes them.
    pub template_knows: bool,
    /// Who writes the tools.
    pub listing: ToolListing,
}

/// How the tools come into a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolListing {
    /// The template takes `tools`.
    Variable,
    /// The template takes them from the system message: its member `tools`, as text.
    SystemMember,
    /// [`conversation`] writes them into the system message.
    Text,
}

impl ToolSupport {
    /// Tells the format by the template's text (a Jinja template; `None` for others), or else by the tokens
    /// that there are.
    pub fn detect(template: Option<&str>, tokenizer: &Tokenizer) -> ToolSupport {
        use ToolFormat::{DeepSeekV3, DeepSeekV31, Generic, Hermes, Phi4};
        let text = template.unwrap_or_default();
        let has = |mark: &str| text.contains(mark);
        let takes_tools = has("tools");
        // These write calls and results, but not always the tools.
        if has("tool▁calls▁begin") {
            let format = if has("```json") { DeepSeekV3 } else { DeepSeekV31 };
            let listing = if takes_tools { ToolListing::Variable } else { ToolListing::Text };
            return ToolSupport { format, template_knows: true, listing };
        }
        if has("<|tool|>") {
            let from_system = has("['tools']") || has("[\"tools\"]") || has("message.tools");
            let listing = if from_system { ToolListing::SystemMember } else { ToolListing::Variable };
            return ToolSupport { format: Phi4, template_knows: true, listing };
        }
        if let Some(format) = ToolFormat::of_template(text).filter(|_| takes_tools) {
            return ToolSupport { format, template_knows: true, listing: ToolListing::Variable };
        }
        let format = [Hermes, DeepSeekV3].into_iter().find(|f| tokenizer.id_of(f.mark()).is_some());
        ToolSupport { format: format.unwrap_or(Generic), template_knows: false, listing: ToolListing::Text }
    }

    /// Whether the marks around calls are special tokens, which the answer's text has to keep.
    pub fn keeps_special(&self, tokenizer: &Tokenizer) -> bool {
        let marks = self.format.marks().iter().copied().chain(self.format.inner_marks().iter().copied());
        marks
            .chain([self.format.end_mark()])
            .any(|mark| tokenizer.id_of(mark).is_some_and(|id| tokenizer.is_special(id)))
    }
}

impl ToolFormat {
    /// The format that a template with tools shows; `None` if it is none of these.
    fn of_template(text: &str) -> Option<ToolFormat> {
        let has = |mark: &str| text.contains(mark);
        let json = !has("<arg_key>") && !has("tool_name");
        [
            (ToolFormat::Tagged, has("<tool_call>") && has(marks::FUNCTION) && has(marks::PARAMETER)),
            (ToolFormat::Hermes, has("<tool_call>") && json),
            (ToolFormat::MistralNamed, has("[TOOL_CALLS]") && has("[ARGS]")),
            (ToolFormat::Mistral, has("[TOOL_CALLS]")),
            (ToolFormat::Pythonic, has("func_name1(")),
            (ToolFormat::Llama4, has("<|python_start|>")),
            (ToolFormat::Llama3, (has("<|python_tag|>") || has("\"parameters\": ")) && json),
        ]
        .into_iter()
        .find_map(|(format, is)| is.then_some(format))
    }
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
