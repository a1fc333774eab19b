//! Header of a page, a struct in Thrift's compact protocol, of which only the sizes are kept.

use std::io::Read;

use parquet::errors::{ParquetError, Result};

/// Deepest nesting of a header.
const MAX_DEPTH: u32 = 16;
/// Most bytes of a header, statistics included.
const MAX_BYTES: u64 = 16 << 20;
/// Type of an index page.
const INDEX_PAGE: i64 = 1;

/// Sizes in a page's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageHeader {
    /// Whether the page is an index, without values.
    pub(super) is_index: bool,
    /// Bytes of the page in the file, without the header.
    pub(super) bytes: u64,
    /// Decompressed bytes of the page.
    pub(super) uncompressed: u64,
    /// Bytes of the header.
    pub(super) length: u64,
}

/// Reads a header.
pub(super) fn read(input: &mut impl Read) -> Result<PageHeader> {
    let mut compact = CompactReader { input: input.take(MAX_BYTES), read: 0 };
    let (mut numbers, mut field) = ([0; 3], 0);
    while let Some(kind) = compact.field(&mut field)? {
        match (kind, field) {
            (I16..=I64, 1..=3) => numbers[field as usize - 1] = compact.signed()?,
            _ => compact.skip(kind, MAX_DEPTH)?,
        }
    }
    let [kind, uncompressed, bytes] = numbers;
    let size = |size: i64| u64::try_from(size).map_err(|_| invalid());
    Ok(PageHeader {
        is_index: kind == INDEX_PAGE,
        bytes: size(bytes)?,
        uncompressed: size(uncompressed)?,
        length: compact.read,
    })
}

/// Varint at the beginning of `input`.
pub(super) fn varint(input: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

const BYTE: u8 = 3;
const I16: u8 = 4;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;

struct CompactReader<R> {
    input: R,
    read: u64,
}

impl<R: Read> CompactReader<R> {
    /// Type of the next field, whose number is stored in `field`; `None` after the last.
    fn field(&mut self, field: &mut i64) -> Result<Option<u8>> {
        let byte = self.byte()?;
        let (step, kind) = (byte >> 4, byte & 0x0f);
        if kind == 0 {
            return Ok(None);
        }
        *field = if step == 0 { self.signed()? } else { field.saturating_add(step.into()) };
        Ok(Some(kind))
    }

    fn skip(&mut self, kind: u8, depth: u32) -> Result<()> {
        let depth = depth.checked_sub(1).ok_or_else(invalid)?;
        match kind {
            // A boolean's value is in its type.
            1 | 2 => Ok(()),
            BYTE => self.byte().map(drop),
            I16..=I64 => self.unsigned().map(drop),
            DOUBLE => self.past(8),
            BINARY => {
                let bytes = self.unsigned()?;
                self.past(bytes)
            }
            LIST | SET => {
                let (count, kind) = self.list()?;
                self.all(count, &[kind], depth)
            }
            MAP => match self.unsigned()? {
                0 => Ok(()),
                count => {
                    let kinds = self.byte()?;
                    self.all(count, &[kinds >> 4, kinds & 0x0f], depth)
                }
            },
            STRUCT => {
                let mut field = 0;
                while let Some(kind) = self.field(&mut field)? {
                    self.skip(kind, depth)?;
                }
                Ok(())
            }
            _ => Err(invalid()),
        }
    }

    fn list(&mut self) -> Result<(u64, u8)> {
        let byte = self.byte()?;
        let count = if byte >> 4 == 15 { self.unsigned()? } else { u64::from(byte >> 4) };
        Ok((count, byte & 0x0f))
    }

    /// Skips elements; a boolean in a list has a byte.
    fn all(&mut self, count: u64, kinds: &[u8], depth: u32) -> Result<()> {
        for _ in 0..count {
            for &kind in kinds {
                self.skip(if kind <= 2 { BYTE } else { kind }, depth)?;
            }
        }
        Ok(())
    }

    fn signed(&mut self) -> Result<i64> {
        let number = self.unsigned()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn unsigned(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(invalid())
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.input.read_exact(&mut byte).map_err(|_| invalid())?;
        self.read += 1;
        Ok(byte[0])
    }

    fn past(&mut self, bytes: u64) -> Result<()> {
        let passed = std::io::copy(&mut (&mut self.input).take(bytes), &mut std::io::sink())?;
        self.read += passed;
        if passed == bytes { Ok(()) } else { Err(invalid()) }
    }
}

fn invalid() -> ParquetError {
    ParquetError::EOF("the header of a page is damaged".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_found_and_the_rest_is_passed() {
        // Fields 1, 2 and 3 are 0, 300 and 20; field 5 is a struct with a number, a list of booleans and a text.
        let header = [
            0x15, 0, 0x15, 0xd8, 0x04, 0x15, 40, 0x2c, 0x15, 2, 0x19, 0x21, 1, 2, 0x18, 3, b'a', b'b', b'c',
            0, 0,
        ];
        let expected =
            PageHeader { is_index: false, bytes: 20, uncompressed: 300, length: header.len() as u64 };
        assert_eq!(read(&mut &header[..]).expect("sound"), expected);
        for end in 0..header.len() {
            assert!(read(&mut &header[..end]).is_err(), "cut at {end}");
        }
        assert!(read(&mut &[0x15, 0, 0x15, 1, 0][..]).is_err(), "a size below zero");
        assert!(read(&mut &[0xcc; 1 << 10][..]).is_err(), "structs without end");
        assert_eq!((varint(&mut &[0x80, 1][..]), varint(&mut &[0x80][..])), (Some(128), None));
    }
}
