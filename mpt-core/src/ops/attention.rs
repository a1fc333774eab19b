//! Causal attention with ALiBi among the tokens of a batch, forward and backward.

use candle_core::Tensor;

use super::arguments::{AttentionInputs, AttentionOutputs, ScoreParams};
use super::device::backend_of;
use crate::error::{Error, Result};

/// Causal attention with ALiBi.
///
/// Memory is O(keys) per thread: no `[seq, keys]` table is built. Views of one fused projection are read in place.
///
/// # Errors
/// [`Error::Shape`] naming the argument when shapes disagree or a query sees no key.
///
/// Source: Press et al. 2022, section 3; llm-foundry `layers/attention.py`.
pub fn attention(inputs: &AttentionInputs, scores: &ScoreParams) -> Result<AttentionOutputs> {
    inputs.check(scores)?;
    backend_of(&inputs.q)?.attention(&inputs.with_contiguous_heads()?, scores)
}

/// Gradients of queries, keys and values of [`attention`], given that of its output.
///
/// `d_out` `[batch, seq, n_heads, head_dim]`; returns `[batch, seq, n_heads + 2 kv_n_heads, head_dim]`: at each position all
/// query heads, then all keys, then all values.
///
/// # Errors
/// [`Error::Shape`] as [`attention`].
///
/// Source: Dao et al. 2022, algorithm 4: scores are recomputed.
pub fn attention_backward(
    inputs: &AttentionInputs,
    scores: &ScoreParams,
    outputs: &AttentionOutputs,
    d_out: &Tensor,
) -> Result<Tensor> {
    inputs.check(scores)?;
    if d_out.elem_count() != outputs.out.elem_count() {
        let (actual, expected) = (format!("{:?}", d_out.dims()), format!("{:?}", outputs.out.dims()));
        return Err(Error::Shape { op: "attention_backward", argument: "d_out", actual, expected });
    }
    backend_of(d_out)?.attention_backward(
        &inputs.with_contiguous_heads()?,
        scores,
        outputs,
        &d_out.contiguous()?,
    )
}

impl AttentionInputs {
    fn check(&self, scores: &ScoreParams) -> Result<()> {
        let (batch, seq, n_heads, head_dim) = self.q.dims4()?;
        let (_, _, kv_n_heads, _) = self.k.dims4()?;
        let wrong = |argument, actual: String, expected: String| {
            Err(Error::Shape { op: "attention", argument, actual, expected })
        };
        if self.k.dims() != [batch, seq, kv_n_heads, head_dim] || kv_n_heads == 0 || n_heads % kv_n_heads != 0
        {
            let expected = format!("[{batch}, {seq}, a divisor of {n_heads}, {head_dim}]");
            return wrong("k", format!("{:?}", self.k.dims()), expected);
        }
        if self.v.dims() != self.k.dims() {
            return wrong("v", format!("{:?}", self.v.dims()), format!("{:?}", self.k.dims()));
        }
        if scores.slopes.len() != n_heads {
            let actual = format!("{} values", scores.slopes.len());
            return wrong("slopes", actual, format!("{n_heads}, one a head"));
        }
        let Some(first_key) = &self.first_key else { return Ok(()) };
        let sees_itself = |i: usize| first_key[i] as usize <= i % seq;
        if first_key.len() != batch * seq || !(0..batch * seq).all(sees_itself) {
            let expected = format!("{} values, none after its query", batch * seq);
            return wrong("first_key", format!("{} values", first_key.len()), expected);
        }
        Ok(())
    }

