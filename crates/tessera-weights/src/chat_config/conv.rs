//! MLC's conversation template: the object in `mlc-chat-config.json`, and the built-in ones.

use super::ChatConfigError;
use super::fields::Fields;
use serde_json::{Map, Value, json};
use std::sync::OnceLock;

/// Text of a role in a template.
pub type RoleText = (String, String);

/// A conversation template. How it is rendered is the engine's part.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ConvTemplate {
    /// Name of the template.
    pub name: Option<String>,
    /// Frame of the system message; holds `{system_message}`.
    pub system_template: String,
    /// The system message that is used when the conversation brings none.
    pub system_message: String,
    /// Ids that come before the tokenised prompt.
    pub system_prefix_token_ids: Option<Vec<u32>>,
    /// Whether the first turn after a system message is introduced by its role.
    pub add_role_after_system_message: bool,
    /// Text that introduces a turn of each role.
    pub roles: Vec<RoleText>,
    /// Frame of a turn's content for each role.
    pub role_templates: Vec<RoleText>,
    /// Turns that every conversation begins with: role and content.
    pub messages: Vec<(String, Option<String>)>,
    /// One or two separators: after user-like turns, after assistant turns.
    pub seps: Vec<String>,
    /// Between a role's text and the content.
    pub role_content_sep: String,
    /// After a role's text when the content is still to be generated.
    pub role_empty_sep: String,
    /// Texts that end the answer. Empty ones mean nothing.
    pub stop_str: Vec<String>,
    /// Tokens that end the answer.
    pub stop_token_ids: Vec<u32>,
    /// Whether reasoning is cut out of earlier assistant turns. `None` in files of before 2026-04.
    pub strip_reasoning_in_history: Option<bool>,
    /// Description of the tools.
    pub function_string: String,
    /// Whether tools are in use.
    pub use_function_calling: bool,
    /// Set for a built-in whose default system message is known by its MD5 only: a system message
    /// has to be given.
    pub unknown_system_message: Option<String>,
}

const USER: &str = "{user_message}";

/// Placeholder and role, as in the role templates that every template starts from.
const ROLE_TEMPLATES: [(&str, &str); 3] =
    [("user", USER), ("assistant", "{assistant_message}"), ("tool", "{tool_message}")];

impl ConvTemplate {
    /// From the `conv_template` object.
    pub fn from_value(value: &Value) -> Result<ConvTemplate, ChatConfigError> {
        let map = value.as_object().ok_or_else(|| ChatConfigError::Field {
            field: "conv_template".to_owned(),
            expected: "an object or a string",
            found: value.to_string().chars().take(60).collect(),
        })?;
        ConvTemplate::from_map(map)
    }

    fn from_map(map: &Map<String, Value>) -> Result<ConvTemplate, ChatConfigError> {
        let fields = Fields::new("conv_template.", map);
        let mut role_templates: Vec<RoleText> =
            ROLE_TEMPLATES.iter().map(|(r, t)| ((*r).to_owned(), (*t).to_owned())).collect();
        for (role, text) in fields.texts("role_templates")?.unwrap_or_default() {
            match role_templates.iter_mut().find(|(r, _)| *r == role) {
                Some(entry) => entry.1 = text,
                None => role_templates.push((role, text)),
            }
        }
        // A user's text that has no place would be dropped: no answer could be one to it.
        if let Some((_, frame)) = role_templates.iter().find(|(r, t)| r == "user" && !t.contains(USER)) {
            return Err(fields.wrong("role_templates.user", "a frame with {user_message}", &json!(frame)));
        }
        let seps = fields.strings("seps")?.unwrap_or_default();
        if seps.is_empty() || seps.len() > 2 {
            return Err(fields.wrong("seps", "one or two strings", &json!(seps)));
        }
        let roles = fields.texts("roles")?.unwrap_or_default();
        if roles.is_empty() {
            return Err(fields.wrong("roles", "an object of role texts", &json!(roles)));
        }
        Ok(ConvTemplate {
            name: fields.string("name")?,
            system_template: fields
                .string("system_template")?
                .unwrap_or_else(|| "{system_message}".to_owned()),
            system_message: fields.string("system_message")?.unwrap_or_default(),
            system_prefix_token_ids: fields.ids("system_prefix_token_ids")?,
            add_role_after_system_message: fields.bool("add_role_after_system_message")?.unwrap_or(true),
            roles,
            role_templates,
            messages: history(&fields)?,
            seps,
            role_content_sep: fields.string("role_content_sep")?.unwrap_or_default(),
            role_empty_sep: fields.string("role_empty_sep")?.unwrap_or_default(),
            stop_str: fields.strings("stop_str")?.unwrap_or_default(),
            stop_token_ids: fields.ids("stop_token_ids")?.unwrap_or_default(),
            strip_reasoning_in_history: fields.bool("strip_reasoning_in_history")?,
            function_string: fields.string("function_string")?.unwrap_or_default(),
            use_function_calling: fields.bool("use_function_calling")?.unwrap_or(false),
            unknown_system_message: None,
        })
    }

