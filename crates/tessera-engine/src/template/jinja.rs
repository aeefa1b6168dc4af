//! Hugging Face's `chat_template`: Jinja, as `transformers` runs it.

use super::strftime::strftime;
use super::{Message, RenderOptions, TemplateError};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};
use serde_json::Value as Json;
use tessera_weights::chat_config::python_json::{Style, to_string};

/// Longest template that is taken; the longest known ones are about 30 kB.
const MAX_TEMPLATE: usize = 1 << 20;
/// Work that a template may do in any case, and for each byte of its input. A unit is an instruction
/// or 64 bytes, so a template can neither run nor grow without end.
const FUEL: u64 = 2_000_000;
const FUEL_PER_BYTE: u64 = 4;
/// Depth of macros and loops.
const MAX_DEPTH: usize = 100;
const NAME: &str = "chat_template";
/// How an error of `raise_exception` is told from others.
const RAISED: &str = "raised by the template: ";

/// A compiled chat template.
pub struct JinjaTemplate {
    environment: Environment<'static>,
    /// Used when there are tools, where the folder has one for that.
    tool_environment: Option<Environment<'static>>,
    source: String,
    file: &'static str,
    bos_token: String,
    eos_token: String,
}

impl std::fmt::Debug for JinjaTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JinjaTemplate({}, {} bytes)", self.file, self.source.len())
    }
}

impl JinjaTemplate {
    /// Compiles a template. `bos_token` and `eos_token` are texts that it may put in.
    pub fn new(source: &str, bos_token: &str, eos_token: &str) -> Result<JinjaTemplate, TemplateError> {
        JinjaTemplate::compile("chat_template", source, None, bos_token, eos_token)
    }

    fn compile(
        file: &'static str,
        source: &str,
        with_tools: Option<&str>,
        bos_token: &str,
        eos_token: &str,
    ) -> Result<JinjaTemplate, TemplateError> {
        Ok(JinjaTemplate {
            environment: environment(file, source)?,
            tool_environment: with_tools.map(|source| environment(file, source)).transpose()?,
            source: source.to_owned(),
            file,
            bos_token: bos_token.to_owned(),
            eos_token: eos_token.to_owned(),
        })
    }

    /// Finds and compiles the template of a folder; `None` if it has none.
    pub fn from_files(
        lookup: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Option<JinjaTemplate>, TemplateError> {
        let json = |file: &'static str| -> Result<Json, TemplateError> {
            let Some(bytes) = lookup(file) else { return Ok(Json::Null) };
            serde_json::from_slice(&bytes)
                .map_err(|e| TemplateError::File { file, what: format!("invalid JSON: {e}") })
        };
        let config = json("tokenizer_config.json")?;
        let token = |key: &str| -> String {
            config[key].as_str().or_else(|| config[key]["content"].as_str()).unwrap_or_default().to_owned()
        };
        let (bos, eos) = (token("bos_token"), token("eos_token"));
        if let Some(bytes) = lookup("chat_template.jinja") {
            let file = "chat_template.jinja";
            let source = String::from_utf8(bytes)
                .map_err(|e| TemplateError::File { file, what: format!("not UTF-8: {e}") })?;
            return JinjaTemplate::compile(file, &source, None, &bos, &eos).map(Some);
        }
        let own = json("chat_template.json")?;
        let (file, field) = match &own["chat_template"] {
            Json::Null => ("tokenizer_config.json", &config["chat_template"]),
            field => ("chat_template.json", field),
        };
        let wrong = |what: &str| TemplateError::File { file, what: format!("chat_template: {what}") };
        let named = |name: &str| {
            let list = field.as_array()?;
            list.iter().find(|t| t["name"] == name).and_then(|t| t["template"].as_str())
        };
        let (source, tools) = match field {
            Json::Null => return Ok(None),
            Json::String(source) => (source.as_str(), None),
            Json::Array(_) => match named("default") {
                Some(source) => (source, named("tool_use")),
                None => return Err(wrong("a list without a template that is named \"default\"")),
            },
            other => return Err(wrong(&format!("expected a string or a list, found {other}"))),
        };
        JinjaTemplate::compile(file, source, tools, &bos, &eos).map(Some)
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Text of the first token, as the folder names it.
    pub fn bos_token(&self) -> &str {
        &self.bos_token
    }

    /// Text of the last token, as the folder names it.
    pub fn eos_token(&self) -> &str {
        &self.eos_token
    }

    /// Renders a conversation.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String, TemplateError> {
        let wrong = |what: String| TemplateError::Jinja { file: self.file.to_owned(), what };
        let mut context = options.variables.clone();
        let input = serde_json::to_value(messages).map_err(|e| wrong(e.to_string()))?;
        let size = messages.iter().map(|m| m.content.as_ref().map_or(64, String::len)).sum::<usize>()
            + options.tools.as_ref().map_or(0, |t| t.to_string().len());
        context.insert("messages".to_owned(), input);
        context.insert("add_generation_prompt".to_owned(), options.add_generation_prompt.into());
        context.insert("bos_token".to_owned(), self.bos_token.as_str().into());
        context.insert("eos_token".to_owned(), self.eos_token.as_str().into());
        // Templates test `tools is not none`, so it has to be there.
        context.insert("tools".to_owned(), options.tools.clone().unwrap_or(Json::Null));
        context.insert("documents".to_owned(), Json::Null);

        let mut environment = match (&self.tool_environment, &options.tools) {
            (Some(with_tools), Some(_)) => with_tools.clone(),
            _ => self.environment.clone(),
        };
        environment.set_fuel(Some(FUEL.saturating_add(FUEL_PER_BYTE.saturating_mul(size as u64))));
        let now = options.now;
        environment.add_function("strftime_now", move |format: String| -> Result<String, Error> {
            let fail = |what: String| Error::new(ErrorKind::InvalidOperation, what);
            let now =
                now.ok_or_else(|| fail("the template asks for the date and none was given".to_owned()))?;
            strftime(now, &format).map_err(|f| fail(format!("strftime_now: the format {f} is not known")))
        });
        let template = environment.get_template(NAME).map_err(|e| wrong(describe(&e)))?;
        template.render(Value::from(Serde(Json::Object(context)))).map_err(|e| {
            match e.detail().and_then(|detail| detail.strip_prefix(RAISED)) {
                Some(message) => TemplateError::Raised(message.to_owned()),
                None => wrong(describe(&e)),
            }
        })
    }
}

