//! Hugging Face's `chat_template`: Jinja, as `transformers` runs it.

use super::arguments::{Arguments, fail, pay, text};
use super::source::{TICK, prepare};
use super::strftime::strftime;
use super::{Message, RenderOptions, TemplateError};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, Serde, Value, ValueKind, ValueOrKwargs};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior};
use serde_json::{Map, Value as Json};
use tessera_weights::chat_config::python_json::float;

/// Longest template that is taken; the longest known ones are about 30 kB.
const MAX_TEMPLATE: usize = 1 << 20;
/// Work that a template may do in any case, and for each message and byte of its input. A unit is an
/// instruction or 64 bytes, so a template can neither run nor grow without end.
const FUEL: u64 = 500_000;
const FUEL_PER_MESSAGE: u64 = 1_000;
const FUEL_PER_BYTE: u64 = 4;
/// Some instructions take longer than they are paid for: texts are compared, and characters counted, at no
/// charge. Where there is a clock, no prompt takes longer than this.
#[cfg(feature = "threads")]
const MAX_TIME: std::time::Duration = std::time::Duration::from_secs(10);
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
    /// By their names, `bos_token` and others.
    special_tokens: Map<String, Json>,
}

impl std::fmt::Debug for JinjaTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JinjaTemplate({}, {} bytes)", self.file, self.source.len())
    }
}

impl JinjaTemplate {
    /// Compiles a template. `bos_token` and `eos_token` are texts that it may put in.
    pub fn new(source: &str, bos_token: &str, eos_token: &str) -> Result<JinjaTemplate, TemplateError> {
        let tokens = [("bos_token", bos_token), ("eos_token", eos_token)];
        let tokens = tokens.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect();
        JinjaTemplate::compile("chat_template", source, None, tokens)
    }

    fn compile(
        file: &'static str,
        source: &str,
        with_tools: Option<&str>,
        special_tokens: Map<String, Json>,
    ) -> Result<JinjaTemplate, TemplateError> {
        Ok(JinjaTemplate {
            environment: environment(file, source)?,
            tool_environment: with_tools.map(|source| environment(file, source)).transpose()?,
            source: source.to_owned(),
            file,
            special_tokens,
        })
    }