    /// The object in MLC's order of keys; what is unset is left out.
    pub fn to_value(&self) -> Value {
        let texts = |pairs: &[RoleText]| {
            Value::Object(pairs.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect())
        };
        let mut map = Map::new();
        if let Some(name) = &self.name {
            map.insert("name".into(), json!(name));
        }
        map.insert("system_template".into(), json!(self.system_template));
        map.insert("system_message".into(), json!(self.system_message));
        if let Some(ids) = &self.system_prefix_token_ids {
            map.insert("system_prefix_token_ids".into(), json!(ids));
        }
        map.insert("add_role_after_system_message".into(), json!(self.add_role_after_system_message));
        map.insert("roles".into(), texts(&self.roles));
        map.insert("role_templates".into(), texts(&self.role_templates));
        map.insert("messages".into(), json!(self.messages));
        map.insert("seps".into(), json!(self.seps));
        map.insert("role_content_sep".into(), json!(self.role_content_sep));
        map.insert("role_empty_sep".into(), json!(self.role_empty_sep));
        map.insert("stop_str".into(), json!(self.stop_str));
        map.insert("stop_token_ids".into(), json!(self.stop_token_ids));
        if let Some(strip) = self.strip_reasoning_in_history {
            map.insert("strip_reasoning_in_history".into(), json!(strip));
        }
        map.insert("function_string".into(), json!(self.function_string));
        map.insert("use_function_calling".into(), json!(self.use_function_calling));
        Value::Object(map)
    }

    /// A built-in template by the name that older folders give instead of an object.
    pub fn builtin(name: &str) -> Result<ConvTemplate, ChatConfigError> {
        builtins()
            .iter()
            .find(|t| t.name.as_deref() == Some(name))
            .cloned()
            .ok_or_else(|| ChatConfigError::UnknownTemplate { name: name.to_owned() })
    }

    /// Names of all built-in templates.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        builtins().iter().filter_map(|t| t.name.as_deref())
    }

    /// The text that introduces a role's turn.
    pub fn role(&self, role: &str) -> Option<&str> {
        self.roles.iter().find(|(r, _)| r == role).map(|(_, t)| t.as_str())
    }

    /// The frame of a role's content: by default the content alone.
    pub fn role_template(&self, role: &str) -> Option<&str> {
        self.role_templates.iter().find(|(r, _)| r == role).map(|(_, t)| t.as_str())
    }

    /// The separator after a turn.
    pub fn sep(&self, role: &str) -> &str {
        let index = usize::from(role == "assistant" && self.seps.len() > 1);
        self.seps.get(index).map_or("", String::as_str)
    }
}

fn history(fields: &Fields<'_>) -> Result<Vec<(String, Option<String>)>, ChatConfigError> {
    let turns = fields.array("messages")?.map_or(&[][..], Vec::as_slice);
    let read = |turn: &Value| match turn.as_array()?.as_slice() {
        [Value::String(role), Value::String(content)] => Some((role.clone(), Some(content.clone()))),
        [Value::String(role), Value::Null] => Some((role.clone(), None)),
        _ => None,
    };
    turns
        .iter()
        .map(|turn| read(turn).ok_or_else(|| fields.wrong("messages", "pairs of role and text", turn)))
        .collect()
}

fn builtins() -> &'static [ConvTemplate] {
    static TABLE: OnceLock<Vec<ConvTemplate>> = OnceLock::new();
    TABLE.get_or_init(|| {
        // The table is part of this crate and a test reads all of it, so these cannot fail later.
        let table: Vec<Value> = serde_json::from_str(include_str!("../conv_templates.json"))
            .expect("conv_templates.json is a list of objects");
        let read = |value: &Value| {
            let mut template = ConvTemplate::from_value(value).expect("every built-in template is valid");
            if value["system_message"].is_null() {
                template.unknown_system_message = Some(format!(
                    "{} characters with an MD5 that begins with {}",
                    value["system_message_chars"],
                    value["system_message_md5"].as_str().unwrap_or_default(),
                ));
            }
            template
        };
        table.iter().map(read).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builtin_reads_and_writes_back() {
        assert_eq!(builtins().len(), 53);
        for template in builtins() {
            let again = ConvTemplate::from_value(&template.to_value()).unwrap();
            let known = ConvTemplate { unknown_system_message: None, ..template.clone() };
            assert_eq!(again, known);
        }
    }

    #[test]
    fn known_default_messages_match_the_published_sums() {
        use md5::{Digest, Md5};
        for (name, chars, sum) in [
            ("chatml", 108, "8f243ed0"),
            ("aya-23", 122, "362b2059"),
            ("deepseek_v3", 169, "917c22ee"),
            ("deepseek_r1_qwen", 169, "ed190eaa"),
            ("dolly", 105, "de8850b2"),
            ("open_hermes_mistral", 261, "c678b137"),
            ("hermes3_llama-3_1", 259, "23fc0f31"),
            ("gorilla-openfunctions-v2", 289, "cae31b92"),
            ("ministral3_reasoning", 565, "9e81a0a9"),
            ("mistral_default", 193, "51ce641a"),
            ("phi-3", 103, "20c660a0"),
            ("rwkv_world", 146, "dc770fc9"),
            ("stablelm", 460, "3ba69127"),
        ] {
            let message = ConvTemplate::builtin(name).unwrap().system_message;
            let digest: String = Md5::digest(&message).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!((message.chars().count(), &digest[..8]), (chars, sum), "{name}");
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let message = ConvTemplate::builtin("vicuna").unwrap_err().to_string();
        assert!(message.contains("\"vicuna\"") && message.contains("llama-3_1"), "{message}");
        assert!(ConvTemplate::builtin("gorilla").unwrap().unknown_system_message.is_some());
    }

    #[test]
    fn wrong_fields_are_named() {
        let message = ConvTemplate::from_value(&json!({"roles": {"user": ""}, "seps": []})).unwrap_err();
        assert!(message.to_string().contains("conv_template.seps"), "{message}");
        let message = ConvTemplate::from_value(&json!({"roles": {"user": 3}, "seps": [""]})).unwrap_err();
        assert!(message.to_string().contains("conv_template.roles"), "{message}");
    }
}
