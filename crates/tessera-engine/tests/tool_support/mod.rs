//! Two tools, answers read, and calls as each format writes them.
#![allow(dead_code)]

use serde_json::{Value, json};
use tessera_engine::tools::{CallIds, Tool, ToolEvent, ToolFormat, ToolParser};
use tessera_weights::chat_config::python_json::{Style, to_string};

pub const FORMATS: [ToolFormat; 11] = [
    ToolFormat::Hermes,
    ToolFormat::Tagged,
    ToolFormat::Llama3,
    ToolFormat::Llama4,
    ToolFormat::Pythonic,
    ToolFormat::Mistral,
    ToolFormat::MistralNamed,
    ToolFormat::Phi4,
    ToolFormat::DeepSeekV3,
    ToolFormat::DeepSeekV31,
    ToolFormat::Generic,
];

/// Calls as the grammar of a format has them. Values are texts where they are between tags.
pub fn written(format: ToolFormat, calls: &[(&str, Value)]) -> String {
    let object = |(name, arguments): &(&str, Value)| {
        format!(r#"{{"name": "{name}", "arguments": {}}}"#, spaced(arguments))
    };
    let members = |arguments: &Value| -> Vec<(String, Value)> {
        arguments.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let each = |one: &dyn Fn(&(&str, Value)) -> String, between: &str| {
        calls.iter().map(one).collect::<Vec<_>>().join(between)
    };
    match format {
        ToolFormat::Hermes => each(&|call| format!("<tool_call>\n{}\n</tool_call>", object(call)), "\n"),
        ToolFormat::Tagged => each(
            &|(name, arguments)| {
                let parameters = members(arguments).into_iter().map(|(key, value)| {
                    let value = value.as_str().map_or_else(|| spaced(&value), str::to_owned);
                    format!("<parameter={key}>\n{value}\n</parameter>\n")
                });
                format!(
                    "<tool_call>\n<function={name}>\n{}</function>\n</tool_call>",
                    parameters.collect::<String>()
                )
            },
            "\n",
        ),
        ToolFormat::Llama3 => each(&object, "; ").replace("\"arguments\"", "\"parameters\""),
        ToolFormat::Llama4 => each(&object, "").replace("\"arguments\"", "\"parameters\""),
        ToolFormat::Pythonic => {
            let call = |(name, arguments): &(&str, Value)| {
                let list =
                    members(arguments).into_iter().map(|(key, value)| format!("{key}={}", spaced(&value)));
                format!("{name}({})", list.collect::<Vec<_>>().join(", "))
            };
            format!("[{}]", each(&call, ", "))
        }
        ToolFormat::Mistral => format!("[TOOL_CALLS][{}]", each(&object, ", ")),
        ToolFormat::MistralNamed => {
            each(&|(name, arguments)| format!("[TOOL_CALLS]{name}[ARGS]{}", spaced(arguments)), "")
        }
        ToolFormat::Phi4 => format!("<|tool_call|>[{}]<|/tool_call|>", each(&object, ", ")),
        ToolFormat::DeepSeekV3 => {
            let call = |(name, arguments): &(&str, Value)| {
                let json = spaced(arguments);
                format!(
                    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{json}\n```<｜tool▁call▁end｜>"
                )
            };
            format!("<｜tool▁calls▁begin｜>{}<｜tool▁calls▁end｜>", each(&call, "\n"))
        }
        ToolFormat::DeepSeekV31 => {
            let call = |(name, arguments): &(&str, Value)| {
                format!("<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{}<｜tool▁call▁end｜>", spaced(arguments))
            };
            format!("<｜tool▁calls▁begin｜>{}<｜tool▁calls▁end｜>", each(&call, ""))
        }
        ToolFormat::Generic => each(&object, "\n"),
    }
}

fn spaced(value: &Value) -> String {
    to_string(value, Style::TEMPLATE)
}

pub fn tools() -> Vec<Tool> {
    Tool::parse_list(&json!([
        {"type": "function", "function": {"name": "weather", "description": "The weather", "strict": true, "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": false}}},
        {"type": "function", "function": {"name": "now"}},
    ]))
    .unwrap()
}

pub fn run(format: ToolFormat, pieces: &[&str]) -> Vec<ToolEvent> {
    let mut parser = ToolParser::new(format, tools(), CallIds::new(1));
    let mut events: Vec<ToolEvent> = pieces.iter().flat_map(|p| parser.push(p)).collect();
    events.extend(parser.finish());
    // Pieces of one thing are one.
    let mut out: Vec<ToolEvent> = Vec::new();
    for event in events {
        match (out.last_mut(), &event) {
            (Some(ToolEvent::Text { text, malformed: a }), ToolEvent::Text { text: more, malformed: b })
                if a == b =>
            {
                text.push_str(more)
            }
            (Some(ToolEvent::Arguments { text, .. }), ToolEvent::Arguments { text: more, .. }) => {
                text.push_str(more)
            }
            _ => out.push(event),
        }
    }
    out
}

/// Events as text: `T` text, `M` malformed text, `C` a call, `I` one that is incomplete.
pub fn summary(events: &[ToolEvent]) -> String {
    let mut out = Vec::new();
    for event in events {
        match event {
            ToolEvent::Text { text, malformed } => {
                out.push(format!("{}{text:?}", if *malformed { "M" } else { "T" }))
            }
            ToolEvent::Start { index, id, name } => {
                assert!(id.starts_with("call_") && id.len() == 29, "{id}");
                out.push(format!("C{index}:{name}"));
            }
            ToolEvent::Arguments { text, .. } => out.push(text.clone()),
            ToolEvent::End { complete, .. } => out.push(if *complete { "." } else { "I" }.to_owned()),
        }
    }
    out.join(" ")
}
