//! What stands around calls in each format.

use super::ToolFormat;

pub(super) const FUNCTION: &str = "<function=";
pub(super) const FUNCTION_END: &str = "</function>";
pub(super) const PARAMETER: &str = "<parameter=";
pub(super) const PARAMETER_END: &str = "</parameter>";
pub(super) const HERMES: &str = "<tool_call>";
pub(super) const HERMES_END: &str = "</tool_call>";
const LLAMA: &str = "<|python_tag|>";
const PYTHON: &str = "<|python_start|>";
const PYTHON_END: &str = "<|python_end|>";
const MISTRAL: &str = "[TOOL_CALLS]";
pub(super) const MISTRAL_ARGUMENTS: &str = "[ARGS]";
pub(super) const MISTRAL_ID: &str = "[CALL_ID]";
pub(super) const PHI: &str = "<|tool_call|>";
pub(super) const PHI_END: &str = "<|/tool_call|>";
pub(super) const DEEPSEEK: &str = "<｜tool▁calls▁begin｜>";
pub(super) const DEEPSEEK_END: &str = "<｜tool▁calls▁end｜>";
pub(super) const DEEPSEEK_CALL: &str = "<｜tool▁call▁begin｜>";
pub(super) const DEEPSEEK_CALL_END: &str = "<｜tool▁call▁end｜>";
pub(super) const DEEPSEEK_SEPARATOR: &str = "<｜tool▁sep｜>";

impl ToolFormat {
    /// What stands before calls; nothing for the generic format.
    pub(super) fn mark(self) -> &'static str {
        self.marks().first().copied().unwrap_or_default()
    }

    /// What calls may begin with: the first is as it should be.
    pub(super) fn marks(self) -> &'static [&'static str] {
        match self {
            ToolFormat::Hermes => &[HERMES],
            ToolFormat::Tagged => &[HERMES, FUNCTION],
            ToolFormat::Llama3 => &[LLAMA],
            ToolFormat::Llama4 | ToolFormat::Pythonic => &[PYTHON],
            ToolFormat::Mistral | ToolFormat::MistralNamed => &[MISTRAL],
            ToolFormat::Phi4 => &[PHI],
            ToolFormat::DeepSeekV3 | ToolFormat::DeepSeekV31 => &[DEEPSEEK, DEEPSEEK_CALL],
            ToolFormat::Generic => &[],
        }
    }

    /// What stands after calls.
    pub(super) fn end_mark(self) -> &'static str {
        match self {
            ToolFormat::Hermes | ToolFormat::Tagged => HERMES_END,
            ToolFormat::Llama4 | ToolFormat::Pythonic => PYTHON_END,
            ToolFormat::Phi4 => PHI_END,
            ToolFormat::DeepSeekV3 | ToolFormat::DeepSeekV31 => DEEPSEEK_END,
            _ => "",
        }
    }

    /// What stands inside of calls.
    pub(super) fn inner_marks(self) -> &'static [&'static str] {
        match self {
            ToolFormat::Mistral | ToolFormat::MistralNamed => &[MISTRAL_ARGUMENTS, MISTRAL_ID],
            ToolFormat::DeepSeekV3 | ToolFormat::DeepSeekV31 => {
                &[DEEPSEEK_CALL, DEEPSEEK_CALL_END, DEEPSEEK_SEPARATOR]
            }
            _ => &[],
        }
    }

    /// Whether the mark has to be there, so that calls may follow text.
    pub(super) fn has_marks(self) -> bool {
        use ToolFormat::{Generic, Llama3, Llama4, Pythonic};
        !matches!(self, Llama3 | Llama4 | Pythonic | Generic)
    }

    pub(super) fn is_deepseek(self) -> bool {
        matches!(self, ToolFormat::DeepSeekV3 | ToolFormat::DeepSeekV31)
    }

    /// Whether calls may stand in a list.
    pub(super) fn may_list(self) -> bool {
        matches!(self, ToolFormat::Mistral | ToolFormat::MistralNamed | ToolFormat::Phi4)
    }

    /// Whether a name may stand before its arguments.
    pub(super) fn may_name(self) -> bool {
        self.is_deepseek() || matches!(self, ToolFormat::Mistral | ToolFormat::MistralNamed)
    }
}
