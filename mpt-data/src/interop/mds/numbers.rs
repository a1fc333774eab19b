//! Arrays of numbers: MDS's `ndarray`, whose type and shape are in the column's name or before the values.

use super::super::dtype::Dtype;

/// Most axes of an array.
const MAX_AXES: usize = 63;

/// Array of numbers of one type; without axes, one number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers {
    /// Type.
    pub dtype: Dtype,
    /// Axes, each 1 or more.
    pub shape: Vec<u64>,
    /// Values, little-endian, the last axis fastest.
    pub data: Vec<u8>,
}

impl Numbers {
    /// Array of token ids.
    pub(crate) fn of_ids(dtype: Dtype, ids: &[u32]) -> Self {
        let mut data = Vec::with_capacity(ids.len() * dtype.bytes());
        dtype.put_ids(ids, &mut data);
        Self { dtype, shape: vec![ids.len() as u64], data }
    }
}

/// Bytes of an array of this shape; `None` for 2^64 or more.
pub(super) fn length(dtype: Dtype, shape: &[u64]) -> Option<u64> {
    shape.iter().try_fold(dtype.bytes() as u64, |bytes, &axis| bytes.checked_mul(axis))
}

/// Code of a type before the values.
pub(super) fn code(dtype: Dtype) -> u8 {
    match dtype {
        Dtype::U8 => 8,
        Dtype::I8 => 9,
        Dtype::U16 => 16,
        Dtype::I16 => 17,
        Dtype::F16 => 18,
        Dtype::U32 => 32,
        Dtype::I32 => 33,
        Dtype::F32 => 34,
        Dtype::U64 => 64,
        Dtype::I64 => 65,
        Dtype::F64 => 66,
    }
}

/// Type, shape and values of an array; the column may give the first two.
pub(super) fn decode<'a>(
    dtype: Option<Dtype>,
    shape: Option<&[u64]>,
    bytes: &'a [u8],
) -> Result<(Dtype, Vec<u64>, &'a [u8]), String> {
    let mut rest = bytes;
    let dtype = match dtype {
        Some(dtype) => dtype,
        None => take_dtype(&mut rest)?,
    };
    let shape = match shape {
        Some(shape) => shape.to_vec(),
        None => take_shape(&mut rest)?,
    };
    if length(dtype, &shape) != Some(rest.len() as u64) {
        let (name, found) = (dtype.name(), rest.len());
        return Err(format!("an array of {name} with the shape {shape:?} cannot have {found} bytes"));
    }
    Ok((dtype, shape, rest))
}

fn take_dtype(rest: &mut &[u8]) -> Result<Dtype, String> {
    let code_found = take(rest, 1)?[0];
    let found = Dtype::ALL.into_iter().find(|&dtype| code(dtype) == code_found);
    found.ok_or_else(|| format!("{code_found} is no code of a number type"))
}

fn take_shape(rest: &mut &[u8]) -> Result<Vec<u64>, String> {
    let head = take(rest, 1)?[0];
    let (axes, width) = (usize::from(head >> 2), 1 << (head & 3));
    let axis = |bytes: &[u8]| {
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(bytes);
        u64::from_le_bytes(wide)
    };
    let shape: Vec<_> = take(rest, axes * width)?.chunks_exact(width).map(axis).collect();
    if shape.is_empty() || shape.contains(&0) {
        return Err(format!("the shape {shape:?} is that of no array; expected axes of 1 or more"));
    }
    Ok(shape)
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], String> {
    let (taken, left) = rest.split_at_checked(count).ok_or_else(|| {
        format!("an array ends in its head: {count} more bytes expected, {} there", rest.len())
    })?;
    *rest = left;
    Ok(taken)
}

/// Appends an array, with the type and shape that its column does not give.
pub(super) fn encode(
    dtype: Option<Dtype>,
    shape: Option<&[u64]>,
    numbers: &Numbers,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    if dtype.is_some_and(|dtype| dtype != numbers.dtype) || shape.is_some_and(|shape| shape != numbers.shape)
    {
        return Err(format!("an array of {} with the shape {:?}", numbers.dtype.name(), numbers.shape));
    }
    let axes = numbers.shape.len();
    if axes == 0 || axes > MAX_AXES || numbers.shape.contains(&0) {
        return Err(format!("an array with the shape {:?}", numbers.shape));
    }
    if length(numbers.dtype, &numbers.shape) != Some(numbers.data.len() as u64) {
        return Err(format!("{} bytes for the shape {:?}", numbers.data.len(), numbers.shape));
    }
    if dtype.is_none() {
        out.push(code(numbers.dtype));
    }
    if shape.is_none() {
        put_shape(&numbers.shape, out);
    }
    out.extend(&numbers.data);
    Ok(())
}

/// Axes in the narrowest of 1, 2, 4 and 8 bytes that holds the longest.
fn put_shape(shape: &[u64], out: &mut Vec<u8>) {
    let longest = shape.iter().copied().max().unwrap_or(0);
    let narrow = [u64::from(u8::MAX), u64::from(u16::MAX), u64::from(u32::MAX)];
    let width = narrow.iter().filter(|&&most| longest > most).count();
    out.push((shape.len() << 2 | width) as u8);
    shape.iter().for_each(|axis| out.extend(&axis.to_le_bytes()[..1 << width]));
}
