//! The output projection and the cross-entropy of its logits in one op, a chunk of tokens at a time.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::host::contiguous;
use crate::error::{Error, Result};
use crate::kernels::cpu::activation::tanh;
use crate::kernels::cpu::gemm::{Mat, MatMut, Packed, Products, Threads, Write, matmul, matmul_packed};
use crate::kernels::cpu::{cross_entropy as kernel, stored};
use crate::source::Parameter;
use crate::weights::StoredTensor;

/// The label of a token that has no target.
pub const IGNORE_LABEL: u32 = u32::MAX;

/// Logits held at once: 16 MiB.
const CHUNK_LOGITS: usize = 1 << 24;

/// What becomes of the products of the output projection: `cap * tanh(scale * product / cap)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitForm {
    /// Factor on the products.
    pub scale: f64,
    /// Soft bound on the scaled products; none where absent.
    pub cap: Option<f64>,
}

impl Default for LogitForm {
    /// The products as they are.
    fn default() -> Self {
        Self { scale: 1.0, cap: None }
    }
}

/// The sum over tokens of `-log softmax(form(hidden weight^T))[label]`.
///
/// `hidden` `[.., d]` f32, `weight` `[vocab, d]`. `labels` has one id a token, [`IGNORE_LABEL`] where it has no target.
/// Returns a scalar f32 tensor, 0 without any target. Logits exist for one chunk of tokens at a time; where a gradient will
/// be asked for, it is computed in the same pass. A stored weight has no gradient. `products` says how factors are rounded.
///
/// # Errors
/// [`Error::Shape`] when the count of labels is not that of tokens, [`Error::TokenId`] for a label outside the vocabulary.
pub fn linear_cross_entropy(
    hidden: &Tensor,
    weight: &Parameter,
    labels: &[u32],
    form: LogitForm,
    products: Products,
) -> Result<Tensor> {
    let shape = match weight {
        Parameter::Tensor(weight) => weight.dims(),
        Parameter::Stored(weight) => weight.shape(),
    };
    let &[vocab_size, d] = shape else {
        let (actual, expected) = (format!("{shape:?}"), "[vocab, d]".to_owned());
        return Err(Error::Shape { op: "linear_cross_entropy", argument: "weight", actual, expected });
    };
    if hidden.dims().last() != Some(&d) || hidden.elem_count() != labels.len() * d {
        let (actual, expected) =
            (format!("{:?}", hidden.dims()), format!("{} tokens of width {d}", labels.len()));
        return Err(Error::Shape { op: "linear_cross_entropy", argument: "hidden", actual, expected });
    }
    let outside = |&(_, &label): &(usize, &u32)| label != IGNORE_LABEL && label as usize >= vocab_size;
    if let Some((position, &id)) = labels.iter().enumerate().find(outside) {
        return Err(Error::TokenId { id, position, vocab_size });
    }
    let loss = Loss { labels: labels.into(), form, products, wants: [hidden.track_op(), false] };
    let hidden = hidden.contiguous()?;
    Ok(match weight {
        Parameter::Stored(weight) => {
            hidden.apply_op1(FrozenOp { loss, weight: weight.clone(), gradients: Gradients::default() })?
        }
        Parameter::Tensor(weight) => {
            let loss = Loss { wants: [loss.wants[0], weight.track_op()], ..loss };
            let op = TrainedOp { loss, gradients: Gradients::default() };
            hidden.apply_op2(&weight.contiguous()?, op)?
        }
    })
}

/// The output projection: products with it, and with its transpose.
enum Head<'a> {
    /// The transpose, and where a gradient is wanted the weight itself, packed once for all chunks.
    Plain(Packed<'a>, Option<Packed<'a>>),
    Stored(&'a StoredTensor),
}

impl Head<'_> {
    /// `logits = hidden W^T`
    fn logits(&self, logits: &mut [f32], hidden: &[f32], [rows, vocab, d]: [usize; 3]) {
        match self {
            Self::Stored(weight) => stored::times_transposed(logits, hidden, weight),
            Self::Plain(transpose, _) => {
                let (logits, hidden) =
                    (MatMut::new(logits, rows, vocab, vocab), Mat::new(hidden, rows, d, d));
                matmul_packed(logits, hidden, transpose, Write::Overwrite);
            }
        }
    }

    /// `d_hidden = d_logits W`
    fn input_gradient(&self, d_hidden: &mut [f32], d_logits: &[f32], [rows, vocab, d]: [usize; 3]) {
        match self {
            Self::Stored(weight) => stored::times(d_hidden, d_logits, weight),
            Self::Plain(_, weight) => {
                let weight = weight.as_ref().expect("packed where the gradient is wanted");
                let d_logits = Mat::new(d_logits, rows, vocab, vocab);
                let d_hidden = MatMut::new(d_hidden, rows, d, d);
                matmul_packed(d_hidden, d_logits, weight, Write::Overwrite);
            }
        }
    }
}

