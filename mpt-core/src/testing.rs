//! Test support: seeded tensors, comparison with tolerance, gradient checks, a tiny model, a matmul benchmark.

use candle_core::{Device, Tensor, Var};

use crate::config::MptConfig;
use crate::dtype::Precision;
use crate::dtype::WeightDtype;
use crate::error::Result;
use crate::kernels::cpu::gemm::{Beta, MatMut, MatRef, Parallelism, matmul};
use crate::rng::CounterRng;
use crate::storage::StoredTensor;
use crate::variables::Params;

/// Tensor of standard normal values, f32 on the CPU.
///
/// # Panics
/// Never: the sizes agree by construction.
pub fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut rng = CounterRng::new(seed, 0);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("as many values as the shape has")
}

/// Tensor converted to a weight dtype.
///
/// # Panics
/// When the blocks of `dtype` do not fill the rows, or it cannot hold a value.
pub fn stored(tensor: &Tensor, dtype: WeightDtype) -> StoredTensor {
    let values = tensor.flatten_all().and_then(|x| x.to_vec1::<f32>()).expect("f32 values");
    let len = tensor.dims().last().copied().unwrap_or(1);
    assert!(dtype.row_bytes(len).is_some(), "blocks of {dtype} do not fill rows of {len} values");
    StoredTensor::from_f32(&values, tensor.dims(), dtype).expect("finite values of usual size")
}

/// Largest magnitude of the values: NaN if one is NaN, 0 if there are none.
///
/// A fold with `f32::max` would ignore NaN.
pub fn largest(values: impl IntoIterator<Item = impl Into<f64>>) -> f64 {
    let magnitudes = values.into_iter().map(|value| value.into().abs());
    magnitudes.fold(0.0, |top, next| if next > top || next.is_nan() { next } else { top })
}

/// Asserts that elements agree within `tolerance`, absolute for elements below 1 and relative above.
///
/// # Panics
/// When they do not, or shapes differ.
pub fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(found.dims(), expected.dims(), "shapes differ");
    let values = |x: &Tensor| x.flatten_all().and_then(|x| x.to_vec1::<f32>()).expect("f32 values");
    for (i, (found, expected)) in values(found).into_iter().zip(values(expected)).enumerate() {
        let limit = tolerance * expected.abs().max(1.0);
        assert!(
            (found - expected).abs() <= limit,
            "element {i} is {found}, expected {expected} within {limit}"
        );
    }
}

/// Checks an op against `reference`, a formula of candle's plain ops.
///
/// `forward` must agree with `reference`. `backward` takes the arguments and the gradient of the result; its gradients must
/// agree with candle's autograd of `reference` and with central differences of `forward`.
///
/// # Panics
/// When they do not.
pub fn check_backward(
    args: &[Tensor],
    reference: impl Fn(&[Tensor]) -> candle_core::Result<Tensor>,
    forward: impl Fn(&[Tensor]) -> Result<Tensor>,
    backward: impl Fn(&[Tensor], &Tensor) -> Result<Vec<Tensor>>,
) {
    let vars: Vec<Var> = args.iter().map(|arg| Var::from_tensor(arg).expect("a variable")).collect();
    let tracked: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let expected = reference(&tracked).expect("the formula runs");
    assert_close(&forward(args).expect("the op runs"), &expected, 1e-4);
    let dy = random(expected.dims(), 77);
    let found = backward(args, &dy).expect("the backward pass runs");
    assert_eq!(found.len(), args.len(), "a gradient for every argument");
    let gradients = expected.mul(&dy).and_then(|y| y.sum_all()?.backward()).expect("candle's gradients");
    for (index, (var, found)) in vars.iter().zip(&found).enumerate() {
        let expected = gradients.get(var).unwrap_or_else(|| panic!("argument {index} is in the formula"));
        assert_close(found, &expected.contiguous().expect("a copy"), 1e-3);
    }
    let objective = |args: &[Tensor]| {
        let y = forward(args).and_then(|y| Ok(y.mul(&dy)?.sum_all()?.to_scalar::<f32>()?));
        y.expect("the op runs")
    };
    for (index, found) in found.iter().enumerate() {
        check_finite_differences(args, index, found, &objective);
    }
}

