//! Zip reader: byte ranges of uncompressed members, as `torch.save` writes them.
//!
//! Source: PKWARE's APPNOTE, sections 4.3 (structure) and 4.5.3 (64-bit sizes).

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use crate::error::Result;
use crate::error::damaged;
use crate::quoted::quoted;

/// Largest number of members; a model has one per tensor and a few more.
const MAX_MEMBERS: u64 = 1 << 17;

const END_OF_DIRECTORY: &[u8] = b"PK\x05\x06";
const END_OF_DIRECTORY_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";
const DIRECTORY_ENTRY: &[u8] = b"PK\x01\x02";
const LOCAL_HEADER: &[u8] = b"PK\x03\x04";

/// Byte ranges of the members, by name.
///
/// # Errors
/// [`Error::WeightsFile`](crate::Error::WeightsFile) with the offset, for members that are compressed, overlap, repeat or lie
/// outside the file.
pub(super) fn members(path: &Path, bytes: &[u8]) -> Result<BTreeMap<String, Range<usize>>> {
    let zip = Zip { path, bytes };
    let (entries, directory) = zip.directory()?;
    let (mut members, mut taken) = (BTreeMap::new(), Vec::new());
    let mut at = directory;
    for _ in 0..entries {
        let Member { name, header, range, next } = zip.member(at)?;
        taken.push(header..range.end);
        if members.contains_key(&name) {
            return Err(zip.wrong(at, format!("member `{}` comes twice", quoted(&name))));
        }
        members.insert(name, range);
        at = next;
    }
    zip.refuse_more_entries(at)?;
    zip.refuse_overlaps(taken, directory)?;
    Ok(members)
}

/// Member, from its central directory entry.
struct Member {
    name: String,
    /// Offset of its local header.
    header: usize,
    /// Byte range of its data.
    range: Range<usize>,
    /// Offset of the next central directory entry.
    next: usize,
}

/// Zip archive in memory.
struct Zip<'a> {
    path: &'a Path,
    bytes: &'a [u8],
}