    /// Finds and compiles the template of a folder; `None` if it has none.
    pub fn from_files(
        lookup: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Option<JinjaTemplate>, TemplateError> {
        let json = |file: &'static str| -> Result<Json, TemplateError> {
            let Some(bytes) = lookup(file) else { return Ok(Json::Null) };
            tessera_weights::json::parse(&bytes)
                .map_err(|e| TemplateError::File { file, what: format!("invalid JSON: {e}") })
        };
        let config = json("tokenizer_config.json")?;
        let tokens = special_tokens(&config, &json("special_tokens_map.json")?);
        if let Some(bytes) = lookup("chat_template.jinja") {
            let file = "chat_template.jinja";
            let source = String::from_utf8(bytes)
                .map_err(|e| TemplateError::File { file, what: format!("not UTF-8: {e}") })?;
            return JinjaTemplate::compile(file, &source, None, tokens).map(Some);
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
        JinjaTemplate::compile(file, source, tools, tokens).map(Some)
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Text of the first token, as the folder names it.
    pub fn bos_token(&self) -> &str {
        self.special_token("bos_token")
    }

    /// Text of the last token, as the folder names it.
    pub fn eos_token(&self) -> &str {
        self.special_token("eos_token")
    }

    fn special_token(&self, name: &str) -> &str {
        self.special_tokens.get(name).and_then(Json::as_str).unwrap_or_default()
    }

    /// Renders a conversation.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String, TemplateError> {
        let wrong = |what: String| TemplateError::Jinja { file: self.file.to_owned(), what };
        let mut context = self.special_tokens.clone();
        context.extend(options.variables.clone());
        let input = serde_json::to_value(messages).map_err(|e| wrong(e.to_string()))?;
        let size = messages.iter().map(|m| m.content.as_ref().map_or(64, String::len)).sum::<usize>()
            + options.tools.as_ref().map_or(0, |t| t.to_string().len());
        context.insert("messages".to_owned(), input);
        context.insert("add_generation_prompt".to_owned(), options.add_generation_prompt.into());
        // Templates test `tools is not none`, so it has to be there.
        context.insert("tools".to_owned(), options.tools.clone().unwrap_or(Json::Null));
        context.insert("documents".to_owned(), Json::Null);

        let mut environment = match (&self.tool_environment, &options.tools) {
            (Some(with_tools), Some(_)) => with_tools.clone(),
            _ => self.environment.clone(),
        };
        let paid = FUEL_PER_BYTE.saturating_mul(size as u64);
        let paid = paid.saturating_add(FUEL_PER_MESSAGE.saturating_mul(messages.len() as u64));
        environment.set_fuel(Some(FUEL.saturating_add(paid)));
        #[cfg(feature = "threads")]
        let end = std::time::Instant::now() + MAX_TIME;
        environment.add_function(TICK, move || -> Result<(), Error> {
            #[cfg(feature = "threads")]
            if std::time::Instant::now() > end {
                return Err(fail(format!("the prompt takes longer than {} seconds", MAX_TIME.as_secs())));
            }
            Ok(())
        });
        let now = options.now;
        environment.add_function(
            "strftime_now",
            move |state: &State, format: String| -> Result<String, Error> {
                pay(state, format.len().saturating_mul(16))?;
                let now = now.ok_or_else(|| fail("the template asks for the date and none was given"))?;
                strftime(now, &format).map_err(|f| fail(format!("strftime_now: the format {f} is not known")))
            },
        );
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
    environment.set_unknown_method_callback(super::python::method);
    environment.set_formatter(|out, state, value| match value.kind() {
        ValueKind::None => out.write_str("None").map_err(Error::from),
        ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" }).map_err(Error::from),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(f) if f.is_finite() => out.write_str(&float(f)).map_err(Error::from),
            Ok(f) => out.write_str(&f.to_string().to_lowercase()).map_err(Error::from),
            Err(_) => minijinja::escape_formatter(out, state, value),
        },
        _ => minijinja::escape_formatter(out, state, value),
    });
    super::filters::add(&mut environment);
    super::guard::add(&mut environment);
    // Not Jinja's, and it shows what contains itself.
    environment.remove_global("debug");
    environment.add_function(
        "raise_exception",
        |state: &State, given: Rest<ValueOrKwargs>| -> Result<Value, Error> {
            let given = given.into_values();
            let a = Arguments::bind(&given, ["message"])?;
            Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{}", text(state, a.required(0)?)?)))
        },
    );
    environment.add_template_owned(NAME, prepare(source).map_err(wrong)?).map_err(|e| wrong(describe(&e)))?;
    Ok(environment)
}

/// The special tokens that a template may put in, by their names: those of transformers and those that
/// the folder adds (`image_token`, `additional_special_tokens`). `special_tokens_map.json` counts only
/// where the config has no `added_tokens_decoder`, as it does in transformers.
fn special_tokens(config: &Json, map: &Json) -> Map<String, Json> {
    let text = |token: &Json| {
        let text = token.as_str().or_else(|| token["content"].as_str());
        text.map(Json::from)
    };
    let mut found = Map::new();
    let mut add = |source: &Json| {
        for (name, token) in source.as_object().into_iter().flatten() {
            let value = match token {
                Json::Array(list) if name.ends_with("special_tokens") => {
                    Some(list.iter().filter_map(text).collect())
                }
                token if name.ends_with("_token") => text(token),
                _ => None,
            };
            if let Some(value) = value {
                found.insert(name.clone(), value);
            }
        }
    };
    add(config);
    add(&config["extra_special_tokens"]);
    add(&config["model_specific_special_tokens"]);
    if config["added_tokens_decoder"].is_null() {
        add(map);
        add(&map["extra_special_tokens"]);
    }
    found
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
