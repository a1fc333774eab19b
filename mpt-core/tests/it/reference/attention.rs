//! Attention by its definition: scores, bias and mask as tables `[b, h, s, s]`.

use std::f64::consts::TAU;

use candle_core::{D, Device, Result, Tensor};
use mpt_core::config::{RopeConfig, RopeScaling};

use super::layers::soft_cap;
use super::{Batch, Reference};

impl Reference<'_> {
    pub(super) fn attention(&self, place: &str, x: &Tensor, batch: &Batch) -> Result<Tensor> {
        let attn = &self.config.attn_config;
        let (b, s, _) = x.dims3()?;
        let (h, g, e) = (self.config.n_heads, attn.kv_n_heads, self.config.head_dim);
        let [q, k, v] = self.queries_keys_values(place, x)?; // [b, s, heads * e]
        let (q, k) = (self.normed(place, "q_ln", &q, h)?, self.normed(place, "k_ln", &k, g)?);
        let split = |x: &Tensor, heads| x.reshape((b, s, heads, e));
        let q = self.rotated(&split(&q, h)?, batch)?;
        let k = self.rotated(&split(&k, g)?, batch)?;
        // query head i reads key head i / (h / g)
        let repeated = |x: &Tensor| x.unsqueeze(3)?.expand((b, s, g, h / g, e))?.reshape((b, s, h, e));
        let heads_first = |x: &Tensor| x.transpose(1, 2)?.contiguous();
        let (q, k) = (heads_first(&q)?, heads_first(&repeated(&k)?)?);
        let v = heads_first(&repeated(&split(&v, g)?)?)?;
        let scores = (q.matmul(&k.t()?.contiguous()?)? * attn.softmax_scale)?;
        let scores = match attn.logit_softcapping {
            Some(cap) => soft_cap(&scores, cap)?,
            None => scores,
        };
        let probabilities = softmax(&(scores + self.bias(batch)?)?)?;
        let out = probabilities.matmul(&v)?.transpose(1, 2)?.reshape((b, s, h * e))?;
        self.linear(&format!("{place}.out_proj"), &out)
    }

    fn queries_keys_values(&self, place: &str, x: &Tensor) -> Result<[Tensor; 3]> {
        let (q_width, kv_width) = (
            self.config.n_heads * self.config.head_dim,
            self.config.attn_config.kv_n_heads * self.config.head_dim,
        );
        let clipped = |layer: &str| {
            let y = self.linear(&format!("{place}.{layer}"), x)?;
            match self.config.attn_config.clip_qkv {
                Some(bound) => y.clamp(-bound, bound),
                None => Ok(y),
            }
        };
        if !self.config.attn_config.fused_qkv {
            return Ok([clipped("Wq")?, clipped("Wk")?, clipped("Wv")?]);
        }
        let all = clipped("Wqkv")?;
        let part = |start, width| all.narrow(2, start, width);
        Ok([part(0, q_width)?, part(q_width, kv_width)?, part(q_width + kv_width, kv_width)?])
    }

    /// Norm over all heads, or per head.
    fn normed(&self, place: &str, layer: &str, x: &Tensor, heads: usize) -> Result<Tensor> {
        let attn = &self.config.attn_config;
        let place = format!("{place}.{layer}");
        if attn.qk_ln {
            return self.norm(&place, x);
        }
        if attn.qk_gn {
            let (b, s, width) = x.dims3()?;
            return self.norm(&place, &x.reshape((b, s, heads, width / heads))?)?.reshape((b, s, width));
        }
        Ok(x.clone())
    }

    /// Bias of the scores: ALiBi's slope times the distance, minus infinity for hidden keys.
    fn bias(&self, batch: &Batch) -> Result<Tensor> {
        let attn = &self.config.attn_config;
        let ((b, s), h) = (batch.dims(), self.config.n_heads);
        let mut bias = Vec::with_capacity(b * h * s * s);
        for row in 0..b {
            for head in 0..h {
                let slope = if attn.alibi { slope(head, h, attn.alibi_bias_max) } else { 0.0 };
                for i in 0..s {
                    for j in 0..s {
                        let in_window = attn.sliding_window_size.is_none_or(|window| i <= j + window);
                        let seen = in_window && batch.sees(row, i, j);
                        bias.push(if seen { -slope * (i - j) as f64 } else { f64::NEG_INFINITY });
                    }
                }
            }
        }
        Tensor::from_vec(bias, (b, h, s, s), &Device::Cpu)
    }

    /// Heads `[b, s, heads, e]`, each pair `(i, i + e/2)` rotated by position times frequency.
    fn rotated(&self, x: &Tensor, batch: &Batch) -> Result<Tensor> {
        let Some(rope) = self.config.attn_config.rope else { return Ok(x.clone()) };
        let (b, s, _, e) = x.dims4()?;
        let positions = batch.positions();
        let angle = |row: usize, token: usize, pair: usize| {
            let trained = self.config.max_seq_len;
            f64::from(positions[row * s + token]) * frequency(rope, pair, e, batch.length(row), trained)
        };
        let mut angles = Vec::with_capacity(b * s * e / 2);
        for row in 0..b {
            for token in 0..s {
                angles.extend((0..e / 2).map(|pair| angle(row, token, pair)));
            }
        }
        let angles = Tensor::from_vec(angles, (b, s, 1, e / 2), &Device::Cpu)?;
        let (cos, sin) = (angles.cos()?, angles.sin()?);
        let (first, second) = (x.narrow(3, 0, e / 2)?, x.narrow(3, e / 2, e / 2)?);
        let turned_first = (first.broadcast_mul(&cos)? - second.broadcast_mul(&sin)?)?;
        let turned_second = (second.broadcast_mul(&cos)? + first.broadcast_mul(&sin)?)?;
        Tensor::cat(&[turned_first, turned_second], 3)
    }
}

/// ALiBi slope of a head: `2^(-bias_max k / n)` with `n` the power of two at or above the number of heads. `k` runs over 1 to
/// `n`, or over the even and then the odd numbers when the number of heads is not a power of two.
fn slope(head: usize, heads: usize, bias_max: f64) -> f64 {
    let mut n = 1;
    while n < heads {
        n *= 2;
    }
    let k = match () {
        () if n == heads => head + 1,
        () if head < n / 2 => 2 * (head + 1),
        () => 2 * (head - n / 2) + 1,
    };
    2f64.powf(-bias_max * k as f64 / n as f64)
}

/// Frequency of `pair` in heads of width `e`, radians per token, in a sequence of `length` tokens.
fn frequency(rope: RopeConfig, pair: usize, e: usize, length: usize, trained: usize) -> f64 {
    let exponent = 2.0 * pair as f64 / e as f64;
    let plain = rope.theta.powf(-exponent);
    match rope.scaling {
        RopeScaling::None => plain,
        RopeScaling::Linear { factor } => plain / factor,
        RopeScaling::Dynamic { factor } => {
            let stretch = factor * length.max(trained) as f64 / trained as f64 - (factor - 1.0);
            (rope.theta * stretch.powf(e as f64 / (e as f64 - 2.0))).powf(-exponent)
        }
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            // the share of the plain frequency: 1 at short wavelengths, 0 at long ones, a straight line between
            let turns = original_max_position_embeddings * plain / TAU;
            let share = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
            share * plain + (1.0 - share) * plain / factor
        }
    }
}

fn softmax(scores: &Tensor) -> Result<Tensor> {
    let top = scores.detach().max_keepdim(D::Minus1)?;
    let exp = scores.broadcast_sub(&top)?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}
