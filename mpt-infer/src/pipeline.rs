//! A model with everything that text needs, opened by its path: prompts and conversations in, text out.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::OnceLock;

use mpt_core::{CausalLm, KvDtype, Weights};
use mpt_tokenize::{ChatTemplate, Message, TokenId, Tokenizer};

use crate::error::{Error, Result};
use crate::generate::{FinishReason, GenerateParams, Generation, generate};
use crate::open::{OpenOptions, open_model};
use crate::sampler::SamplingParams;
use crate::stop::stop_ids;
use crate::text_files::{chat_template_of, tokenizer_of};
use crate::text_stream::TextStream;
use crate::tokenizer_problem::TokenizerProblem;

/// A model, its tokenizer if it has a usable one, the ids that end a text, and its chat template.
///
/// What lacks is an error where it is needed: a model without a tokenizer still continues ids, and one without a chat
/// template still continues text.
#[derive(Debug)]
pub struct Pipeline {
    model: CausalLm,
    weights: Weights,
    // what follows is read when it is first asked for
    tokenizer: OnceLock<Result<Tokenizer, TokenizerProblem>>,
    stop_ids: OnceLock<Vec<TokenId>>,
    chat_template: OnceLock<ChatTemplate>,
}

/// How a text goes on. The default is greedy and ends after 128 tokens at most.
#[derive(Debug, Clone, PartialEq)]
pub struct CompletionParams {
    /// New tokens at most.
    pub max_new_tokens: usize,
    /// How they are drawn.
    pub sampling: SamplingParams,
    /// Texts that end the completion where one comes up. They are not part of it.
    pub stop: Vec<String>,
    /// Tokens that end it; `None` for those of the model's files.
    pub stop_ids: Option<Vec<TokenId>>,
    /// Tokens of prompt and completion together. By default as many as the model can take: ALiBi has no bound.
    pub max_seq_len: Option<usize>,
    /// How keys and values of what was seen are held.
    pub kv_dtype: KvDtype,
}

impl Default for CompletionParams {
    fn default() -> Self {
        let (sampling, kv_dtype) = Default::default();
        Self { max_new_tokens: 128, sampling, stop: Vec::new(), stop_ids: None, max_seq_len: None, kv_dtype }
    }
}

/// A text that was generated.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The text, without prompt and without what ended it.
    pub text: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Its tokens, why it ended, and how long it took. Where a stop string ended it, the string's tokens are among them.
    pub generation: Generation,
}

