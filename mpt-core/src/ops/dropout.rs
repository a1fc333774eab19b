//! Dropout of the elements of a tensor.

use candle_core::Tensor;

use super::device::backend_of;
use crate::error::Result;
use crate::rng::Dropout;

/// Zeroes each element of `x` with probability `rate` and divides the others by `1 - rate`, in place.
///
/// The same call on a gradient is the backward pass. `x` is contiguous and not shared.
///
/// # Errors
/// When `x` is not f32.
pub fn dropout(x: &Tensor, dropout: Dropout) -> Result<()> {
    if dropout.rate == 0.0 { Ok(()) } else { backend_of(x)?.dropout(x, dropout) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn dropped(n: usize, dropout: Dropout) -> Vec<f32> {
        let x = Tensor::ones(n, DType::F32, &Device::Cpu).unwrap();
        super::dropout(&x, dropout).unwrap();
        x.to_vec1().unwrap()
    }

    #[test]
    fn the_rate_is_kept_and_so_is_the_mean() {
        let y = dropped(100_000, Dropout { rate: 0.3, seed: 1, site: 2, first: 0 });
        let zeros = y.iter().filter(|&&y| y == 0.0).count() as f64 / 1e5;
        assert!((zeros - 0.3).abs() < 0.01, "{zeros}");
        assert!(y.iter().all(|&y| y == 0.0 || (y - 1.0 / 0.7).abs() < 1e-6));
    }

    #[test]
    fn a_slice_drops_what_the_whole_does() {
        let whole = Dropout { rate: 0.5, seed: 1, site: 2, first: 0 };
        let (all, part) = (dropped(20_000, whole), dropped(3000, Dropout { first: 15_000, ..whole }));
        assert_eq!(all[15_000..18_000], part);
        assert_ne!(all, dropped(20_000, Dropout { site: 3, ..whole }));
        assert_ne!(all, dropped(20_000, Dropout { seed: 2, ..whole }));
    }
}
