//! Downloads, file by file. A file is resumed where it broke off, verified, and then given its final name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use mpt_data::durable;
use ureq::Body;
use ureq::http::Response;

use crate::exit::CliError;
use crate::hub::client::{Client, connection_error, header};
use crate::hub::digest::{CHUNK_BYTES, Digest, Hasher};
use crate::hub::disk;
use crate::hub::listing::RemoteFile;
use crate::hub::retry::{Failure, Retries, check_interrupt};
use crate::progress::ProgressBar;

/// Maximum number of corrupt downloads of a file.
const MAX_CORRUPT_DOWNLOADS: u32 = 3;

/// Downloads of one command, with a common progress bar.
pub(crate) struct Downloader<'a> {
    client: &'a Client<'a>,
    commit: &'a str,
    bar: ProgressBar,
    /// Bytes of the complete files.
    done: u64,
    /// Number of downloaded files.
    downloaded: usize,
}

impl<'a> Downloader<'a> {
    /// Downloader of the files of `commit`.
    pub(crate) fn new(client: &'a Client<'a>, commit: &'a str, bar: ProgressBar) -> Self {
        Self { client, commit, bar, done: 0, downloaded: 0 }
    }

    /// Counts a file of `size` bytes that exists already.
    pub(crate) fn skip(&mut self, size: u64) {
        self.done += size;
        self.bar.resume_at(self.done);
    }

    /// Ends the progress bar: all `files` files are complete.
    pub(crate) fn finish(mut self, files: usize) {
        self.bar.note(format!("{} of {files} files downloaded", self.downloaded));
        self.bar.finish();
    }

    /// Downloads a file to `target`. `incomplete` may hold its beginning and takes the bytes on their way.
    ///
    /// # Errors
    /// Exit status 3 for a file that is corrupt again and again, 4 for network and disk, 130 after an interrupt.
    pub(crate) fn download(
        &mut self,
        file: &RemoteFile,
        incomplete: &Path,
        target: &Path,
    ) -> Result<(), CliError> {
        self.bar.note(file.name.as_str());
        let mut incomplete = IncompleteFile::open(incomplete, file, self.client)?;
        self.bar.resume_at(self.done + incomplete.len);
        self.download_with_retries(file, &mut incomplete)?;
        durable::commit_file(&incomplete.path, target).map_err(disk::durable_error)?;
        self.done += file.size;
        self.downloaded += 1;
        Ok(())
    }

    fn download_with_retries(
        &mut self,
        file: &RemoteFile,
        incomplete: &mut IncompleteFile,
    ) -> Result<(), CliError> {
        let mut retries = Retries::new(self.client.log(), self.client.stop());
        let (mut longest, mut corrupt) = (incomplete.len, 0);
        loop {
            match self.download_once(file, incomplete) {
                Ok(()) if incomplete.is_valid() => return Ok(()),
                Ok(()) => {
                    corrupt += 1;
                    self.discard_corrupt(file, incomplete, corrupt)?;
                    longest = 0;
                }
                Err(failure) => {
                    if incomplete.len > longest {
                        longest = incomplete.len;
                        retries.reset();
                    }
                    retries.wait(failure)?;
                }
            }
        }
    }

    /// Discards the bytes of a corrupt download, and fails after [`MAX_CORRUPT_DOWNLOADS`] of them.
    fn discard_corrupt(
        &self,
        file: &RemoteFile,
        incomplete: &mut IncompleteFile,
        corrupt: u32,
    ) -> Result<(), CliError> {
        let what = incomplete.mismatch();
        incomplete.truncate()?;
        if corrupt < MAX_CORRUPT_DOWNLOADS {
            self.client.log().warn(format_args!("{}: {what}; downloading it again", file.name));
            return Ok(());
        }
        fs::remove_file(&incomplete.path).map_err(|error| disk::io_error(&incomplete.path, error))?;
        Err(CliError::data(format!("{}: {what}, {MAX_CORRUPT_DOWNLOADS} times", file.name)).help(
            "something between here and the hub changes the file; check HF_ENDPOINT and the proxy settings",
        ))
    }

