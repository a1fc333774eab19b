//! Pipeline: a model, its tokenizer and its chat template behind one path; prompts and conversations in, text out.

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

/// A model with its tokenizer, stop ids and chat template.
///
/// A missing piece is an error only where it is needed: a model without a tokenizer continues ids, and one without a chat
/// template continues text.
#[derive(Debug)]
pub struct Pipeline {
    model: CausalLm,
    weights: Weights,
    // read at first use
    tokenizer: OnceLock<Result<Tokenizer, TokenizerProblem>>,
    stop_ids: OnceLock<Vec<TokenId>>,
    chat_template: OnceLock<ChatTemplate>,
}

/// Parameters of a completion. The default is greedy, with at most 128 new tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct CompletionParams {
    /// Maximum number of new tokens.
    pub max_new_tokens: usize,
    /// Sampling of each token.
    pub sampling: SamplingParams,
    /// Stop strings. The completion ends before the first one that comes up.
    pub stop: Vec<String>,
    /// Stop ids; `None` for those of the model's files.
    pub stop_ids: Option<Vec<TokenId>>,
    /// Maximum number of tokens of prompt and completion together; `None` for the model's own bound, and ALiBi has none.
    pub max_seq_len: Option<usize>,
    /// Dtype of the key/value cache.
    pub kv_dtype: KvDtype,
}

impl Default for CompletionParams {
    fn default() -> Self {
        let (sampling, kv_dtype) = Default::default();
        Self { max_new_tokens: 128, sampling, stop: Vec::new(), stop_ids: None, max_seq_len: None, kv_dtype }
    }
}

/// A generated text.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The text, without the prompt and without the stop token or string.
    pub text: String,
    /// Number of tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens, reason of the end, and times. Tokens of a stop string are included.
    pub generation: Generation,
}

impl Pipeline {
    /// Opens a model folder, a GGUF file, or the run folder of a training, in its stored dtypes.
    ///
    /// # Errors
    /// Those of [`open_model`]. Tokenizer, stop ids and chat template are read at first use.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &OpenOptions::default())
    }

    /// [`Pipeline::open`] with another weight dtype or precision, or with an adapter.
    ///
    /// # Errors
    /// As [`Pipeline::open`].
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let (model, weights) = open_model(path.as_ref(), options)?;
        let (tokenizer, stop_ids, chat_template) = Default::default();
        Ok(Self { model, weights, tokenizer, stop_ids, chat_template })
    }

    /// The pipeline with `template` in place of the model's own.
    #[must_use]
    pub fn with_chat_template(mut self, template: ChatTemplate) -> Self {
        self.chat_template = OnceLock::from(template);
        self
    }

    /// The network.
    pub fn model(&self) -> &CausalLm {
        &self.model
    }

    /// Its weights, memory-mapped.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the model has no usable one.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.read_tokenizer().as_ref().map_err(|problem| problem.clone().into())
    }

    fn read_tokenizer(&self) -> &Result<Tokenizer, TokenizerProblem> {
        self.tokenizer.get_or_init(|| tokenizer_of(&self.weights))
    }

    /// Stop ids from the model's files.
    ///
    /// # Errors
    /// [`Error::StopFile`] naming an unreadable file.
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
    /// [`Error::NoChatTemplate`] where the model has none, [`Error::Text`] where it is unusable.
    pub fn chat_template(&self) -> Result<&ChatTemplate> {
        if let Some(template) = self.chat_template.get() {
            return Ok(template);
        }
        let template = chat_template_of(&self.weights)?;
        Ok(self.chat_template.get_or_init(|| template))
    }

    /// Token ids of a prompt. An empty prompt is the end-of-text token, which precedes every text in training.
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

    /// Continues a text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the model has no usable one, and those of [`generate`](crate::generate()).
    pub fn generate(&self, prompt: &str, params: &CompletionParams) -> Result<Completion> {
        self.stream(prompt, params, &mut |_| ControlFlow::Continue(()))
    }

    /// [`Pipeline::generate`] as a stream. With each token `on_text` receives the text that is now certain: whole characters
    /// outside any stop string, possibly none. It may end the completion. The pieces concatenate to the completion's text,
    /// except for text held back when `on_text` ended it.
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

    /// Continues token ids, without a tokenizer.
    ///
    /// # Errors
    /// [`Error::Parameter`] for stop strings, which need a tokenizer, and those of [`generate`](crate::generate()).
    pub fn generate_ids(&self, prompt: &[TokenId], params: &CompletionParams) -> Result<Generation> {
        self.stream_ids(prompt, params, &mut |_| ControlFlow::Continue(()))
    }

    /// [`Pipeline::generate_ids`] as a stream. `on_token` receives each token as it is drawn, and may end the completion.
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

    /// Answers a conversation, rendered with the chat template.
    ///
    /// # Errors
    /// [`Error::NoChatTemplate`], [`Error::Tokenizer`], [`Error::Text`] for a conversation that the template
    /// refuses, and those of [`generate`](crate::generate()).
    pub fn chat(&self, messages: &[Message], params: &CompletionParams) -> Result<Completion> {
        self.stream_chat(messages, params, &mut |_| ControlFlow::Continue(()))
    }

    /// [`Pipeline::chat`] as a stream, like [`Pipeline::stream`]. The template's end of turn ends the answer.
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
        // a stop string that is one token may also be generated as several
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

    /// Completion of a prompt of ids, streamed to `on_text`.
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
            // the text is complete: a break has nothing to end
            let _ = on_text(&rest);
        }
        Ok(Completion { text, prompt_tokens: prompt.len(), generation })
    }
}
