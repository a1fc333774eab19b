//! Values of cells.

use super::numbers::Numbers;

/// Value of one column of one sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Bytes of `bytes`, or the file of a `jpeg` or `png`.
    Bytes(Vec<u8>),
    /// Text of `str` or `json`, or the decimal text of `str_int`, `str_float` and `str_decimal`.
    Text(String),
    /// Numbers of `ndarray`, `int`, and the fixed number types.
    Numbers(Numbers),
    /// Image of `pil`.
    Image(Image),
    /// Images of `list[…]` and `jpeg_array`.
    List(Vec<Value>),
}

/// Image as pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Mode in Pillow, such as `RGB`.
    pub mode: String,
    /// Pixels.
    pub data: Vec<u8>,
}

impl Value {
    /// Description for errors.
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
