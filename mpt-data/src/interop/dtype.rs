//! Number types as other programs name them, and token ids out of their bytes.

/// Number type. All bytes are little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Dtype {
    U8,
    I8,
    U16,
    I16,
    F16,
    U32,
    I32,
    F32,
    U64,
    I64,
    F64,
}

/// Pairs of numbers whose upper halves are not all zero by chance.
const MIN_PAIRS: usize = 8;

impl Dtype {
    /// All number types.
    pub const ALL: [Self; 11] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::F16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    /// Name in NumPy.
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "uint8",
            Self::I8 => "int8",
            Self::U16 => "uint16",
            Self::I16 => "int16",
            Self::F16 => "float16",
            Self::U32 => "uint32",
            Self::I32 => "int32",
            Self::F32 => "float32",
            Self::U64 => "uint64",
            Self::I64 => "int64",
            Self::F64 => "float64",
        }
    }

    /// Type of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// Whether it is an integer type, as token ids need.
    pub fn is_integer(self) -> bool {
        !matches!(self, Self::F16 | Self::F32 | Self::F64)
    }

    /// Whether every id of a vocabulary fits.
    pub fn holds(self, vocab_size: usize) -> bool {
        let signed = matches!(self, Self::I8 | Self::I16 | Self::I32 | Self::I64);
        let bits = 8 * self.bytes() as u32 - u32::from(signed);
        self.is_integer() && (vocab_size as u128) <= 1 << bits
    }

    /// Bytes of a number twice as wide, if `bytes` look like such numbers: all upper halves are zero, and not all lower ones.
    pub(crate) fn is_half_of(self, bytes: &[u8]) -> Option<usize> {
        let wide = 2 * self.bytes();
        let is_zero = |half: &[u8]| half.iter().all(|&byte| byte == 0);
        let pairs = || bytes.chunks_exact(wide).map(|pair| pair.split_at(wide / 2));
        let is_pairs =
            self.is_integer() && wide <= 8 && bytes.len().is_multiple_of(wide) && pairs().len() >= MIN_PAIRS;
        (is_pairs && pairs().all(|(_, high)| is_zero(high)) && pairs().any(|(low, _)| !is_zero(low)))
            .then_some(wide)
    }

    /// Appends the token ids in `bytes`; an error says in words what is wrong with them.
    pub(crate) fn ids(self, bytes: &[u8], vocab_size: usize, out: &mut Vec<u32>) -> Result<(), String> {
        if !bytes.len().is_multiple_of(self.bytes()) {
            let (length, width, name) = (bytes.len(), self.bytes(), self.name());
            return Err(format!("{length} bytes are no whole number of {name} tokens of {width} bytes"));
        }
        let mut wrong = None;
        let mut push = |id: i128| match u32::try_from(id) {
            Ok(id) if (id as usize) < vocab_size => out.push(id),
            _ => _ = wrong.get_or_insert(id),
        };
        match self {
            Self::U8 => for_each_number(bytes, |id| push(u8::from_le_bytes(id).into())),
            Self::I8 => for_each_number(bytes, |id| push(i8::from_le_bytes(id).into())),
            Self::U16 => for_each_number(bytes, |id| push(u16::from_le_bytes(id).into())),
            Self::I16 => for_each_number(bytes, |id| push(i16::from_le_bytes(id).into())),
            Self::U32 => for_each_number(bytes, |id| push(u32::from_le_bytes(id).into())),
            Self::I32 => for_each_number(bytes, |id| push(i32::from_le_bytes(id).into())),
            Self::U64 => for_each_number(bytes, |id| push(u64::from_le_bytes(id).into())),
            Self::I64 => for_each_number(bytes, |id| push(i64::from_le_bytes(id).into())),
            Self::F16 | Self::F32 | Self::F64 => {
                return Err(format!("{} numbers are no token ids", self.name()));
            }
        }
        wrong.map_or(Ok(()), |id| Err(format!("id {id} is not in the vocabulary of {vocab_size}")))
    }

    /// Appends ids as numbers of this type, which must hold every id of the vocabulary.
    pub(crate) fn put_ids(self, ids: &[u32], out: &mut Vec<u8>) {
        match self.bytes() {
            1 => out.extend(ids.iter().map(|&id| id as u8)),
            2 => out.extend(ids.iter().flat_map(|&id| (id as u16).to_le_bytes())),
            4 => out.extend(ids.iter().flat_map(|&id| id.to_le_bytes())),
            _ => out.extend(ids.iter().flat_map(|&id| u64::from(id).to_le_bytes())),
        }
    }
}

fn for_each_number<const N: usize>(bytes: &[u8], f: impl FnMut([u8; N])) {
    bytes.as_chunks::<N>().0.iter().copied().for_each(f);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_through_every_integer_type() {
        for dtype in Dtype::ALL.into_iter().filter(|dtype| dtype.is_integer()) {
            let ids = [0, 1, 127];
            let (mut bytes, mut found) = (Vec::new(), Vec::new());
            dtype.put_ids(&ids, &mut bytes);
            assert_eq!(bytes.len(), 3 * dtype.bytes());
            dtype.ids(&bytes, 128, &mut found).expect("they fit");
            assert_eq!(found, ids);
            assert!(dtype.holds(128) && !Dtype::U8.holds(257) && Dtype::U16.holds(65_536));
            let error = dtype.ids(&bytes, 127, &mut found).expect_err("one too many");
            assert_eq!(error, "id 127 is not in the vocabulary of 127");
        }
    }

    #[test]
    fn halves_of_wider_numbers_are_told() {
        let bytes: Vec<_> = (0..20u64).flat_map(u64::to_le_bytes).collect();
        for (dtype, wide) in [(Dtype::I32, 8), (Dtype::U32, 8), (Dtype::U16, 4), (Dtype::U8, 2)] {
            assert_eq!(dtype.is_half_of(&bytes), Some(wide), "{dtype:?}");
        }
        assert_eq!(Dtype::I64.is_half_of(&bytes), None);
        let narrow: Vec<_> = (0..40u32).flat_map(u32::to_le_bytes).collect();
        assert_eq!((Dtype::I32.is_half_of(&narrow), Dtype::U16.is_half_of(&narrow)), (None, Some(4)));
        assert_eq!((Dtype::I32.is_half_of(&[0; 160]), Dtype::I32.is_half_of(&bytes[..56])), (None, None));
    }

    #[test]
    fn what_is_no_id_is_named() {
        let mut out = Vec::new();
        let error = Dtype::I32.ids(&(-3i32).to_le_bytes(), 100, &mut out).expect_err("negative");
        assert_eq!(error, "id -3 is not in the vocabulary of 100");
        assert!(
            Dtype::I64.ids(&[0; 12], 100, &mut out).expect_err("odd").contains("no whole number of int64")
        );
        assert!(Dtype::F32.ids(&[0; 4], 100, &mut out).is_err() && !Dtype::F32.holds(1));
    }
}
