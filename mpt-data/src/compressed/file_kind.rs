//! Kinds of files that are no plain text, by their first bytes.

/// Byte-order mark of UTF-8.
pub(crate) const UTF8_BOM: &[u8] = b"\xef\xbb\xbf";
const GIT_LFS: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Kind of file that is often found under the name of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// A zip archive.
    Zip,
    /// Parquet.
    Parquet,
    /// Git LFS pointer, in place of a file that was not fetched.
    GitLfsPointer,
    /// UTF-16, with or without its mark.
    Utf16,
    /// UTF-32.
    Utf32,
}

impl FileKind {
    /// Kind of a file with these first bytes; `None` for anything else.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        let begins = |magic: &[u8]| head.starts_with(magic);
        match () {
            () if is_gzip(head) => Some(Self::Gzip),
            () if begins(b"\x28\xb5\x2f\xfd") => Some(Self::Zstd),
            () if begins(b"BZh") && head.get(4..10) == Some(b"\x31\x41\x59\x26\x53\x59") => Some(Self::Bzip2),
            () if begins(b"\xfd7zXZ\0") => Some(Self::Xz),
            () if begins(b"PK\x03\x04") => Some(Self::Zip),
            () if begins(b"PAR1") => Some(Self::Parquet),
            () if begins(GIT_LFS) => Some(Self::GitLfsPointer),
            () if begins(b"\xff\xfe\0\0") || begins(b"\0\0\xfe\xff") => Some(Self::Utf32),
            () if begins(b"\xff\xfe") || begins(b"\xfe\xff") || is_unmarked_utf16(head) => Some(Self::Utf16),
            () => None,
        }
    }

    /// Problem of such a file and its remedy, in words.
    pub(crate) fn problem(self) -> String {
        match self {
            Self::Gzip => "is gzip data; give it the ending .gz",
            Self::Zstd => "is zstd data; give it the ending .zst",
            Self::Bzip2 => {
                "is bzip2 data, which is not read; decompress it, or compress it with zstd or gzip"
            }
            Self::Xz => "is xz data, which is not read; decompress it, or compress it with zstd or gzip",
            Self::Zip => "is a zip archive, which is not read; unpack it",
            Self::Parquet => "is a Parquet file; give its source `format = \"parquet\"`",
            Self::GitLfsPointer => "is a Git LFS pointer in place of the file; run `git lfs pull` there",
            Self::Utf16 => "is UTF-16 text, expected UTF-8; convert it, as with `iconv -f UTF-16 -t UTF-8`",
            Self::Utf32 => "is UTF-32 text, expected UTF-8; convert it, as with `iconv -f UTF-32 -t UTF-8`",
        }
        .to_owned()
    }
}

pub(super) fn is_gzip(head: &[u8]) -> bool {
    head.starts_with(b"\x1f\x8b")
}

/// A frame, or one that decoders skip, with which some compressors begin.
pub(super) fn is_zstd(head: &[u8]) -> bool {
    head.starts_with(b"\x28\xb5\x2f\xfd")
        || head.first().is_some_and(|first| first & 0xf0 == 0x50) && head.get(1..4) == Some(b"\x2a\x4d\x18")
}

/// Four ASCII characters in UTF-16: every second byte is zero.
fn is_unmarked_utf16(head: &[u8]) -> bool {
    let Some(first) = head.first_chunk::<8>() else { return false };
    let is_ascii = |from: usize| {
        let (low, high) = (first.iter().skip(from).step_by(2), first.iter().skip(1 - from).step_by(2));
        low.copied().all(|byte| (1..128).contains(&byte)) && high.copied().all(|byte| byte == 0)
    };
    is_ascii(0) || is_ascii(1)
}

/// Whether a text begins as HTML pages do.
pub(crate) fn is_html(head: &[u8]) -> bool {
    let text = head.trim_ascii_start();
    let begins =
        |tag: &str| text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag.as_bytes()));
    ["<!doctype html", "<html", "<head", "<?xml"].into_iter().any(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_their_first_bytes() {
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        assert_eq!(FileKind::of(&utf16("{\"text\"")), Some(FileKind::Utf16));
        assert_eq!(FileKind::of(b"\xff\xfea\0"), Some(FileKind::Utf16));
        assert_eq!(FileKind::of(b"\xff\xfe\0\0a\0\0\0"), Some(FileKind::Utf32));
        assert_eq!(FileKind::of(b"BZh91AY&SY..."), Some(FileKind::Bzip2));
        assert_eq!(
            FileKind::of(b"version https://git-lfs.github.com/spec/v1\n"),
            Some(FileKind::GitLfsPointer)
        );
        for text in ["", "a", "{\"text\": 1}", "BZh is no format", "PK", "version 2", "\u{feff}text"] {
            assert_eq!(FileKind::of(text.as_bytes()), None, "{text}");
        }
        assert!(is_html(b"\n <!DOCTYPE HTML><p>") && is_html(b"<html lang='en'>") && !is_html(b"<a>"));
    }
}
