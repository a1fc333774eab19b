//! Encodings of columns: their names, and the bytes of a value. Pickle runs code when it is read, and is refused.

use std::fmt;
use std::str::FromStr;

use super::super::dtype::Dtype;
use super::numbers::{self, Numbers};
use super::value::{Image, Value};

/// Encoding of the values of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encoding {
    /// `bytes`: as they are.
    Bytes,
    /// `str`: UTF-8.
    Str,
    /// `json`: the text of a JSON value.
    Json,
    /// `str_int`: a whole number as decimal text, as large as may be.
    StrInt,
    /// `str_float`: a number as decimal text.
    StrFloat,
    /// `str_decimal`: a decimal number as text.
    StrDecimal,
    /// `int`: an `int64`.
    Int,
    /// `uint16`, `float32`, …: one number.
    Number(Dtype),
    /// `ndarray`, `ndarray:uint16`, `ndarray:float32:3,4`: an array.
    Array(Option<Dtype>, Option<Vec<u64>>),
    /// `pil`, `jpeg`, `png`: an image.
    Image(ImageFormat),
    /// `jpeg_array`, also spelled `jpegarray`: JPEG files with a count and their sizes before them.
    JpegArray(&'static str),
    /// `list[pil]`, `list[jpeg]`, `list[png]`: images.
    List(ImageFormat),
}

/// Format of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// Pixels with width, height and mode before them.
    Pil,
    /// A JPEG file.
    Jpeg,
    /// A PNG file.
    Png,
}

impl ImageFormat {
    const ALL: [Self; 3] = [Self::Pil, Self::Jpeg, Self::Png];

    fn name(self) -> &'static str {
        match self {
            Self::Pil => "pil",
            Self::Jpeg => "jpeg",
            Self::Png => "png",
        }
    }
}

/// Encodings without parameters.
const PLAIN: [Encoding; 9] = [
    Encoding::Bytes,
    Encoding::Str,
    Encoding::Json,
    Encoding::StrInt,
    Encoding::StrFloat,
    Encoding::StrDecimal,
    Encoding::Int,
    Encoding::JpegArray("jpeg_array"),
    Encoding::JpegArray("jpegarray"),
];

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes => f.write_str("bytes"),
            Self::Str => f.write_str("str"),
            Self::Json => f.write_str("json"),
            Self::StrInt => f.write_str("str_int"),
            Self::StrFloat => f.write_str("str_float"),
            Self::StrDecimal => f.write_str("str_decimal"),
            Self::Int => f.write_str("int"),
            Self::Number(dtype) => f.write_str(dtype.name()),
            Self::Array(dtype, shape) => {
                f.write_str("ndarray")?;
                dtype.map_or(Ok(()), |dtype| write!(f, ":{}", dtype.name()))?;
                let shape = shape.iter().flatten().map(u64::to_string).collect::<Vec<_>>().join(",");
                if shape.is_empty() { Ok(()) } else { write!(f, ":{shape}") }
            }
            Self::Image(part) => f.write_str(part.name()),
            Self::JpegArray(name) => f.write_str(name),
            Self::List(part) => write!(f, "list[{}]", part.name()),
        }
    }
}

impl FromStr for Encoding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = PLAIN.into_iter();
        let mut named = plain
            .chain(Dtype::ALL.map(Self::Number))
            .chain(ImageFormat::ALL.map(Self::Image))
            .chain(ImageFormat::ALL.map(Self::List));
        if let Some(found) = named.find(|encoding| encoding.to_string() == text) {
            return Ok(found);
        }
        match text.split_once(':').unwrap_or((text, "")) {
            ("ndarray", rest) => array(rest).ok_or_else(|| {
                format!("`{text}` is no array encoding; expected such as ndarray, ndarray:uint16 or ndarray:float32:3,4")
            }),
            ("pkl" | "list[pkl]", _) => Err(format!(
                "`{text}` is Python's pickle, which runs code when it is read, and is not supported; write the column with another encoding"
            )),
            _ => Err(format!("`{text}` is no encoding of MDS version 2")),
        }
    }
}