/// Asserts that `found` is the gradient of `objective` with respect to argument `index`, by central differences.
fn check_finite_differences(
    args: &[Tensor],
    index: usize,
    found: &Tensor,
    objective: &dyn Fn(&[Tensor]) -> f32,
) {
    const STEP: f32 = 1e-2;
    let values = |x: &Tensor| x.flatten_all().and_then(|x| x.to_vec1::<f32>()).expect("f32 values");
    let base = values(&args[index]);
    for (i, found) in values(found).into_iter().enumerate() {
        let shifted = |by: f32| {
            let mut values = base.clone();
            values[i] += by;
            let mut args = args.to_vec();
            args[index] =
                Tensor::from_vec(values, args[index].shape(), &Device::Cpu).expect("the same shape");
            objective(&args)
        };
        let expected = (shifted(STEP) - shifted(-STEP)) / (2.0 * STEP);
        // f32 rounding over the step and the third derivative bound the agreement
        let limit = 5e-3 * expected.abs().max(1.0);
        assert!(
            (found - expected).abs() < limit,
            "argument {index}, element {i}: {found}, expected {expected}"
        );
    }
}

/// Seeded model: `n_layers` 2, `d_model` 32, `n_heads` 4, `vocab_size` 50, `max_seq_len` 16.
///
/// # Panics
/// Never: the sizes are valid.
pub fn tiny_model(seed: u64) -> (MptConfig, Params) {
    let config = MptConfig::mpt(32, 2, 4, 50, 16).expect("possible sizes");
    let params =
        Params::init(&config, seed, &Device::Cpu).expect("a CPU has memory for 27 thousand parameters");
    (config, params)
}

/// Matmul for benchmarks: `[m, k]` times `[k, n]`. A `T` in `layout` (`NN`, `NT`, `TN`) stores the operand transposed.
#[derive(Debug)]
pub struct MatmulBench {
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
    size: [usize; 3],
    transposed: [bool; 2],
    precision: Precision,
}

impl MatmulBench {
    /// Random operands of `size` `[m, n, k]`.
    pub fn new([m, n, k]: [usize; 3], layout: &str, precision: Precision) -> Self {
        let values = |len, seed| {
            let mut rng = CounterRng::new(seed, 0);
            (0..len).map(|_| rng.normal()).collect::<Vec<f32>>()
        };
        let transposed = [layout.starts_with('T'), layout.ends_with('T')];
        Self {
            a: values(m * k, 1),
            b: values(k * n, 2),
            c: vec![0.0; m * n],
            size: [m, n, k],
            transposed,
            precision,
        }
    }

    /// Floating-point operations of one product.
    pub fn flops(&self) -> usize {
        2 * self.size.iter().product::<usize>()
    }

    /// Computes the product once, packing of both operands included.
    pub fn run(&mut self) {
        let [m, n, k] = self.size;
        let a = if self.transposed[0] {
            MatRef::new(&self.a, k, m, m).t()
        } else {
            MatRef::new(&self.a, m, k, k)
        };
        let b = if self.transposed[1] {
            MatRef::new(&self.b, n, k, k).t()
        } else {
            MatRef::new(&self.b, k, n, n)
        };
        let c = MatMut::new(&mut self.c, m, n, n);
        matmul(c, a, b, self.precision, Beta::Zero, Parallelism::Pool);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_the_largest_wherever_it_stands() {
        assert_eq!(largest([0f32; 0]), 0.0);
        assert_eq!(largest([1.0, -3.0, 2.0]), 3.0);
        for at in 0..3 {
            let mut values = [1.0, f32::INFINITY, 2.0];
            values[at] = f32::NAN;
            assert!(largest(values).is_nan(), "{values:?}");
        }
    }

    #[test]
    #[should_panic(expected = "element 1 is NaN")]
    fn what_is_no_number_is_not_close() {
        let tensor = |values: [f32; 2]| Tensor::new(&values, &Device::Cpu).expect("a tensor");
        assert_close(&tensor([0.0, f32::NAN]), &tensor([0.0, 0.0]), 1e9);
    }
}
