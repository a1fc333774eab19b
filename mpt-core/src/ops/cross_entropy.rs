//! Output projection and cross-entropy of its logits in one op, one chunk of tokens at a time.

use super::arguments::{CrossEntropyInputs, IGNORE_LABEL, LossAndGrads, NeedsGrad};
use super::device::backend_of;
use crate::error::{Error, Result};

/// Sum over tokens of `-log softmax(scaling(hidden weight^T))[label]`; 0 without any target.
///
/// Logits exist for one chunk of tokens at a time; gradients are computed in the same pass.
///
/// # Errors
/// [`Error::Shape`] when the number of labels is not that of tokens, [`Error::TokenId`] for a label outside the vocabulary.
pub fn cross_entropy(inputs: CrossEntropyInputs<'_>, needs: NeedsGrad) -> Result<LossAndGrads> {
    let CrossEntropyInputs { hidden, weight, labels, .. } = inputs;
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
    let needs = NeedsGrad { weight: needs.weight && weight.trainable().is_some(), ..needs };
    backend_of(&hidden)?.cross_entropy(CrossEntropyInputs { hidden: &hidden, ..inputs }, needs)
}

#[cfg(test)]
mod tests {
    use candle_core::Tensor;

    use super::*;
    use crate::dtype::Precision;
    use crate::dtype::WeightDtype;
    use crate::ops::LogitScaling;
    use crate::parameter::Parameter;
    use crate::testing::{assert_close, check_backward, random, stored as stored_as};

    const SCALINGS: [LogitScaling; 3] = [
        LogitScaling { scale: 1.0, cap: None },
        LogitScaling { scale: 0.7, cap: None },
        LogitScaling { scale: 0.7, cap: Some(1.5) },
    ];

    const BOTH: NeedsGrad = NeedsGrad { hidden: true, weight: true };

    fn run(
        hidden: &Tensor,
        weight: &Parameter,
        labels: &[u32],
        scaling: LogitScaling,
        needs: NeedsGrad,
    ) -> Result<LossAndGrads> {
        cross_entropy(
            CrossEntropyInputs { hidden, weight, labels, scaling, precision: Precision::F32 },
            needs,
        )
    }

    fn loss(hidden: &Tensor, weight: &Tensor, labels: &[u32], scaling: LogitScaling) -> Result<Tensor> {
        let weight = Parameter::Tensor(weight.clone());
        let loss = run(hidden, &weight, labels, scaling, NeedsGrad::default())?.loss;
        Ok(Tensor::new(loss as f32, hidden.device())?)
    }

    fn reference(
        hidden: &Tensor,
        weight: &Tensor,
        labels: &[u32],
        scaling: LogitScaling,
    ) -> candle_core::Result<Tensor> {
        let logits = (hidden.matmul(&weight.t()?)? * scaling.scale)?;
        let logits = match scaling.cap {
            Some(cap) => ((logits / cap)?.tanh()? * cap)?,
            None => logits,
        };
        let rows: Vec<u32> =
            (0..labels.len() as u32).filter(|&i| labels[i as usize] != IGNORE_LABEL).collect();
        let kept: Vec<u32> = rows.iter().map(|&row| labels[row as usize]).collect();
        let n = rows.len();
        let logits = logits.index_select(&Tensor::from_vec(rows, n, hidden.device())?, 0)?;
        let chosen = logits.gather(&Tensor::from_vec(kept, (n, 1), hidden.device())?, 1)?.sum_all()?;
        logits.exp()?.sum(1)?.log()?.sum_all()?.sub(&chosen)
    }

    #[test]
    fn gradients_agree_with_the_formula_and_finite_differences() {
        let labels = [5, IGNORE_LABEL, 0, 2];
        for scaling in SCALINGS {
            check_backward(
                &[random(&[4, 3], 1), random(&[6, 3], 2)],
                |args| reference(&args[0], &args[1], &labels, scaling),
                |args| loss(&args[0], &args[1], &labels, scaling),
                |args, dy| {
                    let weight = Parameter::Tensor(args[1].clone());
                    let found = run(&args[0], &weight, &labels, scaling, BOTH)?;
                    let factor = f64::from(dy.to_scalar::<f32>()?);
                    [found.hidden, found.weight]
                        .map(|x| Ok((x.expect("it was needed") * factor)?))
                        .into_iter()
                        .collect()
                },
            );
        }
    }

    #[test]
    fn a_stored_head_gives_the_loss_and_gradient_of_its_values() {
        let stored = stored_as(&random(&[11, 7], 2), WeightDtype::BF16);
        let plain = Parameter::Tensor(stored.to_tensor(&candle_core::Device::Cpu).unwrap());
        let stored = Parameter::Stored(stored);
        let hidden = random(&[5, 7], 1);
        let labels = [3, IGNORE_LABEL, 0, 10, 3];
        for scaling in SCALINGS {
            let [found, expected] =
                [&stored, &plain].map(|weight| run(&hidden, weight, &labels, scaling, BOTH).unwrap());
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
        let scaling = LogitScaling::default();
        let whole = loss(&hidden, &weight, &labels, scaling).unwrap().to_scalar::<f32>().unwrap();
        let parts: f32 = (0..3)
            .map(|part| {
                let hidden = hidden.narrow(0, part * 500, 500).unwrap();
                let labels = &labels[part * 500..][..500];
                loss(&hidden, &weight, labels, scaling).unwrap().to_scalar::<f32>().unwrap()
            })
            .sum();
        assert!((whole - parts).abs() < 1e-2 * 1500f32.sqrt(), "{whole} != {parts}");
    }

    #[test]
    fn a_label_outside_the_vocabulary_is_named() {
        let error =
            loss(&random(&[2, 3], 1), &random(&[6, 3], 2), &[1, 6], LogitScaling::default()).unwrap_err();
        assert!(error.to_string().starts_with("token id 6 at position 1"), "{error}");
    }
}