/// Array encoding from the text after `ndarray:`.
fn array(text: &str) -> Option<Encoding> {
    if text.is_empty() {
        return Some(Encoding::Array(None, None));
    }
    let (dtype, shape) = text.split_once(':').map_or((text, None), |(dtype, shape)| (dtype, Some(shape)));
    let dtype = Dtype::from_name(dtype)?;
    let axis = |text: &str| text.parse::<u64>().ok().filter(|&axis| axis > 0);
    let shape = shape.map(|shape| shape.split(',').map(axis).collect::<Option<Vec<_>>>());
    let shape = match shape {
        Some(shape) => Some(shape?),
        None => None,
    };
    // The bytes of a value must be below 2^64.
    numbers::length(dtype, shape.as_deref().unwrap_or(&[]))?;
    Some(Encoding::Array(Some(dtype), shape))
}

impl Encoding {
    /// Bytes of every value, for an encoding of fixed size.
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::Int => Some(8),
            Self::Number(dtype) => Some(dtype.bytes() as u64),
            Self::Array(Some(dtype), Some(shape)) => numbers::length(*dtype, shape),
            _ => None,
        }
    }

    /// Value of some bytes.
    ///
    /// # Errors
    /// Problem, in words.
    pub fn decode(&self, bytes: &[u8]) -> Result<Value, String> {
        match self {
            Self::Bytes => Ok(Value::Bytes(bytes.to_vec())),
            Self::Str | Self::Json | Self::StrInt | Self::StrFloat | Self::StrDecimal => text(bytes),
            Self::Int | Self::Number(_) | Self::Array(..) => {
                let (dtype, shape, data) = self.numbers(bytes)?;
                Ok(Value::Numbers(Numbers { dtype, shape, data: data.to_vec() }))
            }
            Self::Image(part) => image(*part, bytes),
            Self::JpegArray(_) => list(bytes, ImageFormat::Jpeg),
            Self::List(part) => list(take(&mut &*bytes, 4).map(|_| &bytes[4..])?, *part),
        }
    }

    /// Type, shape and bytes of numbers, without a copy; for encodings of numbers.
    ///
    /// # Errors
    /// Problem, in words; also for other encodings.
    pub fn numbers<'a>(&self, bytes: &'a [u8]) -> Result<(Dtype, Vec<u64>, &'a [u8]), String> {
        match self {
            Self::Int => numbers::decode(Some(Dtype::I64), Some(&[]), bytes),
            Self::Number(dtype) => numbers::decode(Some(*dtype), Some(&[]), bytes),
            Self::Array(dtype, shape) => numbers::decode(*dtype, shape.as_deref(), bytes),
            _ => Err(format!("`{self}` is no encoding of numbers")),
        }
    }

    /// Appends the bytes of a value.
    ///
    /// # Errors
    /// Problem, in words, for a value of another encoding.
    pub fn encode(&self, value: &Value, out: &mut Vec<u8>) -> Result<(), String> {
        let wrong = |found: String| format!("`{self}` cannot hold {found}");
        match (self, value) {
            (Self::Bytes | Self::Image(ImageFormat::Jpeg | ImageFormat::Png), Value::Bytes(bytes)) => {
                out.extend(bytes)
            }
            (
                Self::Str | Self::Json | Self::StrInt | Self::StrFloat | Self::StrDecimal,
                Value::Text(text),
            ) => out.extend(text.as_bytes()),
            (Self::Int | Self::Number(_), Value::Numbers(numbers)) => {
                let dtype = if let Self::Number(dtype) = self { *dtype } else { Dtype::I64 };
                if numbers.dtype != dtype || !numbers.shape.is_empty() || numbers.data.len() != dtype.bytes()
                {
                    return Err(wrong(value.kind()));
                }
                out.extend(&numbers.data);
            }
            (Self::Array(dtype, shape), Value::Numbers(numbers)) => {
                numbers::encode(*dtype, shape.as_deref(), numbers, out).map_err(wrong)?;
            }
            (Self::Image(ImageFormat::Pil), Value::Image(image)) => put_image(image, out).map_err(wrong)?,
            (Self::JpegArray(_), Value::List(items)) => {
                put_list(items, ImageFormat::Jpeg, out).map_err(wrong)?
            }
            (Self::List(part), Value::List(items)) => {
                out.extend([0; 4]);
                put_list(items, *part, out).map_err(wrong)?;
            }
            _ => return Err(wrong(value.kind())),
        }
        Ok(())
    }
}