/// The environment of `transformers`: blocks eat the newline after and the blanks before them, and
/// Python's methods work on strings, lists and maps.
fn environment(file: &'static str, source: &str) -> Result<Environment<'static>, TemplateError> {
    let wrong = |what: String| TemplateError::Jinja { file: file.to_owned(), what };
    if source.len() > MAX_TEMPLATE {
        return Err(wrong(format!("a template of {} bytes, at most {MAX_TEMPLATE} are taken", source.len())));
    }
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(|e| wrong(e.to_string()))?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_recursion_limit(MAX_DEPTH);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(|out, state, value| match value.kind() {
        ValueKind::None => out.write_str("None").map_err(Error::from),
        ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" }).map_err(Error::from),
        _ => minijinja::escape_formatter(out, state, value),
    });
    environment.add_filter("tojson", tojson);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{message}")))
    });
    environment.add_template_owned(NAME, without_generation_tags(source)).map_err(|e| wrong(describe(&e)))?;
    Ok(environment)
}

/// `json.dumps` as `transformers` calls it: spaces after commas and colons, nothing escaped that
/// need not be, keys in their order.
fn tojson(value: Value, arguments: Kwargs) -> Result<String, Error> {
    let fail = |e: serde_json::Error| Error::new(ErrorKind::BadSerialization, e.to_string());
    let indent: Option<usize> = arguments.get("indent")?;
    let ascii: Option<bool> = arguments.get("ensure_ascii")?;
    arguments.assert_all_used()?;
    if indent > Some(32) {
        return Err(Error::new(ErrorKind::InvalidOperation, "tojson: an indent of more than 32"));
    }
    let value = serde_json::to_value(&value).map_err(fail)?;
    Ok(to_string(&value, Style { indent, ascii: ascii.unwrap_or(false) }))
}

/// `transformers` marks what the model said by `{% generation %}` blocks. They leave no text, so they
/// become blocks that are always taken.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let inner = &tag[2..end];
        let (left, inner) = match inner.strip_prefix('-') {
            Some(inner) => ("-", inner),
            None => ("", inner),
        };
        let (right, word) = match inner.strip_suffix('-') {
            Some(inner) => ("-", inner.trim()),
            None => ("", inner.trim()),
        };
        match word {
            "generation" => out.push_str(&format!("{{%{left} if true {right}%}}")),
            "endgeneration" => out.push_str(&format!("{{%{left} endif {right}%}}")),
            _ => out.push_str(&tag[..end + 2]),
        }
        rest = &tag[end + 2..];
    }
    out.push_str(rest);
    out
}

fn describe(error: &Error) -> String {
    let place = error.line().map(|line| format!("line {line}: ")).unwrap_or_default();
    let mut text = format!("{place}{error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
