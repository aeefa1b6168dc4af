//! Any text as a Jinja template: it compiles and renders, or says why not. It never panics, never hangs, never takes
//! the stack or the memory.
//!
//! ```text
//! mkdir -p fuzz/corpus/template && ulimit -s 2048 && RUSTC_BOOTSTRAP=1 cargo fuzz run -s none template \
//!     fuzz/corpus/template fuzz/seeds/template -- -runs=1000000 -dict=fuzz/template.dict -max_len=512
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use std::sync::LazyLock;
use tessera_engine::template::{JinjaTemplate, Message, RenderOptions, TemplateError};

static MESSAGES: LazyLock<Vec<Message>> = LazyLock::new(|| {
    let call = json!([{"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"x": [1, 2.5, null]}}}]);
    let messages = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 1 < 2 & \"é\"?"},
        {"role": "assistant", "content": null, "tool_calls": call},
        {"role": "tool", "content": "true", "tool_call_id": "c1", "name": "f"},
        {"role": "user", "content": "And?"},
    ]);
    serde_json::from_value(messages).expect("messages")
});

static OPTIONS: LazyLock<RenderOptions> = LazyLock::new(|| {
    let parameters = json!({"type": "object", "properties": {"x": {"type": "array"}}});
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": parameters}}]);
    let variables = json!({"enable_thinking": true, "none_of_these": {"a": "b"}});
    let Value::Object(variables) = variables else { unreachable!() };
    RenderOptions { tools: Some(tools), now: Some(1_700_000_000), variables, ..RenderOptions::answer() }
});

fuzz_target!(|source: &str| {
    let template = match JinjaTemplate::new(source, "<s>", "</s>") {
        Ok(template) => template,
        Err(TemplateError::Jinja { .. }) => return,
        Err(other) => panic!("{other:?}"),
    };
    assert_eq!(template.source(), source);
    match template.render(&MESSAGES, &OPTIONS) {
        // Text without marks is its own prompt, but for Python's line ends and the last one, which Jinja drops.
        Ok(text) if !source.contains(['{', '\r']) => {
            assert_eq!(text, source.strip_suffix('\n').unwrap_or(source));
        }
        // What fuel pays for.
        Ok(text) => assert!(text.len() < 256 << 20),
        Err(TemplateError::Jinja { what, .. }) => assert!(!what.is_empty()),
        Err(TemplateError::Raised(_)) => assert!(source.contains("raise_exception")),
        Err(other) => panic!("{other:?}"),
    }
});
