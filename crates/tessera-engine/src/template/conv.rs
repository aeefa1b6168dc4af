//! Rendering of MLC's `conv_template`.

use super::{Message, Prompt, RenderOptions, TemplateError};
use tessera_weights::chat_config::ConvTemplate;
use tessera_weights::chat_config::python_json::{Style, to_string};

const SYSTEM: &str = "{system_message}";
const FUNCTION: &str = "{function_string}";

/// The prompt in parts: text of the template, in which a place for tools is looked for, and text of
/// the conversation, which goes in as it is.
#[derive(Default)]
struct Parts(Vec<(bool, String)>);

impl Parts {
    fn template(&mut self, text: &str) {
        self.0.push((true, text.to_owned()));
    }

    /// A frame with a content in place of each placeholder.
    fn framed(&mut self, frame: &str, placeholder: &str, content: &str) {
        for (i, text) in frame.split(placeholder).enumerate() {
            if i > 0 {
                self.0.push((false, content.to_owned()));
            }
            self.template(text);
        }
    }

    fn has_place_for_tools(&self) -> bool {
        self.0.iter().any(|(template, text)| *template && text.contains(FUNCTION))
    }

    /// Joins the parts. The tools go to the last place for them, the other places vanish.
    fn join(self, tools: &str) -> String {
        let places: usize =
            self.0.iter().filter(|(template, _)| *template).map(|(_, t)| t.matches(FUNCTION).count()).sum();
        let mut out = String::new();
        let mut place = 0;
        for (template, text) in self.0 {
            if !template {
                out.push_str(&text);
                continue;
            }
            for (i, piece) in text.split(FUNCTION).enumerate() {
                if i > 0 {
                    place += 1;
                    if place == places {
                        out.push_str(tools);
                    }
                }
                out.push_str(piece);
            }
        }
        out
    }
}

/// Renders a conversation. A system message at the beginning replaces the template's own.
pub fn render(
    conv: &ConvTemplate,
    messages: &[Message],
    options: &RenderOptions,
) -> Result<Prompt, TemplateError> {
    let name = || conv.name.clone().unwrap_or_else(|| "conv_template".to_owned());
    let given = messages.first().filter(|m| is_system(&m.role));
    let turns = &messages[usize::from(given.is_some())..];
    let system = match (given, &conv.unknown_system_message) {
        (Some(message), _) => message.content.as_deref().unwrap_or_default(),
        (None, None) => conv.system_message.as_str(),
        (None, Some(known)) => {
            return Err(TemplateError::SystemUnknown { template: name(), known: known.clone() });
        }
    };
    if given.is_some() && !conv.system_template.contains(SYSTEM) && !system.is_empty() {
        return Err(TemplateError::NoPlace { template: name(), what: "a system message" });
    }

    let mut parts = Parts::default();
    // Whether there is a system text is asked after the message is in place: an empty message still
    // leaves its frame.
    let has_system = !conv.system_template.replace(SYSTEM, system).is_empty();
    if has_system {
        parts.framed(&conv.system_template, SYSTEM, system);
    }

    let history = conv.messages.iter().map(|(role, content)| (role.as_str(), content.as_deref()));
    let mut all: Vec<(&str, Option<&str>)> = history.collect();
    let offset = all.len();
    for message in turns {
        // A message with neither text nor anything else asks for nothing.
        if message.content.is_none() && !message.extra.is_empty() {
            return Err(TemplateError::NoPlace { template: name(), what: "a message without text" });
        }
        all.push((&message.role, Some(message.content.as_deref().unwrap_or_default())));
    }
    if options.add_generation_prompt {
        all.push(("assistant", None));
    }
    let last_user = all.iter().rposition(|(role, _)| *role == "user").unwrap_or(0);

    for (index, (role, content)) in all.iter().enumerate() {
        if is_system(role) {
            let index = (index + usize::from(given.is_some())).saturating_sub(offset);
            return Err(TemplateError::SystemPlace { template: name(), index });
        }
        let Some(introduction) = conv.role(role) else {
            let known = conv.roles.iter().map(|(r, _)| r.as_str()).collect::<Vec<_>>().join(", ");
            return Err(TemplateError::Role { template: name(), role: (*role).to_owned(), known });
        };
        let Some(content) = content else {
            parts.template(introduction);
            parts.template(&conv.role_empty_sep);
            continue;
        };
        if index > 0 || conv.add_role_after_system_message || !has_system {
            parts.template(introduction);
            parts.template(&conv.role_content_sep);
        }
        let strips =
            conv.strip_reasoning_in_history == Some(true) && *role == "assistant" && index < last_user;
        let content = if strips { without_reasoning(content) } else { content };
        let placeholder = format!("{{{role}_message}}");
        let frame = conv.role_template(role).unwrap_or(&placeholder);
        if !frame.contains(&placeholder) && !content.is_empty() {
            let what = match *role {
                "user" => "a user's message",
                "assistant" => "an assistant's message",
                "tool" => "a tool's message",
                _ => "a message of this role",
            };
            return Err(TemplateError::NoPlace { template: name(), what });
        }
        parts.framed(frame, &placeholder, content);
        parts.template(conv.sep(role));
    }

    let tools = match &options.tools {
        Some(tools) if tools.as_array().is_some_and(|t| !t.is_empty()) => {
            if !parts.has_place_for_tools() {
                return Err(TemplateError::NoPlace { template: name(), what: "tools" });
            }
            let functions = tools.as_array().into_iter().flatten();
            let functions = functions.map(|t| t.get("function").unwrap_or(t).clone()).collect();
            to_string(&serde_json::Value::Array(functions), Style { indent: None, ascii: true })
        }
        _ => conv.function_string.clone(),
    };
    Ok(Prompt {
        prefix_ids: conv.system_prefix_token_ids.clone().unwrap_or_default(),
        text: parts.join(&tools),
    })
}

