//! The output projection and the cross-entropy of its logits in one op, a chunk of tokens at a time.

use candle_core::Tensor;
use rayon::prelude::*;

use super::Precision;
use super::backend::of;
use super::host::{host_slice, tensor_like};
use crate::error::{Error, Result};
use crate::kernels::cpu::activation::tanh;
use crate::kernels::cpu::gemm::{Mat, MatMut, Packed, Threads, Write, matmul, matmul_packed};
use crate::kernels::cpu::{cross_entropy as kernel, stored};
use crate::parameter::Parameter;
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

/// What the loss of a batch is computed from.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy<'a> {
    /// Hidden states behind the last norm, `[.., d]`.
    pub hidden: &'a Tensor,
    /// Output projection, `[vocab, d]`.
    pub weight: &'a Parameter,
    /// One id a token, [`IGNORE_LABEL`] where it has no target.
    pub labels: &'a [u32],
    /// What becomes of its products.
    pub form: LogitForm,
    /// How factors of an f32 weight are rounded.
    pub precision: Precision,
}

/// Which gradients the caller wants; others are not computed.
#[derive(Clone, Copy, Debug, Default)]
pub struct WantedGradients {
    /// That of `hidden`.
    pub hidden: bool,
    /// That of `weight`; a stored weight has none.
    pub weight: bool,
}

/// A loss with the gradients that were wanted.
#[derive(Clone, Debug)]
pub struct HeadGradients {
    /// The summed loss, in nats.
    pub loss: f64,
    /// Of `hidden`, in its shape.
    pub hidden: Option<Tensor>,
    /// Of `weight`, `[vocab, d]`.
    pub weight: Option<Tensor>,
}

/// The sum over tokens of `-log softmax(form(hidden weight^T))[label]`, 0 without any target.
///
/// Logits exist for one chunk of tokens at a time; gradients are computed in the same pass.
///
/// # Errors
/// [`Error::Shape`] when the count of labels is not that of tokens, [`Error::TokenId`] for a label outside the vocabulary.
pub fn cross_entropy(inputs: CrossEntropy<'_>, wanted: WantedGradients) -> Result<HeadGradients> {
    let CrossEntropy { hidden, weight, labels, .. } = inputs;
    let &[vocab_size, d] = weight.dims() else {
        let (actual, expected) = (format!("{:?}", weight.dims()), "[vocab, d]".to_owned());
        return Err(Error::Shape { op: "cross_entropy", argument: "weight", actual, expected });
    };
    if hidden.dims().last() != Some(&d) || hidden.elem_count() != labels.len() * d {
        let (actual, expected) =
            (format!("{:?}", hidden.dims()), format!("{} tokens of width {d}", labels.len()));
        return Err(Error::Shape { op: "cross_entropy", argument: "hidden", actual, expected });
    }
    let outside = |&(_, &label): &(usize, &u32)| label != IGNORE_LABEL && label as usize >= vocab_size;
    if let Some((position, &id)) = labels.iter().enumerate().find(outside) {
        return Err(Error::TokenId { id, position, vocab_size });
    }
    let hidden = hidden.contiguous()?;
    let wanted = WantedGradients { weight: wanted.weight && weight.trainable().is_some(), ..wanted };
    of(&hidden)?.cross_entropy(CrossEntropy { hidden: &hidden, ..inputs }, wanted)
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

pub(super) mod cpu {
    //! The loss on the processor.

    use super::*;

    pub(crate) fn cross_entropy(inputs: CrossEntropy<'_>, wanted: WantedGradients) -> Result<HeadGradients> {
        let CrossEntropy { hidden, weight, labels, form, precision } = inputs;
        let &[vocab, d] = weight.dims() else { unreachable!("checked by `cross_entropy`") };
        let loss = Loss { labels, form, precision, wanted };
        let hidden_data = host_slice(hidden)?;
        let (loss, [d_hidden, d_weight]) = match weight {
            Parameter::Stored(weight) => loss.run(&hidden_data, &Head::Stored(weight), vocab, d),
            Parameter::Tensor(weight) => {
                let weight = weight.contiguous()?;
                let data = host_slice(&weight)?;
                let matrix = Mat::new(&data, vocab, d, d);
                let packed = |matrix| Packed::right(matrix, precision);
                let head = Head::Plain(packed(matrix.t()), wanted.hidden.then(|| packed(matrix)));
                loss.run(&hidden_data, &head, vocab, d)
            }
        };
        let d_weight = d_weight.map(|dw| Tensor::from_vec(dw, (vocab, d), hidden.device()));
        Ok(HeadGradients {
            loss: f64::from(loss),
            hidden: d_hidden.map(|d_hidden| tensor_like(d_hidden, hidden)).transpose()?,
            weight: d_weight.transpose()?,
        })
    }
}

struct Loss<'a> {
    labels: &'a [u32],
    form: LogitForm,
    precision: Precision,
    wanted: WantedGradients,
}

