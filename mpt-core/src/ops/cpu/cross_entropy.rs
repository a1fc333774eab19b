//! The output projection with the loss on the processor.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::dtype::Precision;
use crate::error::Result;
use crate::host::{host_slice, tensor_like};
use crate::kernels::cpu::activation::tanh;
use crate::kernels::cpu::gemm::{Mat, MatMut, Packed, Threads, Write, matmul, matmul_packed};
use crate::kernels::cpu::{cross_entropy as kernel, stored};
use crate::ops::arguments::{CrossEntropy, HeadGradients, IGNORE_LABEL, LogitForm, WantedGradients};
use crate::parameter::Parameter;
use crate::storage::StoredTensor;

/// Logits held at once: 16 MiB.
const CHUNK_LOGITS: usize = 1 << 24;

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
