//! Causal attention with ALiBi.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor, bail};

use super::host::{f32s, host_slice};
use crate::error::{Error, Result};
use crate::kernels::cpu::attention::{self as kernel, Heads, Saved};
use crate::kernels::cpu::gemm::Products;

/// How products of queries and keys become scores: `cap * tanh(scale * q k / cap) - slope * distance`.
#[derive(Clone, Debug)]
pub struct Scores {
    /// Factor on the products.
    pub scale: f64,
    /// Soft bound on the scaled products; none where absent.
    pub cap: Option<f64>,
    /// ALiBi's slopes, `[n_heads]`; zeros without ALiBi.
    pub slopes: Arc<[f32]>,
    /// How factors of matrix products are rounded.
    pub products: Products,
}

/// Causal attention with ALiBi.
///
/// `q` `[batch, seq, n_heads, head_dim]`; `k`, `v` `[batch, keys, kv_n_heads, head_dim]`; all f32. `start` `[batch]` holds the position of each row's first query among its keys (zeros in training);
/// `first_key` `[batch, seq]` the first key each query sees (0 where absent): query `i` of row `b` sees the keys
/// `first_key[b, i] ..= start[b] + i`, at the distance `start[b] + i - key`.
/// Returns `[batch, seq, n_heads, head_dim]`. Memory is O(keys) per thread: no `[seq, keys]` table is built.
///
/// The gradient exists where queries and keys are the same positions, as in training.
///
/// # Errors
/// [`Error::Shape`] naming the argument when shapes disagree or a query would see no key.
///
/// Source: Press et al. 2022, section 3; llm-foundry `layers/attention.py`; the backward pass recomputes scores as
/// Dao et al. 2022, algorithm 4.
pub fn attention(
    [q, k, v]: [&Tensor; 3],
    scores: &Scores,
    start: &[usize],
    first_key: Option<&Arc<[u32]>>,
) -> Result<Tensor> {
    let op = AttentionOp {
        scores: scores.clone(),
        start: start.into(),
        first_key: first_key.cloned(),
        lse: OnceLock::new(),
    };
    op.check(q, k, v)?;
    Ok(with_contiguous_heads(q)?.apply_op3(&with_contiguous_heads(k)?, &with_contiguous_heads(v)?, op)?)
}

struct AttentionOp {
    scores: Scores,
    start: Box<[usize]>,
    first_key: Option<Arc<[u32]>>,
    /// Logarithms of the softmax denominators, `[batch, seq, n_heads]`, left by the forward pass.
    lse: OnceLock<Vec<f32>>,
}

impl AttentionOp {
    fn check(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<()> {
        let (batch, seq, n_heads, head_dim) = q.dims4()?;
        let (_, keys, kv_n_heads, _) = k.dims4()?;
        let wrong = |argument, actual: String, expected: String| {
            Err(Error::Shape { op: "attention", argument, actual, expected })
        };
        if k.dims() != [batch, keys, kv_n_heads, head_dim] || kv_n_heads == 0 || n_heads % kv_n_heads != 0 {
            let expected = format!("[{batch}, keys, a divisor of {n_heads}, {head_dim}]");
            return wrong("k", format!("{:?}", k.dims()), expected);
        }
        if v.dims() != k.dims() {
            return wrong("v", format!("{:?}", v.dims()), format!("{:?}", k.dims()));
        }
        check_queries([batch, seq, n_heads], keys, &self.scores, &self.start, self.first_key.as_deref())
    }

    fn shape(&self, dims: [usize; 4]) -> kernel::Shape<'_> {
        kernel_shape(dims, &self.scores, &self.start, self.first_key.as_deref())
    }
}

/// What `[batch, seq, n_heads]` queries over `keys` keys must agree with, whatever holds the keys.
pub(super) fn check_queries(
    [batch, seq, n_heads]: [usize; 3],
    keys: usize,
    scores: &Scores,
    start: &[usize],
    first_key: Option<&[u32]>,
) -> Result<()> {
    let wrong = |argument, actual: String, expected: String| {
        Err(Error::Shape { op: "attention", argument, actual, expected })
    };
    if scores.slopes.len() != n_heads {
        return wrong("slopes", format!("{} values", scores.slopes.len()), format!("{n_heads}, one a head"));
    }
    if start.len() != batch || start.iter().any(|start| start + seq > keys) {
        return wrong("start", format!("{start:?}"), format!("{batch} values up to {keys} - {seq}"));
    }
    let Some(first_key) = first_key else { return Ok(()) };
    let sees_itself = |i: usize| first_key[i] as usize <= start[i / seq] + i % seq;
    if first_key.len() != batch * seq || !(0..batch * seq).all(sees_itself) {
        let expected = format!("{} values, none after its query", batch * seq);
        return wrong("first_key", format!("{} values", first_key.len()), expected);
    }
    Ok(())
}