impl Zip<'_> {
    /// Number of entries and offset of the central directory.
    fn directory(&self) -> Result<(u64, usize)> {
        let no_zip = || damaged(self.path, "no end of a zip archive", "a file that `torch.save` wrote whole");
        let from = self.bytes.len().saturating_sub(22 + 0xffff);
        let end = self.bytes[from..]
            .windows(4)
            .rposition(|window| window == END_OF_DIRECTORY)
            .map(|at| at + from)
            .ok_or_else(no_zip)?;
        let (mut entries, mut start) = (u64::from(self.u16(end + 10)?), u64::from(self.u32(end + 16)?));
        let locator = end.checked_sub(20).filter(|&at| self.bytes[at..].starts_with(LOCATOR_64));
        if let Some(locator) = locator {
            let end = self.index(locator, self.u64(locator + 8)?)?;
            self.expect(end, END_OF_DIRECTORY_64)?;
            (entries, start) = (self.u64(end + 32)?, self.u64(end + 48)?);
        }
        if entries > MAX_MEMBERS {
            return Err(self.wrong(end, format!("{entries} members")));
        }
        Ok((entries, self.index(end, start)?))
    }

    /// Member of the central directory entry at `at`.
    fn member(&self, at: usize) -> Result<Member> {
        self.expect(at, DIRECTORY_ENTRY)?;
        let (method, flags) = (self.u16(at + 10)?, self.u16(at + 8)?);
        if method != 0 || flags & 1 != 0 {
            return Err(self.wrong(at, "a compressed or encrypted member".to_owned()));
        }
        let lengths = [self.u16(at + 28)?, self.u16(at + 30)?, self.u16(at + 32)?].map(usize::from);
        let name = self.slice(at + 46, lengths[0])?;
        let name = String::from_utf8(name.to_vec())
            .map_err(|_| self.wrong(at, "a member name that is no UTF-8".to_owned()))?;
        let extra = self.slice(at + 46 + lengths[0], lengths[1])?;
        let sizes = Sizes {
            compressed: self.u32(at + 20)?.into(),
            size: self.u32(at + 24)?.into(),
            header: self.u32(at + 42)?.into(),
        };
        let sizes =
            sizes.with_zip64(extra).ok_or_else(|| self.wrong(at, "a truncated 64-bit size".to_owned()))?;
        if sizes.size != sizes.compressed {
            return Err(self.wrong(at, format!("member `{}` of two sizes", quoted(&name))));
        }
        let header = self.index(at, sizes.header)?;
        self.expect(header, LOCAL_HEADER)?;
        let skip = usize::from(self.u16(header + 26)?) + usize::from(self.u16(header + 28)?);
        let start = header + 30 + skip;
        let size = self.index(at, sizes.size)?;
        self.slice(start, size)?;
        let next = at + 46 + lengths.iter().sum::<usize>();
        Ok(Member { name, header, range: start..start + size, next })
    }

    /// Refuses a central directory with more entries than its end record states.
    fn refuse_more_entries(&self, at: usize) -> Result<()> {
        let signature = self.slice(at, 4)?;
        if signature == END_OF_DIRECTORY || signature == END_OF_DIRECTORY_64 {
            return Ok(());
        }
        Err(self.wrong(at, "another number of members than the archive's end says".to_owned()))
    }

    /// Refuses members, headers included, that overlap each other or the central directory.
    fn refuse_overlaps(&self, mut taken: Vec<Range<usize>>, directory: usize) -> Result<()> {
        taken.push(directory..directory);
        taken.sort_by_key(|range| range.start);
        match taken.windows(2).find(|pair| pair[1].start < pair[0].end) {
            Some(pair) => Err(self.wrong(pair[1].start, "members that overlap".to_owned())),
            None => Ok(()),
        }
    }

    fn expect(&self, at: usize, signature: &[u8]) -> Result<()> {
        if self.slice(at, 4)? == signature {
            return Ok(());
        }
        Err(self.wrong(at, "another signature than a zip archive has here".to_owned()))
    }

    fn slice(&self, at: usize, len: usize) -> Result<&[u8]> {
        let end = at.checked_add(len).filter(|&end| end <= self.bytes.len());
        end.map(|end| &self.bytes[at..end])
            .ok_or_else(|| self.wrong(at, format!("{len} bytes beyond the end")))
    }

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        Ok(self.slice(at, N)?.try_into().expect("a slice of N bytes"))
    }

    fn u16(&self, at: usize) -> Result<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Result<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64> {
        self.array(at).map(u64::from_le_bytes)
    }

    /// Offset or size from the file as an index into it.
    fn index(&self, at: usize, value: u64) -> Result<usize> {
        let index = usize::try_from(value).ok().filter(|&index| index <= self.bytes.len());
        index.ok_or_else(|| self.wrong(at, format!("offset or size {value} beyond the end")))
    }

    fn wrong(&self, at: usize, found: String) -> crate::Error {
        let found = format!("byte {at}: {found}");
        damaged(self.path, found, "the zip archive that `torch.save` writes; save it again as safetensors")
    }
}

/// Sizes of a member, and offset of its local header.
struct Sizes {
    compressed: u64,
    size: u64,
    header: u64,
}

impl Sizes {
    /// Sizes with 64-bit values from the zip64 extra field; `None` when it is truncated.
    fn with_zip64(mut self, mut extra: &[u8]) -> Option<Self> {
        const WIDE: u64 = u32::MAX as u64;
        while let [a, b, c, d, rest @ ..] = extra {
            let (kind, len) = (u16::from_le_bytes([*a, *b]), usize::from(u16::from_le_bytes([*c, *d])));
            let mut field = rest.get(..len)?;
            extra = &rest[len..];
            if kind != 1 {
                continue;
            }
            for value in [&mut self.size, &mut self.compressed, &mut self.header] {
                if *value == WIDE {
                    let (wide, rest) = field.split_first_chunk::<8>()?;
                    *value = u64::from_le_bytes(*wide);
                    field = rest;
                }
            }
        }
        Some(self)
    }
}