impl Loss<'_> {
    /// The summed loss and the gradients wanted.
    fn run(&self, hidden: &[f32], head: &Head<'_>, vocab: usize, d: usize) -> (f32, [Option<Vec<f32>>; 2]) {
        let mut d_hidden = self.wanted.hidden.then(|| vec![0f32; hidden.len()]);
        let mut d_weight = self.wanted.weight.then(|| vec![0f32; vocab * d]);
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
                    self.precision,
                    Write::Add,
                    Threads::Pool,
                );
            }
        }
        (loss as f32, [d_hidden, d_weight])
    }

    /// Sum of the losses of a chunk; `logits` becomes the gradient of the products where one is wanted.
    fn chunk_loss(&self, logits: &mut [f32], labels: &[u32], vocab: usize) -> f64 {
        let with_gradient = self.wanted.hidden || self.wanted.weight;
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
    /// Precision to logits; returns the slope of the bound at each, where there is one.
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
    use crate::testing::{assert_close, check_backward, random, stored as stored_as};
    use crate::weights::Format;

    const FORMS: [LogitForm; 3] = [
        LogitForm { scale: 1.0, cap: None },
        LogitForm { scale: 0.7, cap: None },
        LogitForm { scale: 0.7, cap: Some(1.5) },
    ];

    const BOTH: WantedGradients = WantedGradients { hidden: true, weight: true };

    fn run(
        hidden: &Tensor,
        weight: &Parameter,
        labels: &[u32],
        form: LogitForm,
        wanted: WantedGradients,
    ) -> Result<HeadGradients> {
        cross_entropy(CrossEntropy { hidden, weight, labels, form, precision: Precision::F32 }, wanted)
    }

    fn loss(hidden: &Tensor, weight: &Tensor, labels: &[u32], form: LogitForm) -> Result<Tensor> {
        let weight = Parameter::Tensor(weight.clone());
        let loss = run(hidden, &weight, labels, form, WantedGradients::default())?.loss;
        Ok(Tensor::new(loss as f32, hidden.device())?)
    }

    fn plain(
        hidden: &Tensor,
        weight: &Tensor,
        labels: &[u32],
        form: LogitForm,
    ) -> candle_core::Result<Tensor> {
        let logits = (hidden.matmul(&weight.t()?)? * form.scale)?;
        let logits = match form.cap {
            Some(cap) => ((logits / cap)?.tanh()? * cap)?,
            None => logits,
        };
        let rows: Vec<u32> = (0..labels.len() as u32).filter(|&i| labels[i as usize] != IGNORE_LABEL).collect();
        let kept: Vec<u32> = rows.iter().map(|&row| labels[row as usize]).collect();
        let n = rows.len();
        let logits = logits.index_select(&Tensor::from_vec(rows, n, hidden.device())?, 0)?;
        let chosen = logits.gather(&Tensor::from_vec(kept, (n, 1), hidden.device())?, 1)?.sum_all()?;
        logits.exp()?.sum(1)?.log()?.sum_all()?.sub(&chosen)
    }

    #[test]
    fn gradients_agree_with_the_formula_and_finite_differences() {
        let labels = [5, IGNORE_LABEL, 0, 2];
        for form in FORMS {
            check_backward(
                &[random(&[4, 3], 1), random(&[6, 3], 2)],
                |args| plain(&args[0], &args[1], &labels, form),
                |args| loss(&args[0], &args[1], &labels, form),
                |args, dy| {
                    let weight = Parameter::Tensor(args[1].clone());
                    let found = run(&args[0], &weight, &labels, form, BOTH)?;
                    let factor = f64::from(dy.to_scalar::<f32>()?);
                    [found.hidden, found.weight].map(|x| Ok((x.expect("it was wanted") * factor)?)).into_iter().collect()
                },
            );
        }
    }

    #[test]
    fn a_stored_head_gives_the_loss_and_gradient_of_its_numbers() {
        let stored = stored_as(&random(&[11, 7], 2), Format::BF16);
        let plain = Parameter::Tensor(stored.to_tensor(&candle_core::Device::Cpu).unwrap());
        let stored = Parameter::Stored(stored);
        let hidden = random(&[5, 7], 1);
        let labels = [3, IGNORE_LABEL, 0, 10, 3];
        for form in FORMS {
            let [found, expected] =
                [&stored, &plain].map(|weight| run(&hidden, weight, &labels, form, BOTH).unwrap());
            assert!((found.loss - expected.loss).abs() < 1e-5, "{} {}", found.loss, expected.loss);
            assert_close(&found.hidden.unwrap(), &expected.hidden.unwrap(), 1e-5);
            assert!(found.weight.is_none() && expected.weight.is_some());
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
    fn a_label_outside_the_vocabulary_is_named() {
        let error =
            loss(&random(&[2, 3], 1), &random(&[6, 3], 2), &[1, 6], LogitForm::default()).unwrap_err();
        assert!(error.to_string().starts_with("token id 6 at position 1"), "{error}");
    }
}