    /// The same inputs with the heads of a position side by side.
    fn with_contiguous_heads(&self) -> Result<Self> {
        let together = |x: &Tensor| {
            let (head_dim, stride) = (x.dims()[3], x.stride());
            if stride[3] == 1 && stride[2] == head_dim { Ok(x.clone()) } else { x.contiguous() }
        };
        Ok(Self { q: together(&self.q)?, k: together(&self.k)?, v: together(&self.v)?, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::alibi::alibi_slopes;
    use crate::dtype::Precision;
    use crate::rng::Dropout;
    use crate::testing::{assert_close, check_backward, random};
    use candle_core::D;
    use proptest::prelude::*;

    fn scores(heads: usize, scale: f64, cap: Option<f64>) -> ScoreParams {
        ScoreParams { scale, cap, slopes: alibi_slopes(heads, 8.0).into(), precision: Precision::F32 }
    }

    fn inputs(args: &[Tensor], first_key: Option<&Arc<[u32]>>, dropout: Option<Dropout>) -> AttentionInputs {
        let [q, k, v] = args else { panic!("queries, keys and values") };
        AttentionInputs { q: q.clone(), k: k.clone(), v: v.clone(), first_key: first_key.cloned(), dropout }
    }

    /// Attention from candle ops, with the whole table of scores.
    fn reference(
        AttentionInputs { q, k, v, first_key, dropout }: &AttentionInputs,
        ScoreParams { scale, cap, slopes, .. }: &ScoreParams,
    ) -> candle_core::Result<Tensor> {
        let heads_first = |x: &Tensor| x.transpose(1, 2)?.contiguous();
        let (q, k, v) = (heads_first(q)?, heads_first(k)?, heads_first(v)?);
        let ((b, h, s, e), g) = (q.dims4()?, k.dims()[1]);
        let repeat = |x: &Tensor| x.unsqueeze(2)?.expand((b, g, h / g, s, e))?.reshape((b, h, s, e));
        let mut bias = Vec::new(); // [b, h, s, s]
        for row in 0..b {
            for slope in slopes.iter() {
                for i in 0..s {
                    let first = first_key.as_ref().map_or(0, |first| first[row * s + i] as usize);
                    bias.extend((0..s).map(|j| match (first..=i).contains(&j) {
                        true => -slope * (i - j) as f32,
                        false => f32::NEG_INFINITY,
                    }));
                }
            }
        }
        let bias = Tensor::from_vec(bias, (b, h, s, s), q.device())?;
        let scores = (q.matmul(&repeat(&k)?.t()?)? * *scale)?;
        let scores = match cap {
            Some(cap) => ((scores / *cap)?.tanh()? * *cap)?,
            None => scores,
        };
        let scores = scores.add(&bias)?;
        let exp = scores.broadcast_sub(&scores.detach().max_keepdim(D::Minus1)?)?.exp()?;
        let probs = exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?;
        let probs = match dropout {
            Some(dropout) => {
                let factors: Vec<f32> = dropout.factors(0).take(b * h * s * s).collect();
                probs.mul(&Tensor::from_vec(factors, (b, h, s, s), q.device())?)?
            }
            None => probs,
        };
        probs.matmul(&repeat(&v)?)?.transpose(1, 2)?.contiguous()
    }

    fn found(inputs: &AttentionInputs, scores: &ScoreParams) -> Result<Tensor> {
        Ok(attention(inputs, scores)?.out)
    }

    /// Gradients of queries, keys and values, separately.
    fn gradients(inputs: &AttentionInputs, scores: &ScoreParams, dy: &Tensor) -> Result<Vec<Tensor>> {
        let d_qkv = attention_backward(inputs, scores, &attention(inputs, scores)?, dy)?;
        let (h, g) = (inputs.q.dims()[2], inputs.k.dims()[2]);
        let part = |from, heads| d_qkv.narrow(2, from, heads)?.contiguous();
        Ok(vec![part(0, h)?, part(h, g)?, part(h + g, g)?])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn agrees_with_candle(batch in 1usize..3, seq in 1usize..150, groups in 1usize..4,
                                     per_group in 1usize..3, head_dim in 1usize..20, hide in 0usize..30, seed: u32) {
            let h = groups * per_group;
            let args = [(h, 0), (groups, 1), (groups, 2)]
                .map(|(heads, n)| random(&[batch, seq, heads, head_dim], u64::from(seed) + n));
            let scores = scores(h, 0.3, (seed % 2 == 0).then_some(0.7));
            let first_key: Arc<[u32]> = (0..batch * seq).map(|i| hide.min(i % seq) as u32).collect();
            let dropout = Dropout { rate: 0.3, seed: 5, site: 1, first: 0 };
            let inputs = inputs(&args, (hide % 2 == 0).then_some(&first_key), (seed % 3 == 0).then_some(dropout));
            // sums of up to 200 products in another order
            assert_close(&found(&inputs, &scores).unwrap(), &reference(&inputs, &scores).unwrap(), 2e-5);
        }
    }

    #[test]
    fn gradients_agree_with_plain_tensors_across_blocks() {
        let documents: Arc<[u32]> = (0..2 * 150).map(|i| if i % 150 < 70 { 0 } else { 70 }).collect();
        let dropout = Dropout { rate: 0.2, seed: 5, site: 1, first: 0 };
        for (first_key, cap, dropout) in [
            (None, None, None),
            (Some(&documents), None, Some(dropout)),
            (Some(&documents), Some(0.5), None),
            (None, Some(0.5), Some(dropout)),
        ] {
            let scores = scores(4, 0.3, cap);
            let vars: Vec<candle_core::Var> = [(4, 1), (2, 2), (2, 3)]
                .map(|(heads, seed)| {
                    candle_core::Var::from_tensor(&random(&[2, 150, heads, 8], seed)).unwrap()
                })
                .into();
            let args: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
            let inputs = inputs(&args, first_key, dropout);
            let dy = random(&[2, 150, 4, 8], 9);
            let out = reference(&inputs, &scores).unwrap();
            let theirs = out.mul(&dy).unwrap().sum_all().unwrap().backward().unwrap();
            let ours = gradients(&inputs, &scores, &dy).unwrap();
            for (var, ours) in vars.iter().zip(ours) {
                assert_close(&ours, theirs.get(var).unwrap(), 2e-4);
            }
        }
    }

    #[test]
    fn gradients_agree_with_the_formula_and_finite_differences() {
        let args = [random(&[1, 4, 2, 3], 1), random(&[1, 4, 1, 3], 2), random(&[1, 4, 1, 3], 3)];
        let dropout = Dropout { rate: 0.3, seed: 1, site: 1, first: 0 };
        for (cap, dropout) in [(None, None), (Some(0.8), None), (None, Some(dropout))] {
            let scores = scores(2, 0.5, cap);
            check_backward(
                &args,
                |args| reference(&inputs(args, None, dropout), &scores),
                |args| found(&inputs(args, None, dropout), &scores),
                |args, dy| gradients(&inputs(args, None, dropout), &scores, dy),
            );
        }
    }

    /// A microbatch drops what the whole batch would.
    #[test]
    fn dropout_does_not_depend_on_the_split_into_microbatches() {
        let args = [1, 2, 3].map(|seed| random(&[3, 5, 2, 4], seed));
        let dropout = Dropout { rate: 0.4, seed: 1, site: 1, first: 0 };
        let scores = scores(2, 0.5, None);
        let whole = found(&inputs(&args, None, Some(dropout)), &scores).unwrap();
        let row = args.map(|x| x.narrow(0, 2, 1).unwrap());
        let dropout = Dropout { first: 2 * 2 * 5 * 5, ..dropout };
        let alone = found(&inputs(&row, None, Some(dropout)), &scores).unwrap();
        assert_close(&alone, &whole.narrow(0, 2, 1).unwrap(), 0.0);
    }

    #[test]
    fn shape_errors_name_the_argument() {
        let x = random(&[1, 2, 1, 4], 1);
        let args = [x.clone(), x.clone(), x];
        let first_key: Arc<[u32]> = [0, 2].into();
        let error = found(&inputs(&args, Some(&first_key), None), &scores(1, 1.0, None)).unwrap_err();
        assert!(error.to_string().contains("`first_key`"), "{error}");
        let error = found(&inputs(&args, None, None), &scores(2, 1.0, None)).unwrap_err();
        assert!(error.to_string().contains("`slopes`"), "{error}");
        let longer = [args[0].clone(), random(&[1, 3, 1, 4], 1), random(&[1, 3, 1, 4], 1)];
        let error = found(&inputs(&longer, None, None), &scores(1, 1.0, None)).unwrap_err();
        assert!(error.to_string().contains("`k` is [1, 3, 1, 4]"), "{error}");
    }
}
