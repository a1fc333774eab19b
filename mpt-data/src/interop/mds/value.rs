//! What a cell of a sample holds.

use super::numbers::Numbers;

/// The value of one column of one sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Of `bytes`, and the file of a `jpeg` or `png`.
    Bytes(Vec<u8>),
    /// Of `str`, the text of a `json`, and the decimal text of `str_int`, `str_float` and `str_decimal`.
    Text(String),
    /// Of `ndarray`, `int`, and the fixed number types.
    Numbers(Numbers),
    /// Of `pil`.
    Image(Image),
    /// Of `list[…]` and `jpeg_array`: images.
    List(Vec<Value>),
}

/// An image as pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// The mode as Pillow names it, such as `RGB`.
    pub mode: String,
    /// The pixels.
    pub data: Vec<u8>,
}

impl Value {
    /// What it is, for errors.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Bytes(bytes) => format!("{} bytes", bytes.len()),
            Self::Text(_) => "a text".into(),
            Self::Numbers(numbers) => {
                format!("an array of {} with the shape {:?}", numbers.dtype.name(), numbers.shape)
            }
            Self::Image(_) => "an image".into(),
            Self::List(items) => format!("a list of {}", items.len()),
        }
    }
}
