//! The output projection and the cross-entropy of its logits in one op, a chunk of tokens at a time.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::host::contiguous;
use crate::error::{Error, Result};
use crate::kernels::cpu::cross_entropy as kernel;
use crate::kernels::cpu::gemm::{Mat, MatMut, Threads, Write, matmul};

/// The label of a token that has no target.
pub const IGNORE_LABEL: u32 = u32::MAX;

/// Logits held at once: 16 MiB.
const CHUNK_LOGITS: usize = 1 << 22;

/// The sum over tokens of `-log softmax(scale * hidden weight^T)[label]`.
///
/// `hidden` `[.., d]`, `weight` `[vocab, d]`; both f32. `labels` has one id a token, [`IGNORE_LABEL`] where it has no target.
/// Returns a scalar f32 tensor, 0 without any target. Logits exist for one chunk of tokens at a time; where a gradient will
/// be asked for, it is computed in the same pass.
///
/// # Errors
/// [`Error::Shape`] when the count of labels is not that of tokens, [`Error::TokenId`] for a label outside the vocabulary.
pub fn linear_cross_entropy(hidden: &Tensor, weight: &Tensor, labels: &[u32], scale: f64) -> Result<Tensor> {
    let (vocab_size, d) = weight.dims2()?;
    if hidden.dims().last() != Some(&d) || hidden.elem_count() != labels.len() * d {
        let (actual, expected) =
            (format!("{:?}", hidden.dims()), format!("{} tokens of width {d}", labels.len()));
        return Err(Error::Shape { op: "linear_cross_entropy", argument: "hidden", actual, expected });
    }
    let outside = |&(_, &label): &(usize, &u32)| label != IGNORE_LABEL && label as usize >= vocab_size;
    if let Some((position, &id)) = labels.iter().enumerate().find(outside) {
        return Err(Error::TokenId { id, position, vocab_size });
    }
    let op = CrossEntropyOp {
        labels: labels.into(),
        scale: scale as f32,
        wants: [hidden.track_op(), weight.track_op()],
        gradients: Mutex::new([None, None]),
    };
    Ok(hidden.contiguous()?.apply_op2(&weight.contiguous()?, op)?)
}

struct CrossEntropyOp {
    labels: Box<[u32]>,
    scale: f32,
    /// Whether the gradient of `hidden` and that of `weight` will be asked for.
    wants: [bool; 2],
    /// Gradients of `hidden` and `weight`, left by the forward pass, taken by the backward pass.
    gradients: Mutex<[Option<Vec<f32>>; 2]>,
}

impl CustomOp2 for CrossEntropyOp {
    fn name(&self) -> &'static str {
        "linear_cross_entropy"
    }

    fn cpu_fwd(
        &self,
        hidden: &CpuStorage,
        hidden_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (vocab, d) = weight_layout.shape().dims2()?;
        let (hidden, weight) = (contiguous(hidden, hidden_layout)?, contiguous(weight, weight_layout)?);
        let mut d_hidden = self.wants[0].then(|| vec![0f32; hidden.len()]);
        let mut d_weight = self.wants[1].then(|| vec![0f32; weight.len()]);
        let tokens = (CHUNK_LOGITS / vocab).clamp(8, 1024);
        let mut logits = vec![0f32; tokens.min(self.labels.len()) * vocab];
        let weight = Mat::new(weight, vocab, d, d);
        let mut loss = 0f64;
        for (chunk, (hidden, labels)) in hidden.chunks(tokens * d).zip(self.labels.chunks(tokens)).enumerate()
        {
            let rows = labels.len();
            let logits = &mut logits[..rows * vocab];
            let hidden = Mat::new(hidden, rows, d, d);
            matmul(
                MatMut::new(logits, rows, vocab, vocab),
                hidden,
                weight.t(),
                Write::Overwrite,
                Threads::Pool,
            );
            loss += self.chunk_loss(logits, labels, vocab);
            let logits = Mat::new(logits, rows, vocab, vocab);
            if let Some(d_hidden) = &mut d_hidden {
                let d_hidden = &mut d_hidden[chunk * tokens * d..][..rows * d];
                matmul(MatMut::new(d_hidden, rows, d, d), logits, weight, Write::Overwrite, Threads::Pool);
            }
            if let Some(d_weight) = &mut d_weight {
                matmul(MatMut::new(d_weight, vocab, d, d), logits.t(), hidden, Write::Add, Threads::Pool);
            }
        }
        *self.gradients.lock().unwrap_or_else(PoisonError::into_inner) = [d_hidden, d_weight];
        Ok((CpuStorage::F32(vec![loss as f32]), Shape::from(())))
    }

    fn bwd(
        &self,
        hidden: &Tensor,
        weight: &Tensor,
        _loss: &Tensor,
        d_loss: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let factor = d_loss.to_scalar::<f32>()?;
        let mut gradients = self.gradients.lock().unwrap_or_else(PoisonError::into_inner);
        let mut take = |index: usize, of: &Tensor| {
            let Some(mut gradient) = gradients[index].take() else { return Ok(None) };
            if factor != 1.0 {
                gradient.par_iter_mut().with_min_len(1 << 14).for_each(|value| *value *= factor);
            }
            Tensor::from_vec(gradient, of.shape(), of.device()).map(Some)
        };
        Ok((take(0, hidden)?, take(1, weight)?))
    }
}