impl Pipeline {
    /// Opens a model folder, a GGUF file, or the run folder of a training, as it is stored.
    ///
    /// # Errors
    /// Those of [`open_model`]. The tokenizer, the stop ids and the chat template are read when they are first needed.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &OpenOptions::default())
    }

    /// [`Pipeline::open`] in another weight dtype or precision, or with an adapter.
    ///
    /// # Errors
    /// As [`Pipeline::open`].
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let (model, weights) = open_model(path.as_ref(), options)?;
        let (tokenizer, stop_ids, chat_template) = Default::default();
        Ok(Self { model, weights, tokenizer, stop_ids, chat_template })
    }

    /// The same with this chat template instead of the model's own.
    #[must_use]
    pub fn with_chat_template(mut self, template: ChatTemplate) -> Self {
        self.chat_template = OnceLock::from(template);
        self
    }

    /// The network.
    pub fn model(&self) -> &CausalLm {
        &self.model
    }

    /// Its weights, mapped.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the model has none that can be used.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.read_tokenizer().as_ref().map_err(|problem| problem.clone().into())
    }

    fn read_tokenizer(&self) -> &Result<Tokenizer, TokenizerProblem> {
        self.tokenizer.get_or_init(|| tokenizer_of(&self.weights))
    }

    /// The ids that end a text, from the model's files.
    ///
    /// # Errors
    /// [`Error::StopFile`] where one of them cannot be read.
    pub fn stop_ids(&self) -> Result<&[TokenId]> {
        if let Some(ids) = self.stop_ids.get() {
            return Ok(ids);
        }
        let ids = stop_ids(&self.weights, self.read_tokenizer().as_ref().ok())?;
        Ok(self.stop_ids.get_or_init(|| ids))
    }

    /// The chat template.
    ///
    /// # Errors
    /// [`Error::NoChatTemplate`] where the model has none, [`Error::Text`] where it cannot be used.
    pub fn chat_template(&self) -> Result<&ChatTemplate> {
        if let Some(template) = self.chat_template.get() {
            return Ok(template);
        }
        let template = chat_template_of(&self.weights)?;
        Ok(self.chat_template.get_or_init(|| template))
    }

    /// The ids of a prompt: those of the text, or the end-of-text token for an empty one, since a text begins where
    /// another one ended.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], [`Error::Text`].
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<TokenId>> {
        let tokenizer = self.tokenizer()?;
        let mut ids = tokenizer.encode(text)?;
        if ids.is_empty() {
            ids.extend(tokenizer.eos_id());
        }
        Ok(ids)
    }

    /// Goes on with a text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the model has no usable one, and those of [`generate`](crate::generate()).
    pub fn generate(&self, prompt: &str, params: &CompletionParams) -> Result<Completion> {
        self.stream(prompt, params, &mut |_| ControlFlow::Continue(()))
    }

    /// [`Pipeline::generate`], piece by piece: with each token `on_text` is given the text that is certain now, whole
    /// characters that belong to no stop string, perhaps nothing, and may end the completion. The pieces are, together,
    /// its text; but for what was still held back where `on_text` ended it.
    ///
    /// # Errors
    /// As [`Pipeline::generate`].
    pub fn stream(
        &self,
        prompt: &str,
        params: &CompletionParams,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Completion> {
        let prompt = self.encode_prompt(prompt)?;
        self.complete(&prompt, &self.generate_params(params)?, &params.stop, on_text)
    }

    /// Goes on with token ids; no tokenizer is needed.
    ///
    /// # Errors
    /// [`Error::Parameter`] for stop strings, which need text, and those of [`generate`](crate::generate()).
    pub fn generate_ids(&self, prompt: &[TokenId], params: &CompletionParams) -> Result<Generation> {
        self.stream_ids(prompt, params, &mut |_| ControlFlow::Continue(()))
    }

    /// [`Pipeline::generate_ids`], token by token: `on_token` is given each as it comes and may end the completion.
    ///
    /// # Errors
    /// As [`Pipeline::generate_ids`].
    pub fn stream_ids(
        &self,
        prompt: &[TokenId],
        params: &CompletionParams,
        on_token: &mut dyn FnMut(TokenId) -> ControlFlow<()>,
    ) -> Result<Generation> {
        if let Some(text) = params.stop.first() {
            let expected = "no stop texts with a prompt of ids; use `stop_ids`, or a prompt of text";
            return Err(Error::Parameter { field: "stop", actual: format!("{text:?}"), expected });
        }
        generate(&self.model, prompt, &self.generate_params(params)?, on_token)
    }

    /// Answers a conversation, written in the model's chat template.
    ///
    /// # Errors
    /// [`Error::NoChatTemplate`], [`Error::Tokenizer`], [`Error::Text`] for a conversation that does not fit the
    /// template, and those of [`generate`](crate::generate()).
    pub fn chat(&self, messages: &[Message], params: &CompletionParams) -> Result<Completion> {
        self.stream_chat(messages, params, &mut |_| ControlFlow::Continue(()))
    }

    /// [`Pipeline::chat`], piece by piece as in [`Pipeline::stream`]. What ends an answer in the template ends it here.
    ///
    /// # Errors
    /// As [`Pipeline::chat`].
    pub fn stream_chat(
        &self,
        messages: &[Message],
        params: &CompletionParams,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Completion> {
        let (template, tokenizer) = (self.chat_template()?, self.tokenizer()?);
        let prompt = tokenizer.encode(&template.render(messages, true)?)?;
        let mut generate_params = self.generate_params(params)?;
        generate_params.stop_ids.extend(template.stop_ids(tokenizer));
        // A string may be a token and yet come up in parts.
        let stop: Vec<String> = params.stop.iter().chain(template.stop_strings()).cloned().collect();
        self.complete(&prompt, &generate_params, &stop, on_text)
    }

    fn generate_params(&self, params: &CompletionParams) -> Result<GenerateParams> {
        let stop_ids = match &params.stop_ids {
            Some(ids) => ids.clone(),
            None => self.stop_ids()?.to_vec(),
        };
        Ok(GenerateParams {
            max_new_tokens: params.max_new_tokens,
            sampling: params.sampling.clone(),
            stop_ids,
            num_ids: self.read_tokenizer().as_ref().ok().map(Tokenizer::num_ids),
            max_seq_len: params.max_seq_len,
            kv_dtype: params.kv_dtype,
        })
    }

    /// Text after a prompt of ids.
    fn complete(
        &self,
        prompt: &[TokenId],
        params: &GenerateParams,
        stop: &[String],
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Completion> {
        let mut stream = TextStream::new(self.tokenizer()?, stop);
        let (mut text, mut failure) = (String::new(), None);
        let mut generation = generate(&self.model, prompt, params, &mut |id| match stream.push(id) {
            Ok(piece) => {
                text.push_str(&piece);
                let asked = on_text(&piece);
                if stream.stopped() { ControlFlow::Break(()) } else { asked }
            }
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        if stream.stopped() {
            generation.finish_reason = FinishReason::Stop;
        }
        let rest = stream.finish();
        text.push_str(&rest);
        if !rest.is_empty() && generation.finish_reason != FinishReason::Callback {
            // The text is whole: there is nothing left to end.
            let _ = on_text(&rest);
        }
        Ok(Completion { text, prompt_tokens: prompt.len(), generation })
    }
}
