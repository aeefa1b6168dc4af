//! What makes a model write calls that fit: for each format the grammar around the schemas of the tools.

use super::lark::{literal, literal_regex};
use super::marks::{DEEPSEEK_CALL, DEEPSEEK_CALL_END, DEEPSEEK_SEPARATOR, MISTRAL_ARGUMENTS, MISTRAL_ID};
use super::{Tool, ToolChoice, ToolFormat, members};
use crate::grammar::{CallForm, CallParts, GrammarConstraint, GrammarEnv, GrammarError, ToolGrammar};
use crate::tokenizer::Tokenizer;
use serde_json::json;

impl ToolFormat {
    fn form(self) -> CallForm {
        match self {
            ToolFormat::Llama3 | ToolFormat::Llama4 => CallForm::Object("parameters"),
            ToolFormat::Hermes | ToolFormat::Mistral | ToolFormat::Phi4 | ToolFormat::Generic => {
                CallForm::Object("arguments")
            }
            ToolFormat::MistralNamed | ToolFormat::DeepSeekV3 | ToolFormat::DeepSeekV31 => {
                CallForm::Arguments
            }
            ToolFormat::Tagged | ToolFormat::Pythonic => CallForm::Members,
        }
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
            let schema =
                if forced || tool.strict { tool.schema() } else { json!({ "additionalProperties": true }) };
            calls.push((tool.name.as_str(), schema, format!("/tools/{i}/function/parameters")));
        }
        let grammar = ToolGrammar {
            calls: &calls,
            form: self.form(),
            // A named choice is one call.
            many: parallel && !matches!(choice, ToolChoice::Named(_)),
            forced,
        };
        let names: Vec<&str> = calls.iter().map(|(name, _, _)| *name).collect();
        let around = |parts: &CallParts| self.lark(env.tokenizer(), &names, parts, grammar.many, forced);
        env.tool_calls(&grammar, around).map(Some)
    }

    /// The grammar around the parts of calls.
    fn lark(
        self,
        tokenizer: &Tokenizer,
        names: &[&str],
        parts: &CallParts,
        many: bool,
        forced: bool,
    ) -> Result<String, GrammarError> {
        let special = |mark: &str| tokenizer.id_of(mark).filter(|id| tokenizer.is_special(*id));
        let mark = |mark: &str| special(mark).map_or_else(|| literal(mark), |id| format!("<[{id}]>"));
        let more = |separator: &str| match (many, separator) {
            (false, _) => String::new(),
            (true, "") => "call*".to_owned(),
            (true, separator) => format!("({} call)*", literal(separator)),
        };
        let (open, end) = (self.mark(), self.end_mark());
        let mut rules = match parts {
            CallParts::Object(schema) => format!("object: %json {schema} \n"),
            CallParts::Arguments(schemas) => {
                let rule = |(i, schema): (usize, &String)| format!("arguments_{i}: %json {schema} \n");
                schemas.iter().enumerate().map(rule).collect()
            }
            CallParts::Members(_) => String::new(),
        };
        // A call of each tool: its name, and the rule of its arguments.
        let each = |call: &dyn Fn(&str, &str) -> String| {
            let call = |(i, name): (usize, &&str)| call(name, &format!("arguments_{i}"));
            names.iter().enumerate().map(call).collect::<Vec<_>>().join(" | ")
        };
        let call = match self {
            ToolFormat::Hermes => format!("\"\\n\" object \"\\n\" {}", mark(end)),
            ToolFormat::MistralNamed => {
                let id = match tokenizer.id_of(MISTRAL_ID) {
                    Some(_) => format!(" ({} /[a-zA-Z0-9]{{9}}/)?", mark(MISTRAL_ID)),
                    None => String::new(),
                };
                let arguments = mark(MISTRAL_ARGUMENTS);
                each(&|name, rule| format!("{}{id} {arguments} {rule}", literal(name)))
            }
            ToolFormat::DeepSeekV3 | ToolFormat::DeepSeekV31 => {
                let (begin, end, separator) =
                    (mark(DEEPSEEK_CALL), mark(DEEPSEEK_CALL_END), mark(DEEPSEEK_SEPARATOR));
                each(&|name, rule| match self {
                    ToolFormat::DeepSeekV3 => {
                        let name = literal(&format!("{name}\n```json\n"));
                        format!("{begin} \"function\" {separator} {name} {rule} \"\\n```\" {end}")
                    }
                    _ => format!("{begin} {} {separator} {rule} {end}", literal(name)),
                })
            }
            ToolFormat::Tagged | ToolFormat::Pythonic => {
                let CallParts::Members(ways) = parts else { return Ok(String::new()) };
                let tagged = self == ToolFormat::Tagged;
                let written =
                    if tagged { members::tagged(names, ways) } else { members::pythonic(names, ways) };
                let (call, more_rules) = written?;
                rules.push_str(&more_rules);
                if tagged { format!("\"\\n\" ({call}) \"\\n\" {}", mark(end)) } else { call }
            }
            _ => "object".to_owned(),
        };
        rules.push_str(&format!("call: {call}\n"));
        // What stands between one mark and what closes it, and what separates one such block from the next.
        let (inner, next) = match self {
            ToolFormat::Hermes | ToolFormat::Tagged => ("call".to_owned(), Some("\n")),
            ToolFormat::MistralNamed => ("call".to_owned(), Some("")),
            ToolFormat::Mistral => (format!("\"[\" call {} \"]\"", more(", ")), None),
            ToolFormat::Phi4 => (format!("(\"[\" call {} \"]\" | call) {}", more(", "), mark(end)), None),
            ToolFormat::DeepSeekV3 => (format!("call {} {}", more("\n"), mark(end)), None),
            ToolFormat::DeepSeekV31 => (format!("call {} {}", more(""), mark(end)), None),
            ToolFormat::Llama3 => (format!("call {}", more("; ")), None),
            ToolFormat::Llama4 => (format!("call {}", more("")), None),
            ToolFormat::Pythonic => (format!("\"[\" call {} \"]\"", more(", ")), None),
            ToolFormat::Generic => (format!("call {}", more("\n")), None),
        };
        rules.push_str(&format!("inner: {inner}\n"));
        let block = if self.has_marks() { format!("{} inner", mark(open)) } else { "inner".to_owned() };
        let calls = match next.filter(|_| many) {
            Some("") => format!("({block})+"),
            Some(separator) => format!("{block} ({} {block})*", literal(separator)),
            None => block,
        };
        if forced {
            return Ok(format!("start: {calls}\n{rules}"));
        }
        let unmarked = |regex: &str| format!("{regex} & ~/(?s:.*){}(?s:.*)/", literal_regex(open));
        Ok(if !self.has_marks() {
            // Without a mark, an answer that begins with a bracket is a call.
            let first = if self == ToolFormat::Pythonic { "\\[" } else { "{" };
            format!("start: {calls} | TEXT\nTEXT: /([^{first}\\s](?s:.*))?/\n{rules}")
        } else if special(open).is_some() {
            format!("start: TEXT ({calls})?\nTEXT: {}\n{rules}", unmarked("/(?s:.*)/"))
        } else {
            // Text up to the mark is one lexeme with it: what ends a lexeme is that nothing longer matches.
            let again = if many && next.is_some() { "*" } else { "?" };
            format!(
                "start: (upto inner){again} REST\nupto[lazy]: /(?s:.*){}/\nREST: {}\n{rules}",
                literal_regex(open),
                unmarked("/(?s:.*)/")
            )
        })
    }
}
