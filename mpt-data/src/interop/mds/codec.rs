//! Compression of whole shards: `br`, `bz2`, `gz`, `snappy`, `zstd`, with or without a level.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Write};
use std::str::FromStr;

use crate::compressed::GzipMembers;

/// Upper bound for the bytes that snappy makes of one byte.
const SNAPPY_RATIO: u64 = 32;

/// Compression of shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Codec {
    /// Algorithm.
    pub family: Algorithm,
    /// Level, if one was named.
    pub level: Option<u32>,
}

/// Compression algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Algorithm {
    Brotli,
    Bzip2,
    Gzip,
    Snappy,
    Zstd,
}

impl Algorithm {
    /// All algorithms.
    pub const ALL: [Self; 5] = [Self::Brotli, Self::Bzip2, Self::Gzip, Self::Snappy, Self::Zstd];

    /// Name, and extension of files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Bzip2 => "bz2",
            Self::Gzip => "gz",
            Self::Snappy => "snappy",
            Self::Zstd => "zstd",
        }
    }

    /// Levels, and the default one; `None` for an algorithm without levels.
    fn levels(self) -> Option<(std::ops::RangeInclusive<u32>, u32)> {
        match self {
            Self::Brotli => Some((0..=11, 11)),
            Self::Bzip2 => Some((1..=9, 9)),
            Self::Gzip => Some((0..=9, 9)),
            Self::Snappy => None,
            Self::Zstd => Some((1..=22, 3)),
        }
    }
}

impl FromStr for Codec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, level) = text.split_once(':').map_or((text, None), |(name, level)| (name, Some(level)));
        let family = Algorithm::ALL.into_iter().find(|family| family.name() == name);
        let wrong = || {
            format!(
                "`{text}` is no compression; expected br[:0-11], bz2[:1-9], gz[:0-9], snappy or zstd[:1-22]"
            )
        };
        let family = family.ok_or_else(wrong)?;
        let level = level.map(|level| level.parse().map_err(|_| wrong())).transpose()?;
        let fits = |level| family.levels().is_some_and(|(levels, _)| levels.contains(&level));
        if level.is_some_and(|level| !fits(level)) {
            return Err(wrong());
        }
        Ok(Self { family, level })
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.family.name())?;
        self.level.map_or(Ok(()), |level| write!(f, ":{level}"))
    }
}

impl Codec {
    /// Reader of the content of a compressed file, which has `length` bytes by the index.
    pub(super) fn reader(self, file: File, length: u64) -> io::Result<Box<dyn Read>> {
        let zip_bytes = file.metadata()?.len();
        let file = BufReader::with_capacity(1 << 16, file);
        Ok(match self.family {
            Algorithm::Brotli => Box::new(brotli::Decompressor::new(file, 1 << 16)),
            Algorithm::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(file)),
            Algorithm::Gzip => Box::new(GzipMembers::new(file)),
            Algorithm::Snappy => Box::new(snappy(file, zip_bytes, length)?),
            Algorithm::Zstd => Box::new(zstd::Decoder::with_buffer(file)?),
        })
    }

    /// Compressed bytes.
    pub(super) fn compress(self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let level = self.level.or(self.family.levels().map(|(_, level)| level)).unwrap_or(0);
        match self.family {
            Algorithm::Brotli => {
                let mut out = brotli::CompressorWriter::new(Vec::new(), 1 << 16, level, 22);
                out.write_all(bytes)?;
                Ok(out.into_inner())
            }
            Algorithm::Bzip2 => {
                let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(level));
                out.write_all(bytes)?;
                out.finish()
            }
            Algorithm::Gzip => {
                let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
                out.write_all(bytes)?;
                out.finish()
            }
            Algorithm::Snappy => snap::raw::Encoder::new().compress_vec(bytes).map_err(io::Error::other),
            Algorithm::Zstd => zstd::encode_all(bytes, level as i32),
        }
    }
}

/// Content of raw snappy data, which names its length and is decompressed at once. An impossible length is refused.
fn snappy(mut file: impl Read, zip_bytes: u64, length: u64) -> io::Result<Cursor<Vec<u8>>> {
    let mut zip = Vec::new();
    file.read_to_end(&mut zip)?;
    let damaged = |problem: String| io::Error::new(io::ErrorKind::InvalidData, problem);
    let named = snap::raw::decompress_len(&zip).map_err(io::Error::other)? as u64;
    if named > length || named > zip_bytes.saturating_mul(SNAPPY_RATIO) {
        return Err(damaged(format!("it claims {named} bytes of content, which it cannot hold")));
    }
    snap::raw::Decoder::new().decompress_vec(&zip).map(Cursor::new).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(codec: &str, bytes: &[u8]) -> Vec<u8> {
        let codec: Codec = codec.parse().expect("a compression");
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("file");
        std::fs::write(&path, codec.compress(bytes).expect("compressed")).expect("writable");
        let mut out = Vec::new();
        let file = File::open(&path).expect("there");
        codec.reader(file, bytes.len() as u64).expect("sound").read_to_end(&mut out).expect("sound");
        out
    }

    #[test]
    fn every_codec_gives_back_what_it_was_given() {
        let bytes: Vec<_> = (0..40_000u32).map(|at| ((at * at) >> 7) as u8).collect();
        for codec in ["br", "br:0", "bz2", "bz2:1", "gz", "gz:0", "snappy", "zstd", "zstd:1", "zstd:22"] {
            assert_eq!(round_trip(codec, &bytes), bytes, "{codec}");
            assert_eq!(codec.parse::<Codec>().expect("known").to_string(), codec);
            assert_eq!(round_trip(codec, b""), b"", "{codec}");
        }
    }

    #[test]
    fn what_is_no_compression_is_named() {
        for text in ["", "lz4", "br:12", "bz2:0", "gz:10", "snappy:1", "zstd:0", "zstd:", "zstd:x"] {
            let error = text.parse::<Codec>().expect_err("unknown");
            assert!(error.starts_with(&format!("`{text}` is no compression; expected br[:0-11]")), "{error}");
        }
    }

    #[test]
    fn a_claim_that_the_file_cannot_hold_is_refused() {
        let codec: Codec = "snappy".parse().expect("known");
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("file");
        std::fs::write(&path, [0xff, 0xff, 0xff, 0xff, 0x0f, 0]).expect("writable");
        let error = codec.reader(File::open(&path).expect("there"), u64::MAX).err().expect("a lie");
        assert!(error.to_string().contains("which it cannot hold"), "{error}");
    }
}