    /// Requests the missing bytes; sends nothing if there are none.
    fn download_once(&mut self, file: &RemoteFile, incomplete: &mut IncompleteFile) -> Result<(), Failure> {
        if incomplete.len == file.size {
            return Ok(());
        }
        let response = self.client.get_file(self.commit, &file.name, incomplete.len)?;
        match response.status().as_u16() {
            206 if is_range_from(&response, incomplete.len) => {}
            200 => incomplete.truncate()?,
            _ => {
                incomplete.truncate()?;
                let error = CliError::system(format!("{}: the server cannot continue the file", file.name))
                    .help("run the same command again");
                return Err(Failure::Transient(error, None));
            }
        }
        self.append_body(file, incomplete, response)
    }

    /// Appends the body of a response, up to its end or the first bytes beyond the file's size.
    fn append_body(
        &mut self,
        file: &RemoteFile,
        incomplete: &mut IncompleteFile,
        response: Response<Body>,
    ) -> Result<(), Failure> {
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; CHUNK_BYTES];
        while incomplete.len <= file.size {
            check_interrupt(self.client.stop())?;
            let n = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(connection_error(&file.name, error.into())),
            };
            incomplete.append(&buffer[..n])?;
            self.bar.set(self.done + incomplete.len.min(file.size));
        }
        if incomplete.len < file.size {
            let error = CliError::system(format!(
                "{}: the connection ended after {} of {} bytes",
                file.name, incomplete.len, file.size
            ))
            .help("run the same command again to continue");
            return Err(Failure::Transient(error, None));
        }
        Ok(())
    }
}

/// Whether a response is the file's range from byte `from` on.
fn is_range_from(response: &Response<Body>, from: u64) -> bool {
    let range = header(response, "content-range").and_then(|range| range.strip_prefix("bytes "));
    range.and_then(|range| range.split_once('-')).is_some_and(|(start, _)| start.parse() == Ok(from))
}

/// Incomplete file on disk, with the hash of its bytes.
struct IncompleteFile {
    path: PathBuf,
    file: File,
    size: u64,
    digest: Digest,
    len: u64,
    hasher: Hasher,
}

impl IncompleteFile {
    /// Opens the file that an earlier run left at `path`, or an empty one.
    fn open(path: &Path, remote: &RemoteFile, client: &Client<'_>) -> Result<Self, CliError> {
        let io = |error| disk::io_error(path, error);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        let (digest, size) = (remote.digest.clone(), remote.size);
        let hasher = digest.hasher(size);
        let mut incomplete = Self { path: path.to_owned(), file, size, digest, len, hasher };
        if len > size {
            incomplete.truncate()?;
        }
        let keep_going = || check_interrupt(client.stop()).is_ok();
        incomplete.hasher.read((&incomplete.file).take(incomplete.len), keep_going).map_err(io)?;
        check_interrupt(client.stop())?;
        Ok(incomplete)
    }

    /// Discards the bytes.
    fn truncate(&mut self) -> Result<(), CliError> {
        if self.len == 0 {
            return Ok(());
        }
        let cleared = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        cleared.map_err(|error| disk::io_error(&self.path, error))?;
        self.len = 0;
        self.hasher = self.digest.hasher(self.size);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.file.write_all(bytes).map_err(|error| disk::io_error(&self.path, error))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn is_valid(&self) -> bool {
        self.len == self.size && self.hasher.finish() == self.digest
    }

    /// Description of the first mismatch: the size, else the digest.
    fn mismatch(&self) -> String {
        if self.len > self.size {
            return format!("more than the {} bytes it should have", self.size);
        }
        format!("its hash is {}, expected {}", self.hasher.finish().hex(), self.digest.hex())
    }
}
