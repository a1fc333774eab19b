//! The forms that the family's chat and instruction models were trained with. Every byte matters: a line feed too many
//! changes what a model answers.
//!
//! Source: the model cards of MPT-30B-chat, MPT-30B-instruct, MPT-7B-instruct, and the Dolly preprocessor of llm-foundry.

use std::fmt::Write;

use super::Message;
use crate::error::shown;
use crate::train::END_OF_TEXT;

/// What ends a message in ChatML.
const IM_END: &str = "<|im_end|>";

/// The system message MPT-30B-chat was trained with.
const CHATML_SYSTEM: &str = "A conversation between a user and an LLM-based AI assistant. The assistant gives helpful and honest answers.";

/// The beginning of every instruction.
const INTRODUCTION: &str = "Below is an instruction that describes a task. Write a response that appropriately completes the request.";

/// A built-in template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    Chatml,
    Mpt30bInstruct,
    Mpt7bInstruct,
    Dolly,
}

/// Why a conversation cannot be written in a form.
pub(super) struct Misfit {
    pub(super) actual: String,
    pub(super) expected: &'static str,
}

impl Named {
    pub(super) const ALL: [Self; 4] = [Self::Chatml, Self::Mpt30bInstruct, Self::Mpt7bInstruct, Self::Dolly];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Chatml => "chatml",
            Self::Mpt30bInstruct => "mpt-30b-instruct",
            Self::Mpt7bInstruct => "mpt-7b-instruct",
            Self::Dolly => "dolly",
        }
    }

    pub(super) fn stop_strings(self) -> &'static [&'static str] {
        match self {
            Self::Chatml => &[IM_END, END_OF_TEXT],
            _ => &[END_OF_TEXT],
        }
    }

    pub(super) fn render(self, messages: &[Message], add_generation_prompt: bool) -> Result<String, Misfit> {
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

/// The default system message comes first where the conversation does not begin with one.
fn chatml(messages: &[Message], add_generation_prompt: bool) -> Result<String, Misfit> {
    let mut text = String::new();
    let mut turn = |role: &str, content: &str| {
        // Writing to a string cannot fail.
        let _ = write!(text, "<|im_start|>{role}\n{content}{IM_END}\n");
    };
    if messages.first().is_none_or(|message| message.role != "system") {
        turn("system", CHATML_SYSTEM);
    }
    for (index, Message { role, content }) in messages.iter().enumerate() {
        if !["system", "user", "assistant"].contains(&role.as_str()) {
            let actual = format!("message {index} is of the role {}", shown(role));
            return Err(Misfit { actual, expected: "`system`, `user` or `assistant`" });
        }
        turn(role, content);
    }
    if add_generation_prompt {
        text.push_str("<|im_start|>assistant\n");
    }
    Ok(text)
}

/// The instruction, and the response where the conversation has it.
fn single_turn(messages: &[Message], to_be_answered: bool) -> Result<(&str, Option<&str>), Misfit> {
    let roles: Vec<&str> = messages.iter().map(|message| message.role.as_str()).collect();
    match (&roles[..], to_be_answered) {
        (["user"], _) => Ok((&messages[0].content, None)),
        (["user", "assistant"], false) => Ok((&messages[0].content, Some(&messages[1].content))),
        _ => {
            let first: Vec<String> = roles.iter().take(4).map(|role| shown(role)).collect();
            let more = if roles.len() > 4 { ", …" } else { "" };
            let actual = format!("{} messages of the roles {}{more}", roles.len(), first.join(", "));
            Err(Misfit {
                actual,
                expected: "one message of the role `user`, and its answer if there is one already",
            })
        }
    }
}
