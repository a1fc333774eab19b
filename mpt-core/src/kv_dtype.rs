//! Element types of the KV cache.

use std::fmt;

/// Element type of the KV cache. A smaller type holds more tokens in the same memory and decodes faster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvDtype {
    /// IEEE 754 binary32: exact.
    #[default]
    F32,
    /// bf16: relative error up to 2^-8.
    Bf16,
    /// 8-bit integers with an f32 scale per vector, one token's key or value in one head: absolute error up to 1/254 of the
    /// largest magnitude of the vector. A vector with a non-finite element becomes NaN.
    Int8,
}

impl KvDtype {
    /// All types.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    /// Name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// Bytes of a vector of `len` elements, scale included.
    pub fn vector_bytes(self, len: usize) -> usize {
        self.number_bytes() * len + self.scale_bytes()
    }

    /// Bytes of an element.
    pub(crate) fn number_bytes(self) -> usize {
        match self {
            Self::F32 => size_of::<f32>(),
            Self::Bf16 => size_of::<u16>(),
            Self::Int8 => size_of::<i8>(),
        }
    }

    /// Bytes of the scale of a vector; 0 without one.
    pub(crate) fn scale_bytes(self) -> usize {
        if self == Self::Int8 { size_of::<f32>() } else { 0 }
    }
}

impl fmt::Display for KvDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
