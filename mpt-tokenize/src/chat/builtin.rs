//! Built-in templates: the formats that MPT's chat and instruction models were trained with.
//!
//! Every byte matters: an extra line feed changes the answers of a model.
//!
//! Source: the model cards of MPT-30B-chat, MPT-30B-instruct, MPT-7B-instruct, and the Dolly preprocessor of llm-foundry.

use std::fmt::Write;

use super::Message;
use crate::error::shown;
use crate::train::END_OF_TEXT;

/// End of a message in ChatML.
const IM_END: &str = "<|im_end|>";

/// System message of MPT-30B-chat.
const CHATML_SYSTEM: &str = "A conversation between a user and an LLM-based AI assistant. The assistant gives helpful and honest answers.";

/// Introduction of every instruction.
const INTRODUCTION: &str = "Below is an instruction that describes a task. Write a response that appropriately completes the request.";

/// Built-in template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BuiltinTemplate {
    Chatml,
    Mpt30bInstruct,
    Mpt7bInstruct,
    Dolly,
}

/// Conversation that a template does not accept.
pub(super) struct Mismatch {
    pub(super) actual: String,
    pub(super) expected: &'static str,
}

impl BuiltinTemplate {
    /// All templates.
    pub(super) const ALL: [Self; 4] = [Self::Chatml, Self::Mpt30bInstruct, Self::Mpt7bInstruct, Self::Dolly];

    /// Name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Chatml => "chatml",
            Self::Mpt30bInstruct => "mpt-30b-instruct",
            Self::Mpt7bInstruct => "mpt-7b-instruct",
            Self::Dolly => "dolly",
        }
    }

    /// Strings that end an answer.
    pub(super) fn stop_strings(self) -> &'static [&'static str] {
        match self {
            Self::Chatml => &[IM_END, END_OF_TEXT],
            _ => &[END_OF_TEXT],
        }
    }

    /// Text of a conversation.
    pub(super) fn render(
        self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, Mismatch> {
        let (before, after) = match self {
            Self::Chatml => return chatml(messages, add_generation_prompt),
            Self::Mpt30bInstruct => ("\n\n###Instruction\n", "\n\n### Response\n"),
            Self::Mpt7bInstruct => ("\n### Instruction:\n", "\n### Response:\n"),
            Self::Dolly => ("\n\n### Instruction:\n", "\n\n### Response:\n"),
        };
        let (instruction, response) = single_turn(messages, add_generation_prompt)?;
        let mut text = format!("{INTRODUCTION}{before}{instruction}");
        if add_generation_prompt || response.is_some() {
            text.push_str(after);
            text.push_str(response.unwrap_or_default());
        }
        Ok(text)
    }
}

/// Conversation in ChatML. The default system message is added when the conversation has none.
fn chatml(messages: &[Message], add_generation_prompt: bool) -> Result<String, Mismatch> {
    let mut text = String::new();
    let mut turn = |role: &str, content: &str| {
        // writing to a string cannot fail
        let _ = write!(text, "<|im_start|>{role}\n{content}{IM_END}\n");
    };
    if messages.first().is_none_or(|message| message.role != "system") {
        turn("system", CHATML_SYSTEM);
    }
    for (index, Message { role, content }) in messages.iter().enumerate() {
        if !["system", "user", "assistant"].contains(&role.as_str()) {
            let actual = format!("message {index} is of the role {}", shown(role));
            return Err(Mismatch { actual, expected: "`system`, `user` or `assistant`" });
        }
        turn(role, content);
    }
    if add_generation_prompt {
        text.push_str("<|im_start|>assistant\n");
    }
    Ok(text)
}

/// Instruction of a single-turn conversation, and its response if present.
fn single_turn(messages: &[Message], add_generation_prompt: bool) -> Result<(&str, Option<&str>), Mismatch> {
    let roles: Vec<&str> = messages.iter().map(|message| message.role.as_str()).collect();
    match (&roles[..], add_generation_prompt) {
        (["user"], _) => Ok((&messages[0].content, None)),
        (["user", "assistant"], false) => Ok((&messages[0].content, Some(&messages[1].content))),
        _ => {
            let first: Vec<String> = roles.iter().take(4).map(|role| shown(role)).collect();
            let more = if roles.len() > 4 { ", …" } else { "" };
            let actual = format!("{} messages of the roles {}{more}", roles.len(), first.join(", "));
            Err(Mismatch {
                actual,
                expected: "one message of the role `user`, and its answer if there is one already",
            })
        }
    }
}