/// Gradients of `hidden` and `weight`, left by the forward pass, taken by the backward pass.
#[derive(Default)]
struct Gradients(Mutex<[Option<Vec<f32>>; 2]>);

impl Gradients {
    fn leave(&self, gradients: [Option<Vec<f32>>; 2]) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = gradients;
    }

    fn take(&self, index: usize, of: &Tensor, factor: f32) -> candle_core::Result<Option<Tensor>> {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner)[index].take();
        let Some(mut gradient) = taken else { return Ok(None) };
        if factor != 1.0 {
            gradient.par_iter_mut().with_min_len(1 << 14).for_each(|value| *value *= factor);
        }
        Tensor::from_vec(gradient, of.shape(), of.device()).map(Some)
    }
}

struct TrainedOp {
    loss: Loss,
    gradients: Gradients,
}

impl CustomOp2 for TrainedOp {
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
        let weight = Mat::new(contiguous(weight, weight_layout)?, vocab, d, d);
        let packed = |weight| Packed::right(weight, self.loss.products);
        let head = Head::Plain(packed(weight.t()), self.loss.wants[0].then(|| packed(weight)));
        let (loss, gradients) = self.loss.run(contiguous(hidden, hidden_layout)?, &head, vocab, d);
        self.gradients.leave(gradients);
        Ok((CpuStorage::F32(vec![loss]), Shape::from(())))
    }

    fn bwd(
        &self,
        hidden: &Tensor,
        weight: &Tensor,
        _loss: &Tensor,
        d_loss: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let factor = d_loss.to_scalar::<f32>()?;
        Ok((self.gradients.take(0, hidden, factor)?, self.gradients.take(1, weight, factor)?))
    }
}

struct FrozenOp {
    loss: Loss,
    weight: StoredTensor,
    gradients: Gradients,
}

impl CustomOp1 for FrozenOp {
    fn name(&self) -> &'static str {
        "frozen linear_cross_entropy"
    }

    fn cpu_fwd(&self, hidden: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (vocab, d) = (self.weight.num_rows(), self.weight.row_len());
        let (loss, gradients) =
            self.loss.run(contiguous(hidden, layout)?, &Head::Stored(&self.weight), vocab, d);
        self.gradients.leave(gradients);
        Ok((CpuStorage::F32(vec![loss]), Shape::from(())))
    }

    fn bwd(&self, hidden: &Tensor, _loss: &Tensor, d_loss: &Tensor) -> candle_core::Result<Option<Tensor>> {
        self.gradients.take(0, hidden, d_loss.to_scalar::<f32>()?)
    }
}

struct Loss {
    labels: Box<[u32]>,
    form: LogitForm,
    products: Products,
    /// Whether the gradient of `hidden` and that of `weight` will be asked for.
    wants: [bool; 2],
}

impl Loss {
    /// The summed loss and the gradients wanted.
    fn run(&self, hidden: &[f32], head: &Head<'_>, vocab: usize, d: usize) -> (f32, [Option<Vec<f32>>; 2]) {
        let mut d_hidden = self.wants[0].then(|| vec![0f32; hidden.len()]);
        let mut d_weight = self.wants[1].then(|| vec![0f32; vocab * d]);
        let tokens = (CHUNK_LOGITS / vocab).clamp(8, 1024);
        let mut logits = vec![0f32; tokens.min(self.labels.len()) * vocab];
        let mut loss = 0f64;
        for (chunk, (hidden, labels)) in hidden.chunks(tokens * d).zip(self.labels.chunks(tokens)).enumerate()
        {
            let rows = labels.len();
            let logits = &mut logits[..rows * vocab];
            head.logits(logits, hidden, [rows, vocab, d]);
            loss += self.chunk_loss(logits, labels, vocab);
            if let Some(d_hidden) = &mut d_hidden {
                let d_hidden = &mut d_hidden[chunk * tokens * d..][..rows * d];
                head.input_gradient(d_hidden, logits, [rows, vocab, d]);
            }
            if let Some(d_weight) = &mut d_weight {
                let (logits, hidden) = (Mat::new(logits, rows, vocab, vocab), Mat::new(hidden, rows, d, d));
                matmul(
                    MatMut::new(d_weight, vocab, d, d),
                    logits.t(),
                    hidden,
                    self.products,
                    Write::Add,
                    Threads::Pool,
                );
            }
        }
        (loss as f32, [d_hidden, d_weight])
    }

    /// Sum of the losses of a chunk; `logits` becomes the gradient of the products where one is wanted.
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
                let slopes = self.form.apply(row);
                if !with_gradient {
                    return kernel::row(row, label as usize);
                }
                let loss = kernel::row_with_gradient(row, label as usize);
                self.form.pull(row, slopes.as_deref());
                loss
            })
            .collect();
        losses.iter().map(|&loss| f64::from(loss)).sum()
    }
}

