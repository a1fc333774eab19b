//! CPU output projection with the loss.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::dtype::Precision;
use crate::error::Result;
use crate::host::{host_slice, tensor_like};
use crate::kernels::cpu::activation::tanh;
use crate::kernels::cpu::gemm::{Beta, MatMut, MatRef, PackedMatrix, Parallelism, matmul, matmul_packed};
use crate::kernels::cpu::{cross_entropy as kernel, linear};
use crate::ops::arguments::{CrossEntropyInputs, IGNORE_LABEL, LogitScaling, LossAndGrads, NeedsGrad};
use crate::parameter::Parameter;
use crate::storage::StoredTensor;

/// Logits of a chunk: 64 MiB.
const CHUNK_LOGITS: usize = 1 << 24;

pub(crate) fn cross_entropy(inputs: CrossEntropyInputs<'_>, needs: NeedsGrad) -> Result<LossAndGrads> {
    let CrossEntropyInputs { hidden, weight, labels, scaling, precision } = inputs;
    let &[vocab, d] = weight.dims() else { unreachable!("checked by `cross_entropy`") };
    let loss = ChunkedLoss { labels, scaling, precision, needs };
    let hidden_data = host_slice(hidden)?;
    let (loss, [d_hidden, d_weight]) = match weight {
        Parameter::Stored(weight) => loss.run(&hidden_data, &OutputProjection::Stored(weight), vocab, d),
        Parameter::Tensor(weight) => {
            let weight = weight.contiguous()?;
            let data = host_slice(&weight)?;
            let matrix = MatRef::new(&data, vocab, d, d);
            let packed = |matrix| PackedMatrix::pack_b(matrix, precision);
            let projection =
                OutputProjection::Packed(packed(matrix.t()), needs.hidden.then(|| packed(matrix)));
            loss.run(&hidden_data, &projection, vocab, d)
        }
    };
    let d_weight = d_weight.map(|dw| Tensor::from_vec(dw, (vocab, d), hidden.device()));
    Ok(LossAndGrads {
        loss: f64::from(loss),
        hidden: d_hidden.map(|d_hidden| tensor_like(d_hidden, hidden)).transpose()?,
        weight: d_weight.transpose()?,
    })
}

/// Weight of the output projection.
enum OutputProjection<'a> {
    /// An f32 weight packed once for all chunks: its transpose, and the weight itself for the gradient of `hidden`.
    Packed(PackedMatrix<'a>, Option<PackedMatrix<'a>>),
    /// A stored weight.
    Stored(&'a StoredTensor),
}

impl OutputProjection<'_> {
    /// `logits = hidden W^T`
    fn logits(&self, logits: &mut [f32], hidden: &[f32], [rows, vocab, d]: [usize; 3]) {
        match self {
            Self::Stored(weight) => linear::forward(logits, hidden, weight),
            Self::Packed(transpose, _) => {
                let (logits, hidden) =
                    (MatMut::new(logits, rows, vocab, vocab), MatRef::new(hidden, rows, d, d));
                matmul_packed(logits, hidden, transpose, Beta::Zero);
            }
        }
    }

    /// `d_hidden = d_logits W`
    fn input_gradient(&self, d_hidden: &mut [f32], d_logits: &[f32], [rows, vocab, d]: [usize; 3]) {
        match self {
            Self::Stored(weight) => linear::backward_input(d_hidden, d_logits, weight),
            Self::Packed(_, weight) => {
                let weight = weight.as_ref().expect("packed when the gradient is needed");
                let d_logits = MatRef::new(d_logits, rows, vocab, vocab);
                let d_hidden = MatMut::new(d_hidden, rows, d, d);
                matmul_packed(d_hidden, d_logits, weight, Beta::Zero);
            }
        }
    }
}

/// Cross-entropy of a batch, one chunk of tokens at a time.
struct ChunkedLoss<'a> {
    labels: &'a [u32],
    scaling: LogitScaling,
    precision: Precision,
    needs: NeedsGrad,
}

impl ChunkedLoss<'_> {
    /// Summed loss, and the gradients of `hidden` and of the weight.
    fn run(
        &self,
        hidden: &[f32],
        projection: &OutputProjection<'_>,
        vocab: usize,
        d: usize,
    ) -> (f32, [Option<Vec<f32>>; 2]) {
        let mut d_hidden = self.needs.hidden.then(|| vec![0f32; hidden.len()]);
        let mut d_weight = self.needs.weight.then(|| vec![0f32; vocab * d]);
        let tokens = (CHUNK_LOGITS / vocab).clamp(8, 1024);
        let mut logits = vec![0f32; tokens.min(self.labels.len()) * vocab];
        let mut loss = 0f64;
        for (chunk, (hidden, labels)) in hidden.chunks(tokens * d).zip(self.labels.chunks(tokens)).enumerate()
        {
            let rows = labels.len();
            let logits = &mut logits[..rows * vocab];
            projection.logits(logits, hidden, [rows, vocab, d]);
            loss += self.chunk_loss(logits, labels, vocab);
            if let Some(d_hidden) = &mut d_hidden {
                let d_hidden = &mut d_hidden[chunk * tokens * d..][..rows * d];
                projection.input_gradient(d_hidden, logits, [rows, vocab, d]);
            }
            if let Some(d_weight) = &mut d_weight {
                let (logits, hidden) =
                    (MatRef::new(logits, rows, vocab, vocab), MatRef::new(hidden, rows, d, d));
                matmul(
                    MatMut::new(d_weight, vocab, d, d),
                    logits.t(),
                    hidden,
                    self.precision,
                    Beta::One,
                    Parallelism::Pool,
                );
            }
        }
        (loss as f32, [d_hidden, d_weight])
    }

    /// Summed loss of a chunk; `logits` becomes the gradient of the products if one is needed.
    fn chunk_loss(&self, logits: &mut [f32], labels: &[u32], vocab: usize) -> f64 {
        let with_gradient = self.needs.hidden || self.needs.weight;
        let losses: Vec<f32> = logits
            .par_chunks_exact_mut(vocab)
            .zip(labels)
            .map(|(row, &label)| {
                if label == IGNORE_LABEL {
                    row.fill(0.0);
                    return 0.0;
                }
                let slopes = self.scaling.forward(row);
                if !with_gradient {
                    return kernel::loss(row, label as usize);
                }
                let loss = kernel::loss_and_gradient(row, label as usize);
                self.scaling.backward(row, slopes.as_deref());
                loss
            })
            .collect();
        losses.iter().map(|&loss| f64::from(loss)).sum()
    }
}

impl LogitScaling {
    /// Products to logits; returns the derivatives of the soft cap, if there is one.
    fn forward(&self, row: &mut [f32]) -> Option<Vec<f32>> {
        self.rescale(row);
        let cap = self.cap? as f32;
        row.iter_mut().for_each(|value| *value = cap * tanh(*value / cap));
        Some(row.iter().map(|value| 1.0 - (value / cap) * (value / cap)).collect())
    }

    /// Gradient of logits to that of products.
    fn backward(&self, row: &mut [f32], slopes: Option<&[f32]>) {
        for (value, slope) in row.iter_mut().zip(slopes.into_iter().flatten()) {
            *value *= slope;
        }
        self.rescale(row);
    }

    /// Multiplies by the scale.
    fn rescale(&self, row: &mut [f32]) {
        if self.scale != 1.0 {
            row.iter_mut().for_each(|value| *value *= self.scale as f32);
        }
    }
}
