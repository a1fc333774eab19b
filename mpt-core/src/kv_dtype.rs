//! How a cache of keys and values holds its numbers.

use std::fmt;

/// How a cache holds a number. A smaller form lets more tokens fit, and decoding reads them faster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvDtype {
    /// As it was computed.
    #[default]
    F32,
    /// Rounded to 8 significant bits: within 2^-8 of its size.
    Bf16,
    /// Rounded to a multiple of 1/127 of the largest number of its vector (one token's key or value in one head), which
    /// an f32 keeps: within 1/254 of that largest number. A vector with a number that is not finite becomes NaN.
    Int8,
}

impl KvDtype {
    /// Every form, as `Display` names it.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    /// Its name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// Bytes of a vector of `len` numbers.
    pub fn vector_bytes(self, len: usize) -> usize {
        self.number_bytes() * len + self.scale_bytes()
    }

    /// Bytes of a number.
    pub(crate) fn number_bytes(self) -> usize {
        match self {
            Self::F32 => size_of::<f32>(),
            Self::Bf16 => size_of::<u16>(),
            Self::Int8 => size_of::<i8>(),
        }
    }

    /// Bytes of a vector's scale, 0 where it has none.
    pub(crate) fn scale_bytes(self) -> usize {
        if self == Self::Int8 { size_of::<f32>() } else { 0 }
    }
}

impl fmt::Display for KvDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
