//! `mpt tokenizer apply-template`: chat templates and conversations.

use std::path::Path;

use mpt_infer::{
    TokenizerProblem, chat_template_of, folder_chat_template, folder_tokenizer, model_path, open_weights,
    tokenizer_of,
};
use mpt_tokenize::{ChatTemplate, Message, Tokenizer};
use serde_json::{Value, json};

use crate::exit::{CliError, ExitStatus};
use crate::settings::Context;

/// Selects the template by name or file, else the model's own.
pub(super) fn select_template(
    model: Option<&Path>,
    name: Option<&str>,
    file: Option<&Path>,
) -> Result<ChatTemplate, CliError> {
    if let Some(name) = name {
        return Ok(ChatTemplate::builtin(name)?);
    }
    if let Some(file) = file {
        return Ok(ChatTemplate::from_file(file)?);
    }
    let path = model.ok_or_else(|| CliError::usage("a template or a model is required"))?;
    model_template(path)
}

/// Template of a model. A folder needs to hold nothing else.
fn model_template(path: &Path) -> Result<ChatTemplate, CliError> {
    let template = if path.is_dir() {
        folder_chat_template(&model_path(path)?)
    } else {
        chat_template_of(&open_weights(path)?)
    };
    Ok(template?)
}

/// Tokenizer of a model.
fn model_tokenizer(path: &Path) -> Result<Result<Tokenizer, TokenizerProblem>, CliError> {
    if path.is_dir() {
        Ok(folder_tokenizer(&model_path(path)?))
    } else {
        Ok(tokenizer_of(&open_weights(path)?))
    }
}

/// Reads a conversation: a list of messages, or an object with one.
pub(super) fn read_messages(file: &Path) -> Result<Vec<Message>, CliError> {
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.map_err(|error| CliError::read(ExitStatus::Data, file, error))?;
    let invalid = |problem: String| CliError::data(format!("{}: {problem}", file.display()));
    let value: Value =
        serde_json::from_str(&text).map_err(|error| invalid(format!("broken JSON: {error}")))?;
    let Some(messages) = value.as_array().or_else(|| value["messages"].as_array()) else {
        return Err(invalid("expected a list of messages, or an object with it as `messages`".into()));
    };
    let message = |(number, value): (usize, &Value)| {
        message(value).map_err(|problem| invalid(format!("message {number}: {problem}")))
    };
    messages.iter().enumerate().map(message).collect()
}

/// Parses a message of a data set or request. Its content is a text, or a list of text parts, which are joined.
fn message(value: &Value) -> Result<Message, String> {
    let role = value["role"].as_str().ok_or("`role` is missing or no text, expected who speaks")?;
    let part = |part: &Value| {
        let text = part.as_str().or_else(|| part["text"].as_str().filter(|_| part["type"] == "text"));
        text.map(str::to_owned).ok_or_else(|| {
            let kind = part["type"].as_str().unwrap_or("of no type").escape_debug().to_string();
            format!("`content` has a part `{kind}`, expected parts `{{\"type\": \"text\", \"text\": …}}`")
        })
    };
    let content = match &value["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(part).collect::<Result<String, _>>()?,
        Value::Null => {
            return Err("`content` is null or missing, expected a text; leave the message out".into());
        }
        _ => return Err("`content` is no text, expected one, or a list of text parts".into()),
    };
    Ok(Message::new(role, content))
}

/// Prints the rendered text without a newline. With `--json`, adds the stop strings, and the ids if the model has a
/// tokenizer.
pub(super) fn print_rendered(
    template: &ChatTemplate,
    text: &str,
    model: Option<&Path>,
    ctx: &mut Context,
) -> Result<(), CliError> {
    ctx.out.chunk(text)?;
    let tokenizer = match model.map(model_tokenizer).transpose()? {
        Some(Err(problem @ TokenizerProblem::Unusable(_))) => {
            ctx.out.log().warn(format_args!("no ids: {problem}"));
            None
        }
        found => found.and_then(Result::ok),
    };
    let ids = tokenizer.as_ref().map(|tokenizer| tokenizer.encode(text)).transpose()?;
    let stop_ids = tokenizer.as_ref().map(|tokenizer| template.stop_ids(tokenizer));
    ctx.out.json(&json!({
        "template": template.name(), "text": text, "ids": ids, "stop": template.stop_strings(), "stop_ids": stop_ids,
    }))
}
