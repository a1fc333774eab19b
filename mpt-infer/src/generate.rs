//! Generation: the prompt in pieces, then a token at a time, with the keys and values of what was seen kept.

use std::ops::ControlFlow;
use std::time::Instant;

use candle_core::DType;
use mpt_core::{Batch, CausalLm, KvDtype, KvPool, SeqId};
use mpt_tokenize::TokenId;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::sampler::{Sampler, SamplingParams};

/// Tokens of a prompt that go through the model at once: enough for full speed, little enough for any prompt.
const PREFILL_TOKENS: usize = 512;

/// What to generate.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerateParams {
    /// New tokens at most.
    pub max_new_tokens: usize,
    /// How they are drawn.
    pub sampling: SamplingParams,
    /// Tokens that end the text. They are not part of it.
    pub stop_ids: Vec<TokenId>,
    /// Ids from this one on are never drawn: rows of the embedding without a token.
    pub num_ids: Option<usize>,
    /// Tokens of prompt and text together. By default as many as the model can take: ALiBi has no bound.
    pub max_seq_len: Option<usize>,
    /// How keys and values of what was seen are held.
    pub kv_dtype: KvDtype,
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// A stop token.
    Stop,
    /// As many tokens as were asked for.
    Length,
    /// No more tokens fit: the model's positions end, or `max_seq_len` does.
    Context,
    /// The callback said so.
    Callback,
}

/// A generated text.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// Its tokens, without prompt and stop token.
    pub ids: Vec<TokenId>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Seconds until the first token.
    pub prefill_seconds: f64,
    /// Seconds for all others.
    pub decode_seconds: f64,
}

/// Generates after `prompt`; `each` is given every token as it comes and may end the text.
///
/// # Errors
/// [`Error::Parameter`] for impossible parameters or an empty prompt, [`Error::PromptTooLong`], and those of the model.
pub fn generate(
    model: &CausalLm,
    prompt: &[TokenId],
    params: &GenerateParams,
    each: &mut dyn FnMut(TokenId) -> ControlFlow<()>,
) -> Result<Generation> {
    let room = room(model, prompt, params)?;
    let began = Instant::now();
    let mut text = Text::begin(model, prompt, params)?;
    let mut logits = text.prefill(prompt)?;
    let prefill_seconds = began.elapsed().as_secs_f64();
    let mut finish_reason =
        if room < params.max_new_tokens { FinishReason::Context } else { FinishReason::Length };
    for left in (0..params.max_new_tokens.min(room)).rev() {
        let id = text.sampler.next(&mut logits, &text.ids)?;
        if params.stop_ids.contains(&id) {
            finish_reason = FinishReason::Stop;
            break;
        }
        text.ids.push(id);
        if each(id).is_break() {
            finish_reason = FinishReason::Callback;
            break;
        }
        if left > 0 {
            logits = text.forward(&[id])?;
        }
    }
    let decode_seconds = began.elapsed().as_secs_f64() - prefill_seconds;
    Ok(Generation { ids: text.ids.split_off(prompt.len()), finish_reason, prefill_seconds, decode_seconds })
}

/// New tokens that fit behind the prompt.
fn room(model: &CausalLm, prompt: &[TokenId], params: &GenerateParams) -> Result<usize> {
    if prompt.is_empty() {
        let expected = "one token or more; give a prompt, or the end-of-text token to begin a text";
        return Err(Error::Parameter { field: "prompt", actual: "empty".into(), expected });
    }
    let config = model.config();
    let bound = if config.learned_pos_emb { config.max_seq_len } else { usize::MAX };
    let limit = params.max_seq_len.unwrap_or(usize::MAX).min(bound);
    if prompt.len() >= limit {
        return Err(Error::PromptTooLong { tokens: prompt.len(), limit: limit.saturating_sub(1) });
    }
    Ok(limit - prompt.len())
}

/// A text in the making.
struct Text<'a> {
    model: &'a CausalLm,
    params: &'a GenerateParams,
    pool: KvPool,
    sequence: SeqId,
    sampler: Sampler,
    ids: Vec<TokenId>,
}

impl<'a> Text<'a> {
    fn begin(model: &'a CausalLm, prompt: &[TokenId], params: &'a GenerateParams) -> Result<Self> {
        let most = prompt.len().saturating_add(params.max_new_tokens);
        let mut pool = KvPool::new(model.config(), most, params.kv_dtype)?;
        let (sequence, sampler) = (pool.add(), Sampler::new(&params.sampling)?);
        Ok(Self { model, params, pool, sequence, sampler, ids: prompt.to_vec() })
    }

    fn prefill(&mut self, prompt: &[TokenId]) -> Result<Vec<f32>> {
        let mut logits = Vec::new();
        for piece in prompt.chunks(PREFILL_TOKENS) {
            logits = self.forward(piece)?;
        }
        Ok(logits)
    }

    /// Runs new tokens and gives the logits of what follows the last of them.
    fn forward(&mut self, tokens: &[TokenId]) -> Result<Vec<f32>> {
        let hidden = self.model.forward(&Batch::single(self.sequence, tokens)?, &mut self.pool)?;
        let last = hidden.narrow(0, tokens.len() - 1, 1)?.contiguous()?;
        let mut logits = self.model.logits(&last)?.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        logits.truncate(self.params.num_ids.unwrap_or(usize::MAX));
        Ok(logits)
    }
}
