//! Dtypes of weights and precision of products: the one list for files, flags and kernels.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Rounding of the factors of matrix products; sums are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// No rounding.
    #[default]
    F32,
    /// Rounding to bf16, to nearest, ties to even.
    Bf16,
}

/// Values of a block of NF4.
pub(crate) const NF4_BLOCK: usize = 64;

/// Bytes of a block of NF4 in memory: an f32 scale and 4 bits a value.
pub(crate) const NF4_BLOCK_BYTES: usize = 4 + NF4_BLOCK / 2;

/// Dtype of a stored tensor. A row of a tensor is a whole number of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WeightDtype {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of binary32.
    BF16,
    /// 32 values of 8 bits and an f16 scale.
    Q8_0,
    /// 32 values of 4 bits and an f16 scale.
    Q4_0,
    /// 256 values of 4 bits, in groups of 32 with 6-bit scales and minima.
    Q4K,
    /// 256 values of 5 bits, in groups of 32 with 6-bit scales and minima.
    Q5K,
    /// 256 values of 6 bits, in groups of 16 with 8-bit scales.
    Q6K,
    /// 64 values of 4 bits, quantiles of the normal distribution, and a scale, f32 in memory.
    Nf4,
}

impl WeightDtype {
    /// All dtypes, wide to narrow.
    pub const ALL: [Self; 9] = [
        Self::F32,
        Self::BF16,
        Self::F16,
        Self::Q8_0,
        Self::Q6K,
        Self::Q5K,
        Self::Q4K,
        Self::Q4_0,
        Self::Nf4,
    ];

    /// Values of a block; 1 for dtypes without blocks.
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q8_0 | Self::Q4_0 => 32,
            Self::Nf4 => NF4_BLOCK,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    ///
    /// Source: `ggml-common.h`, the block structs. NF4 is ours: files keep its scales in 8 bits, apart from the codes.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
            Self::Nf4 => NF4_BLOCK_BYTES,
        }
    }

    /// Bytes of a row of `len` values; `None` when blocks do not fill it or the number overflows.
    pub fn row_bytes(self, len: usize) -> Option<usize> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }

    /// Whether values share scales.
    pub fn is_quantized(self) -> bool {
        self.block_len() > 1
    }

    /// Dtype for rows of `len` values: this one if its blocks fill a row, else a wider one whose blocks do.
    ///
    /// K-quants fall back to Q8_0, and everything else to f16. llama.cpp also falls back to Q5_0 and Q5_1.
    pub fn fallback_for(self, len: usize) -> Self {
        match self {
            _ if len.is_multiple_of(self.block_len()) => self,
            Self::Q4K | Self::Q5K | Self::Q6K => Self::Q8_0.fallback_for(len),
            _ => Self::F16,
        }
    }

    /// Bits of a value, scales included.
    pub fn bits_per_value(self) -> f64 {
        self.block_bytes() as f64 * 8.0 / self.block_len() as f64
    }

    /// Name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
            Self::Nf4 => "nf4",
        }
    }
}

impl fmt::Display for WeightDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Unknown dtype name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no weight dtype; expected f32, bf16, f16, q8_0, q6_k, q5_k, q4_k, q4_0 or nf4")]
pub struct UnknownDtype(pub String);

impl FromStr for WeightDtype {
    type Err = UnknownDtype;

    fn from_str(name: &str) -> Result<Self, UnknownDtype> {
        let known = Self::ALL.into_iter().find(|dtype| dtype.name() == name);
        known.ok_or_else(|| UnknownDtype(name.to_owned()))
    }
}

impl WeightDtype {
    /// Precision of the matrix products of a model with matrices in this dtype: bf16 for bf16, f32 for all others.
    pub fn precision(self) -> Precision {
        if self == Self::BF16 { Precision::Bf16 } else { Precision::F32 }
    }
}