impl LogitForm {
    /// Products to logits; returns the slope of the bound at each, where there is one.
    fn apply(&self, row: &mut [f32]) -> Option<Vec<f32>> {
        self.rescale(row);
        let cap = self.cap? as f32;
        row.iter_mut().for_each(|value| *value = cap * tanh(*value / cap));
        Some(row.iter().map(|value| 1.0 - (value / cap) * (value / cap)).collect())
    }

    /// The gradient of logits to that of products.
    fn pull(&self, row: &mut [f32], slopes: Option<&[f32]>) {
        for (value, slope) in row.iter_mut().zip(slopes.into_iter().flatten()) {
            *value *= slope;
        }
        self.rescale(row);
    }

    fn rescale(&self, row: &mut [f32]) {
        if self.scale != 1.0 {
            row.iter_mut().for_each(|value| *value *= self.scale as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, random, stored as stored_as};
    use crate::weights::Format;
    use candle_core::Var;

    const FORMS: [LogitForm; 3] = [
        LogitForm { scale: 1.0, cap: None },
        LogitForm { scale: 0.7, cap: None },
        LogitForm { scale: 0.7, cap: Some(1.5) },
    ];

    fn loss(hidden: &Tensor, weight: &Tensor, labels: &[u32], form: LogitForm) -> Result<Tensor> {
        linear_cross_entropy(hidden, &Parameter::Tensor(weight.clone()), labels, form, Products::F32)
    }

    #[test]
    fn agrees_with_plain_tensors() {
        let (hidden, weight) = (random(&[5, 7], 1), random(&[11, 7], 2));
        let labels = [3, IGNORE_LABEL, 0, 10, 3];
        for form in FORMS {
            let logits = (hidden.matmul(&weight.t().unwrap()).unwrap() * form.scale).unwrap();
            let logits = match form.cap {
                Some(cap) => ((logits / cap).unwrap().tanh().unwrap() * cap).unwrap(),
                None => logits,
            };
            let logits: Vec<Vec<f32>> = logits.to_vec2().unwrap();
            let expected: f32 = (logits.iter().zip(labels))
                .filter(|&(_, label)| label != IGNORE_LABEL)
                .map(|(row, label)| row.iter().map(|x| x.exp()).sum::<f32>().ln() - row[label as usize])
                .sum();
            let found = loss(&hidden, &weight, &labels, form).unwrap();
            assert_close(&found, &Tensor::new(expected, found.device()).unwrap(), 1e-5);
        }
    }

    #[test]
    fn a_stored_head_gives_the_loss_and_gradient_of_its_numbers() {
        let stored = stored_as(&random(&[11, 7], 2), Format::BF16);
        let plain = stored.to_tensor(&candle_core::Device::Cpu).unwrap();
        let hidden = Var::from_tensor(&random(&[5, 7], 1)).unwrap();
        let labels = [3, IGNORE_LABEL, 0, 10, 3];
        for form in FORMS {
            let found = linear_cross_entropy(
                &hidden,
                &Parameter::Stored(stored.clone()),
                &labels,
                form,
                Products::F32,
            )
            .unwrap();
            let expected = loss(&hidden, &plain, &labels, form).unwrap();
            assert_close(&found, &expected, 1e-6);
            let (found, expected) = (found.backward().unwrap(), expected.backward().unwrap());
            assert_close(found.get(&hidden).unwrap(), expected.get(&hidden).unwrap(), 1e-5);
        }
    }

    #[test]
    fn chunks_add_up() {
        // more tokens than a chunk holds
        let (hidden, weight) = (random(&[1500, 3], 1), random(&[5, 3], 2));
        let labels: Vec<u32> = (0..1500).map(|i| i % 5).collect();
        let form = LogitForm::default();
        let whole = loss(&hidden, &weight, &labels, form).unwrap().to_scalar::<f32>().unwrap();
        let parts: f32 = (0..3)
            .map(|part| {
                let hidden = hidden.narrow(0, part * 500, 500).unwrap();
                let labels = &labels[part * 500..][..500];
                loss(&hidden, &weight, labels, form).unwrap().to_scalar::<f32>().unwrap()
            })
            .sum();
        assert!((whole - parts).abs() < 1e-2 * 1500f32.sqrt(), "{whole} != {parts}");
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for form in FORMS {
            check_gradients(&[random(&[4, 3], 1), random(&[6, 3], 2)], |args| {
                loss(&args[0], &args[1], &[5, IGNORE_LABEL, 0, 2], form)
            });
        }
    }

    #[test]
    fn a_label_outside_the_vocabulary_is_named() {
        let error =
            loss(&random(&[2, 3], 1), &random(&[6, 3], 2), &[1, 6], LogitForm::default()).unwrap_err();
        assert!(error.to_string().starts_with("token id 6 at position 1"), "{error}");
    }
}
