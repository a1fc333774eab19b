//! Generation of one sequence: chunked prefill of the prompt, then decoding token by token over a key/value cache.

use std::ops::ControlFlow;
use std::time::Instant;

use candle_core::DType;
use mpt_core::{Batch, CausalLm, KvDtype, KvPool, SeqId};
use mpt_tokenize::TokenId;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::sampler::{Sampler, SamplingParams};

/// Prefill chunk in tokens: enough for full speed, and a bound on memory whatever the prompt's length.
const PREFILL_TOKENS: usize = 512;

/// Parameters of a generation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerateParams {
    /// Maximum number of new tokens.
    pub max_new_tokens: usize,
    /// Sampling of each token.
    pub sampling: SamplingParams,
    /// Tokens that end the text; they are not part of it.
    pub stop_ids: Vec<TokenId>,
    /// Number of ids that stand for tokens. Higher ids, the embedding's padding rows, are never drawn.
    pub num_ids: Option<usize>,
    /// Maximum number of tokens of prompt and text together; `None` for the model's own bound, and ALiBi has none.
    pub max_seq_len: Option<usize>,
    /// Dtype of the key/value cache.
    pub kv_dtype: KvDtype,
}

/// Reason why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// A stop token was drawn, or a stop string came up.
    Stop,
    /// `max_new_tokens` were generated.
    Length,
    /// The context is full: the model's learned positions end, or `max_seq_len` is reached.
    Context,
    /// The callback ended it.
    Callback,
}

/// Generated tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// Token ids, without prompt and stop token.
    pub ids: Vec<TokenId>,
    /// Reason of the end.
    pub finish_reason: FinishReason,
    /// Seconds of prefill, up to the first logits.
    pub prefill_seconds: f64,
    /// Seconds of decoding all tokens.
    pub decode_seconds: f64,
}

/// Continues `prompt`. `on_token` receives every token as it is drawn, and may end the text.
///
/// # Errors
/// [`Error::Parameter`] for impossible parameters or an empty prompt, [`Error::PromptTooLong`], and those of the model.
pub fn generate(
    model: &CausalLm,
    prompt: &[TokenId],
    params: &GenerateParams,
    on_token: &mut dyn FnMut(TokenId) -> ControlFlow<()>,
) -> Result<Generation> {
    let context_left = context_left(model, prompt, params)?;
    let began = Instant::now();
    let mut decoding = Decoding::begin(model, prompt, params)?;
    let mut logits = decoding.prefill(prompt)?;
    let prefill_seconds = began.elapsed().as_secs_f64();
    let mut finish_reason =
        if context_left < params.max_new_tokens { FinishReason::Context } else { FinishReason::Length };
    for left in (0..params.max_new_tokens.min(context_left)).rev() {
        let id = decoding.sampler.next(&mut logits, &decoding.ids)?;
        if params.stop_ids.contains(&id) {
            finish_reason = FinishReason::Stop;
            break;
        }
        decoding.ids.push(id);
        if on_token(id).is_break() {
            finish_reason = FinishReason::Callback;
            break;
        }
        if left > 0 {
            logits = decoding.forward(&[id])?;
        }
    }
    let decode_seconds = began.elapsed().as_secs_f64() - prefill_seconds;
    Ok(Generation {
        ids: decoding.ids.split_off(prompt.len()),
        finish_reason,
        prefill_seconds,
        decode_seconds,
    })
}

/// Number of new tokens that the context has room for after the prompt.
fn context_left(model: &CausalLm, prompt: &[TokenId], params: &GenerateParams) -> Result<usize> {
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

/// Sequence in decoding: its cache, its sampler and its tokens so far, those of the prompt included.
struct Decoding<'a> {
    model: &'a CausalLm,
    params: &'a GenerateParams,
    pool: KvPool,
    sequence: SeqId,
    sampler: Sampler,
    ids: Vec<TokenId>,
}

impl<'a> Decoding<'a> {
    fn begin(model: &'a CausalLm, prompt: &[TokenId], params: &'a GenerateParams) -> Result<Self> {
        let max_tokens = prompt.len().saturating_add(params.max_new_tokens);
        let mut pool = KvPool::new(model.config(), max_tokens, params.kv_dtype)?;
        let (sequence, sampler) = (pool.add(), Sampler::new(&params.sampling)?);
        Ok(Self { model, params, pool, sequence, sampler, ids: prompt.to_vec() })
    }

    /// Runs the prompt in chunks. Returns the logits of its last token, `[num_ids]`.
    fn prefill(&mut self, prompt: &[TokenId]) -> Result<Vec<f32>> {
        let mut logits = Vec::new();
        for chunk in prompt.chunks(PREFILL_TOKENS) {
            logits = self.forward(chunk)?;
        }
        Ok(logits)
    }

    /// Runs new tokens. Returns the logits of the last one, `[num_ids]`.
    fn forward(&mut self, tokens: &[TokenId]) -> Result<Vec<f32>> {
        let hidden = self.model.forward(&Batch::single(self.sequence, tokens)?, &mut self.pool)?;
        let last = hidden.narrow(0, tokens.len() - 1, 1)?.contiguous()?;
        let mut logits = self.model.logits(&last)?.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        logits.truncate(self.params.num_ids.unwrap_or(usize::MAX));
        Ok(logits)
    }
}