/// `developer` is OpenAI's newer word for `system`.
fn is_system(role: &str) -> bool {
    role == "system" || role == "developer"
}

/// An answer without what the model thought before it.
fn without_reasoning(content: &str) -> &str {
    match content.rsplit_once("</think>") {
        Some((_, answer)) => answer.trim_start_matches('\n'),
        None => content,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render_builtin(name: &str, messages: &[(&str, &str)]) -> Result<Prompt, TemplateError> {
        let messages: Vec<Message> = messages.iter().map(|(r, c)| Message::new(*r, *c)).collect();
        render(&ConvTemplate::builtin(name).unwrap(), &messages, &RenderOptions::answer())
    }

    /// Before: the text was left out without a word.
    #[test]
    fn a_text_without_a_place_is_an_error() {
        for role in ["user", "assistant", "tool"] {
            let mut conv = ConvTemplate::builtin("qwen2").unwrap();
            conv.roles.push(("tool".to_owned(), "<|im_start|>tool".to_owned()));
            conv.role_templates
                .iter_mut()
                .filter(|(r, _)| r == role)
                .for_each(|(_, t)| *t = "text".to_owned());
            let messages = [Message::new("user", "a"), Message::new(role, "b"), Message::new("user", "")];
            let error = render(&conv, &messages, &RenderOptions::answer()).unwrap_err();
            assert!(error.is_about_place() && error.to_string().contains(role), "{error}");
        }
    }

    #[test]
    fn turns_are_rendered_as_mlc_does() {
        let prompt = render_builtin("llama-2", &[("user", "a"), ("assistant", "b"), ("user", "c")]).unwrap();
        assert_eq!(prompt.prefix_ids, [1]);
        assert_eq!(
            prompt.text,
            "[INST] <<SYS>>\nYou are a helpful, respectful and honest assistant.\n<</SYS>>\n\na \
             [/INST] b </s><s>[INST] c [/INST] "
        );
        let prompt = render_builtin("qwen2", &[("system", "S"), ("user", "a")]).unwrap();
        assert_eq!(
            prompt.text,
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
        );
        // An empty message leaves the frame.
        let prompt = render_builtin("qwen2", &[("system", ""), ("user", "a")]).unwrap();
        assert!(prompt.text.starts_with("<|im_start|>system\n<|im_end|>\n"));
        // A different text after an empty turn, and no system text at all.
        let prompt = render_builtin("phi-2", &[("user", "a")]).unwrap();
        assert_eq!(prompt.text, "Instruct: a\nOutput:");
    }

    #[test]
    fn what_people_write_goes_in_as_it_is() {
        let text = "$& $1 {user_message} {system_message} {function_string} \\n {{x}} {% if %}";
        let prompt = render_builtin("chatml", &[("system", text), ("user", text)]).unwrap();
        assert_eq!(prompt.text.matches(text).count(), 2);
        let mut conv = ConvTemplate::builtin("gorilla-openfunctions-v2").unwrap();
        conv.function_string = "[TOOLS]".into();
        let prompt = render(&conv, &[Message::new("user", text)], &RenderOptions::answer()).unwrap();
        assert!(prompt.text.contains(text) && prompt.text.contains("<<function>>[TOOLS]\n"));
    }

    #[test]
    fn tools_go_to_the_last_place() {
        let conv = ConvTemplate::builtin("gorilla-openfunctions-v2").unwrap();
        let tools = json!([{"type": "function", "function": {"name": "f"}}]);
        let options = RenderOptions { tools: Some(tools), ..RenderOptions::answer() };
        let turns = [Message::new("user", "a"), Message::new("assistant", "b"), Message::new("user", "c")];
        let text = render(&conv, &turns, &options).unwrap().text;
        assert!(text.contains("<<function>>\n<<question>>a"));
        assert!(text.contains("<<function>>[{\"name\": \"f\"}]\n<<question>>c"), "{text}");
        let llama = ConvTemplate::builtin("llama-3").unwrap();
        let error = render(&llama, &turns, &options).unwrap_err().to_string();
        assert!(error.contains("llama-3") && error.contains("tools"), "{error}");
    }

    #[test]
    fn reasoning_is_cut_from_earlier_answers_only() {
        let turns = [("user", "a"), ("assistant", "<think>x</think>\n\nb"), ("user", "c")];
        let text = render_builtin("qwen3", &turns).unwrap().text;
        assert!(text.contains("<|im_start|>assistant\nb<|im_end|>"), "{text}");
        let text = render_builtin("qwen2", &turns).unwrap().text;
        assert!(text.contains("<think>x</think>"));
    }

    #[test]
    fn what_has_no_place_is_refused() {
        let error = render_builtin("llama-3", &[("user", "a"), ("system", "S")]).unwrap_err();
        assert!(matches!(error, TemplateError::SystemPlace { index: 1, .. }), "{error}");
        let error = render_builtin("llama-3", &[("tool", "a")]).unwrap_err().to_string();
        assert!(error.contains("\"tool\"") && error.contains("user, assistant"), "{error}");
        let error = render_builtin("gorilla", &[("user", "a")]).unwrap_err().to_string();
        assert!(error.contains("159 characters"), "{error}");
        assert!(render_builtin("gorilla", &[("system", "S"), ("user", "a")]).is_ok());
        let error = render_builtin("llama-4", &[("system", "S"), ("user", "a")]).unwrap_err();
        assert!(matches!(error, TemplateError::NoPlace { .. }));
    }
}