fn text(bytes: &[u8]) -> Result<Value, String> {
    let text = str::from_utf8(bytes);
    text.map(|text| Value::Text(text.to_owned()))
        .map_err(|error| format!("a text that is not UTF-8 ({error})"))
}

fn image(part: ImageFormat, bytes: &[u8]) -> Result<Value, String> {
    if part != ImageFormat::Pil {
        return Ok(Value::Bytes(bytes.to_vec()));
    }
    let mut rest = bytes;
    let (width, height) = (number(&mut rest)?, number(&mut rest)?);
    let mode_bytes = number(&mut rest)? as usize;
    let mode = str::from_utf8(take(&mut rest, mode_bytes)?);
    let mode = mode.map_err(|_| "an image whose mode is not UTF-8".to_owned())?.to_owned();
    Ok(Value::Image(Image { width, height, mode, data: rest.to_vec() }))
}

fn put_image(image: &Image, out: &mut Vec<u8>) -> Result<(), String> {
    let mode_bytes =
        u32::try_from(image.mode.len()).map_err(|_| "an image with an endless mode".to_owned())?;
    [image.width, image.height, mode_bytes].iter().for_each(|number| out.extend(number.to_le_bytes()));
    out.extend(image.mode.as_bytes());
    out.extend(&image.data);
    Ok(())
}

/// A count, the sizes, the items.
fn list(bytes: &[u8], part: ImageFormat) -> Result<Value, String> {
    let mut rest = bytes;
    let count = number(&mut rest)? as usize;
    let sizes = take(&mut rest, count.checked_mul(4).ok_or("a list without end")?)?;
    let items = sizes.as_chunks::<4>().0.iter().map(|&size| {
        let item = take(&mut rest, u32::from_le_bytes(size) as usize)?;
        image(part, item)
    });
    let items: Vec<_> = items.collect::<Result<_, String>>()?;
    if rest.is_empty() { Ok(Value::List(items)) } else { Err(format!("{} bytes after a list", rest.len())) }
}

fn put_list(items: &[Value], part: ImageFormat, out: &mut Vec<u8>) -> Result<(), String> {
    let count = u32::try_from(items.len()).map_err(|_| format!("a list of {}", items.len()))?;
    out.extend(count.to_le_bytes());
    let (sizes_at, encoding) = (out.len(), Encoding::Image(part));
    out.resize(sizes_at + 4 * items.len(), 0);
    for (index, item) in items.iter().enumerate() {
        let from = out.len();
        encoding.encode(item, out).map_err(|_| format!("a list with {}", item.kind()))?;
        let size = u32::try_from(out.len() - from).map_err(|_| format!("a list with {}", item.kind()))?;
        out[sizes_at + 4 * index..][..4].copy_from_slice(&size.to_le_bytes());
    }
    Ok(())
}

fn number(rest: &mut &[u8]) -> Result<u32, String> {
    let bytes = take(rest, 4)?;
    Ok(u32::from_le_bytes(*bytes.first_chunk().expect("four were taken")))
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], String> {
    let (taken, left) = rest
        .split_at_checked(count)
        .ok_or_else(|| format!("{count} more bytes expected, {} there", rest.len()))?;
    *rest = left;
    Ok(taken)
}