impl CrossEntropyOp {
    /// Sum of the losses of a chunk; `logits` becomes its gradient where one is wanted.
    fn chunk_loss(&self, logits: &mut [f32], labels: &[u32], vocab: usize) -> f64 {
        let with_gradient = self.wants.contains(&true);
        let losses: Vec<f32> = logits
            .par_chunks_exact_mut(vocab)
            .zip(labels)
            .map(|(row, &label)| {
                if label == IGNORE_LABEL {
                    row.fill(0.0);
                    return 0.0;
                }
                self.rescale(row);
                if !with_gradient {
                    return kernel::row(row, label as usize);
                }
                let loss = kernel::row_with_gradient(row, label as usize);
                self.rescale(row);
                loss
            })
            .collect();
        losses.iter().map(|&loss| f64::from(loss)).sum()
    }

    /// Multiplies by the logit scale: once for the logits, once more for their gradient.
    fn rescale(&self, row: &mut [f32]) {
        if self.scale != 1.0 {
            row.iter_mut().for_each(|value| *value *= self.scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, random};

    #[test]
    fn agrees_with_plain_tensors() {
        let (hidden, weight) = (random(&[5, 7], 1), random(&[11, 7], 2));
        let labels = [3, IGNORE_LABEL, 0, 10, 3];
        let logits = (hidden.matmul(&weight.t().unwrap()).unwrap() * 0.7).unwrap();
        let logits: Vec<Vec<f32>> = logits.to_vec2().unwrap();
        let expected: f32 = (logits.iter().zip(labels))
            .filter(|&(_, label)| label != IGNORE_LABEL)
            .map(|(row, label)| row.iter().map(|x| x.exp()).sum::<f32>().ln() - row[label as usize])
            .sum();
        let found = linear_cross_entropy(&hidden, &weight, &labels, 0.7).unwrap();
        assert_close(&found, &Tensor::new(expected, found.device()).unwrap(), 1e-5);
    }

    #[test]
    fn chunks_add_up() {
        // more tokens than a chunk holds
        let (hidden, weight) = (random(&[1500, 3], 1), random(&[5, 3], 2));
        let labels: Vec<u32> = (0..1500).map(|i| i % 5).collect();
        let whole = linear_cross_entropy(&hidden, &weight, &labels, 1.0).unwrap().to_scalar::<f32>().unwrap();
        let parts: f32 = (0..3)
            .map(|part| {
                let hidden = hidden.narrow(0, part * 500, 500).unwrap();
                let labels = &labels[part * 500..][..500];
                linear_cross_entropy(&hidden, &weight, labels, 1.0).unwrap().to_scalar::<f32>().unwrap()
            })
            .sum();
        assert!((whole - parts).abs() < 1e-2 * 1500f32.sqrt(), "{whole} != {parts}");
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        check_gradients(&[random(&[4, 3], 1), random(&[6, 3], 2)], |args| {
            linear_cross_entropy(&args[0], &args[1], &[5, IGNORE_LABEL, 0, 2], 0.7)
        });
    }

    #[test]
    fn a_label_outside_the_vocabulary_is_named() {
        let error = linear_cross_entropy(&random(&[2, 3], 1), &random(&[6, 3], 2), &[1, 6], 1.0).unwrap_err();
        assert!(error.to_string().starts_with("token id 6 at position 1"), "{error}");
    }
}
