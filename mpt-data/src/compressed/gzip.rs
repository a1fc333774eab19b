//! Gzip files of several members, with zero bytes after the last, as `gzip -dc` reads them.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// Reader of all members of a gzip file.
pub(crate) struct GzipMembers<R> {
    /// Current member; `None` after the last.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> GzipMembers<R> {
    /// Reader before the first member.
    pub(crate) fn new(file: R) -> Self {
        Self { member: Some(GzDecoder::new(file)) }
    }
}

impl<R: BufRead> Read for GzipMembers<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = self.member.as_mut().filter(|_| !buffer.is_empty()) {
            match member.read(buffer)? {
                0 => self.next_member()?,
                count => return Ok(count),
            }
        }
        Ok(0)
    }
}

impl<R: BufRead> GzipMembers<R> {
    fn next_member(&mut self) -> io::Result<()> {
        let Some(mut file) = self.member.take().map(GzDecoder::into_inner) else { return Ok(()) };
        if skip_zeros(&mut file)? {
            self.member = Some(GzDecoder::new(file));
        }
        Ok(())
    }
}

/// Skips zero bytes, which tapes and block devices leave, and returns whether more bytes follow.
fn skip_zeros(file: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let ahead = file.fill_buf()?;
        if ahead.is_empty() {
            return Ok(false);
        }
        let zeros = ahead.iter().take_while(|&&byte| byte == 0).count();
        let is_all = zeros == ahead.len();
        file.consume(zeros);
        if !is_all {
            return Ok(true);
        }
    }
}