pub(crate) fn kernel_shape<'a>(
    [seq, n_heads, kv_n_heads, head_dim]: [usize; 4],
    scores: &'a Scores,
    start: &'a [usize],
    first_key: Option<&'a [u32]>,
) -> kernel::Shape<'a> {
    kernel::Shape {
        seq,
        n_heads,
        kv_n_heads,
        head_dim,
        scale: scores.scale as f32,
        cap: scores.cap.map(|cap| cap as f32),
        slopes: &scores.slopes,
        products: scores.products,
        start,
        first_key,
    }
}

/// `x` itself where each position's heads lie side by side, else a copy in which they do.
fn with_contiguous_heads(x: &Tensor) -> Result<Tensor> {
    let head_dim = x.dims()[3];
    let stride = x.stride();
    if stride[3] == 1 && stride[2] == head_dim { Ok(x.clone()) } else { Ok(x.contiguous()?) }
}

fn heads<'a>(data: &'a [f32], layout: &Layout) -> Heads<'a> {
    let stride = layout.stride();
    Heads { data: &data[layout.start_offset()..], batch_stride: stride[0], row_stride: stride[1] }
}

impl CustomOp3 for AttentionOp {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (batch, seq, n_heads, head_dim) = q_layout.shape().dims4()?;
        let (_, _, kv_n_heads, _) = k_layout.shape().dims4()?;
        let mut out = vec![0f32; batch * seq * n_heads * head_dim];
        let mut lse = vec![0f32; batch * seq * n_heads];
        let shape = self.shape([seq, n_heads, kv_n_heads, head_dim]);
        let (q, k, v) = (heads(f32s(q)?, q_layout), heads(f32s(k)?, k_layout), heads(f32s(v)?, v_layout));
        kernel::forward(&shape, q, [k, v], &mut out, &mut lse);
        self.lse.set(lse).expect("an op runs forward once");
        Ok((CpuStorage::F32(out), q_layout.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        out: &Tensor,
        d_out: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (batch, seq, n_heads, head_dim) = q.dims4()?;
        let (_, keys, kv_n_heads, _) = k.dims4()?;
        if keys != seq || self.start.iter().any(|&start| start != 0) {
            bail!("attention over a cache has no gradient: train without a cache")
        }
        let lse = self.lse.get().expect("the forward pass ran");
        let d_out = d_out.contiguous()?;
        let mut d_qkv = vec![0f32; q.elem_count() + k.elem_count() + v.elem_count()];
        {
            let storages = [q.storage_and_layout(), k.storage_and_layout(), v.storage_and_layout()];
            let mut qkv = Vec::with_capacity(3);
            for (storage, layout) in &storages {
                let candle_core::Storage::Cpu(storage) = &**storage else {
                    bail!("attention runs on the CPU")
                };
                qkv.push(heads(f32s(storage)?, layout));
            }
            let (out, d_out) = (host_slice(out)?, host_slice(&d_out)?);
            let saved = Saved { out: &out, lse, d_out: &d_out };
            let shape = self.shape([seq, n_heads, kv_n_heads, head_dim]);
            kernel::backward(&shape, [qkv[0], qkv[1], qkv[2]], &saved, &mut d_qkv);
        }
        let heads = n_heads + 2 * kv_n_heads;
        let d_qkv = Tensor::from_vec(d_qkv, (batch, seq, heads, head_dim), q.device())?;
        let part = |from, heads| d_qkv.narrow(2, from, heads).map(Some);
        Ok((part(0, n_heads)?, part(n_heads, kv_n_heads)?, part(n_heads + kv_n_heads, kv_n_heads)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bias::alibi_slopes;
    use crate::testing::{assert_close, check_gradients, random};
    use candle_core::D;
    use proptest::prelude::*;

    fn scores(heads: usize, scale: f64, cap: Option<f64>) -> Scores {
        Scores { scale, cap, slopes: alibi_slopes(heads, 8.0).into(), products: Products::F32 }
    }

    /// The same function from plain tensors, with the whole table of scores.
    fn plain(
        qkv: [&Tensor; 3],
        Scores { scale, cap, slopes, .. }: &Scores,
        start: &[usize],
        first_key: Option<&Arc<[u32]>>,
    ) -> Tensor {
        let [q, k, v] = qkv.map(|x| x.transpose(1, 2).unwrap().contiguous().unwrap()); // [b, h, s, e]
        let (b, h, s, e) = q.dims4().unwrap();
        let (_, g, t, _) = k.dims4().unwrap();
        let repeat = |x: &Tensor| {
            x.unsqueeze(2).unwrap().expand((b, g, h / g, t, e)).unwrap().reshape((b, h, t, e)).unwrap()
        };
        let mut bias = Vec::new(); // [b, h, s, t]
        for row in 0..b {
            for slope in slopes.iter() {
                for i in 0..s {
                    let position = start[row] + i;
                    let first = first_key.map_or(0, |first| first[row * s + i] as usize);
                    bias.extend((0..t).map(|j| match (first..=position).contains(&j) {
                        true => -slope * (position - j) as f32,
                        false => f32::NEG_INFINITY,
                    }));
                }
            }
        }
        let bias = Tensor::from_vec(bias, (b, h, s, t), q.device()).unwrap();
        let scores = (q.matmul(&repeat(&k).t().unwrap()).unwrap() * *scale).unwrap();
        let scores = match cap {
            Some(cap) => ((scores / *cap).unwrap().tanh().unwrap() * *cap).unwrap(),
            None => scores,
        };
        let scores = scores.add(&bias).unwrap();
        let top = scores.max_keepdim(D::Minus1).unwrap();
        let exp = scores.broadcast_sub(&top).unwrap().exp().unwrap();
        let probs = exp.broadcast_div(&exp.sum_keepdim(D::Minus1).unwrap()).unwrap();
        probs.matmul(&repeat(&v)).unwrap().transpose(1, 2).unwrap().contiguous().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn agrees_with_plain_tensors(batch in 1usize..3, seq in 1usize..150, cached in 0usize..40, groups in 1usize..4,
                                     per_group in 1usize..3, head_dim in 1usize..20, hide in 0usize..30, seed: u32) {
            let (h, t) = (groups * per_group, seq + cached + 3);
            let q = random(&[batch, seq, h, head_dim], seed.into());
            let k = random(&[batch, t, groups, head_dim], u64::from(seed) + 1);
            let v = random(&[batch, t, groups, head_dim], u64::from(seed) + 2);
            let cap = (seed % 2 == 0).then_some(0.7);
            let scores = scores(h, 0.3, cap);
            let start = vec![cached; batch];
            let first_key: Arc<[u32]> = (0..batch * seq).map(|i| hide.min(cached + i % seq) as u32).collect();
            let first_key = (hide % 2 == 0).then_some(&first_key);
            let found = attention([&q, &k, &v], &scores, &start, first_key).unwrap();
            // sums of up to 200 products in another order
            assert_close(&found, &plain([&q, &k, &v], &scores, &start, first_key), 2e-5);
        }
    }

    #[test]
    fn gradients_agree_with_plain_tensors_across_blocks() {
        let documents: Arc<[u32]> = (0..2 * 150).map(|i| if i % 150 < 70 { 0 } else { 70 }).collect();
        for (first_key, cap) in [(None, None), (Some(&documents), None), (Some(&documents), Some(0.5))] {
            let scores = scores(4, 0.3, cap);
            let vars: Vec<candle_core::Var> = [(4, 1), (2, 2), (2, 3)]
                .map(|(heads, seed)| {
                    candle_core::Var::from_tensor(&random(&[2, 150, heads, 8], seed)).unwrap()
                })
                .into();
            let qkv = [vars[0].as_tensor(), vars[1].as_tensor(), vars[2].as_tensor()];
            let weights = random(&[2, 150, 4, 8], 9);
            let gradients = |out: Tensor| out.mul(&weights).unwrap().sum_all().unwrap().backward().unwrap();
            let ours = gradients(attention(qkv, &scores, &[0, 0], first_key).unwrap());
            let theirs = gradients(plain(qkv, &scores, &[0, 0], first_key));
            for var in &vars {
                let (ours, theirs) = (ours.get(var).unwrap(), theirs.get(var).unwrap());
                assert_close(&ours.contiguous().unwrap(), theirs, 2e-4);
            }
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let args = [random(&[1, 4, 2, 3], 1), random(&[1, 4, 1, 3], 2), random(&[1, 4, 1, 3], 3)];
        for cap in [None, Some(0.8)] {
            let scores = scores(2, 0.5, cap);
            check_gradients(&args, |args| attention([&args[0], &args[1], &args[2]], &scores, &[0], None));
        }
    }

    #[test]
    fn a_query_without_keys_is_refused() {
        let x = random(&[1, 2, 1, 4], 1);
        let first_key: Arc<[u32]> = [0, 2].into();
        let error = attention([&x, &x, &x], &scores(1, 1.0, None), &[0], Some(&first_key)).unwrap_err();
        assert!(error.to_string().contains("`first_key`"), "{error}");
        let error = attention([&x, &x, &x], &scores(1, 1.0, None), &[1], None).unwrap_err();
        assert!(error.to_string().contains("`start`"), "{error}");
    }
}
