//! One file after the other: continued where it broke off, checked against its hash, and only then given its name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use mpt_data::durable;
use ureq::Body;
use ureq::http::Response;

use crate::exit::CliError;
use crate::hub::client::{Client, broken, header};
use crate::hub::digest::{CHUNK_BYTES, Digest, Hasher};
use crate::hub::disk;
use crate::hub::listing::RemoteFile;
use crate::hub::retry::{Failure, Retries, go_on};
use crate::tui::Bar;

/// How often a file may arrive with wrong bytes.
const MAX_WRONG: u32 = 3;

/// All downloads of one command, with their common progress.
pub(crate) struct Transfer<'a> {
    client: &'a Client<'a>,
    commit: &'a str,
    bar: Bar,
    /// Bytes of the files that are there.
    done: u64,
    /// How many files were downloaded.
    downloaded: usize,
}

impl<'a> Transfer<'a> {
    /// Nothing downloaded yet.
    pub(crate) fn new(client: &'a Client<'a>, commit: &'a str, bar: Bar) -> Self {
        Self { client, commit, bar, done: 0, downloaded: 0 }
    }

    /// A file of `size` bytes was there already.
    pub(crate) fn skip(&mut self, size: u64) {
        self.done += size;
        self.bar.resume_at(self.done);
    }

    /// All of `files` files are there.
    pub(crate) fn finish(mut self, files: usize) {
        self.bar.note(format!("{} of {files} files downloaded", self.downloaded));
        self.bar.finish();
    }

    /// Downloads a file by way of `partial`, which may hold its beginning, to `target`.
    ///
    /// # Errors
    /// Exit status 3 where the bytes stay wrong, 4 for network and disk, 130 when told to stop.
    pub(crate) fn download(
        &mut self,
        file: &RemoteFile,
        partial: &Path,
        target: &Path,
    ) -> Result<(), CliError> {
        self.bar.note(file.name.as_str());
        let mut partial = Partial::open(partial, file, self.client)?;
        self.bar.resume_at(self.done + partial.len);
        self.complete(file, &mut partial)?;
        durable::commit_file(&partial.path, target).map_err(disk::durable)?;
        self.done += file.size;
        self.downloaded += 1;
        Ok(())
    }

    fn complete(&mut self, file: &RemoteFile, partial: &mut Partial) -> Result<(), CliError> {
        let mut retries = Retries::new(self.client.log(), self.client.stop());
        let (mut best, mut wrong) = (partial.len, 0);
        loop {
            match self.attempt(file, partial) {
                Ok(()) if partial.is_right() => return Ok(()),
                Ok(()) => {
                    wrong += 1;
                    self.reject(file, partial, wrong)?;
                    best = 0;
                }
                Err(failure) => {
                    if partial.len > best {
                        best = partial.len;
                        retries.reset();
                    }
                    retries.wait(failure)?;
                }
            }
        }
    }

    /// Drops bytes that are not those the hub promised; too often is once too many.
    fn reject(&self, file: &RemoteFile, partial: &mut Partial, wrong: u32) -> Result<(), CliError> {
        let what = partial.fault();
        partial.clear()?;
        if wrong < MAX_WRONG {
            self.client.log().warn(format_args!("{}: {what}; downloading it again", file.name));
            return Ok(());
        }
        fs::remove_file(&partial.path).map_err(|error| disk::error(&partial.path, error))?;
        Err(CliError::data(format!("{}: {what}, {MAX_WRONG} times", file.name)).help(
            "something between here and the hub changes the file; check HF_ENDPOINT and the proxy settings",
        ))
    }

    /// One request for what is missing, or none if nothing is.
    fn attempt(&mut self, file: &RemoteFile, partial: &mut Partial) -> Result<(), Failure> {
        if partial.len == file.size {
            return Ok(());
        }
        let response = self.client.file(self.commit, &file.name, partial.len)?;
        match response.status().as_u16() {
            206 if starts_at(&response, partial.len) => {}
            200 => partial.clear()?,
            _ => {
                partial.clear()?;
                let error = CliError::system(format!("{}: the server cannot continue the file", file.name))
                    .help("run the same command again");
                return Err(Failure::Passing(error, None));
            }
        }
        self.copy(file, partial, response)
    }

    /// Takes bytes until the answer ends or is longer than the file should be.
    fn copy(
        &mut self,
        file: &RemoteFile,
        partial: &mut Partial,
        response: Response<Body>,
    ) -> Result<(), Failure> {
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; CHUNK_BYTES];
        while partial.len <= file.size {
            go_on(self.client.stop())?;
            let n = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken(&file.name, error.into())),
            };
            partial.push(&buffer[..n])?;
            self.bar.set(self.done + partial.len.min(file.size));
        }
        if partial.len < file.size {
            let error = CliError::system(format!(
                "{}: the connection ended after {} of {} bytes",
                file.name, partial.len, file.size
            ))
            .help("run the same command again to continue");
            return Err(Failure::Passing(error, None));
        }
        Ok(())
    }
}

/// Whether an answer holds the file from byte `from` on.
fn starts_at(response: &Response<Body>, from: u64) -> bool {
    let range = header(response, "content-range").and_then(|range| range.strip_prefix("bytes "));
    range.and_then(|range| range.split_once('-')).is_some_and(|(start, _)| start.parse() == Ok(from))
}

/// The beginning of a file, and the hash of what is there.
struct Partial {
    path: PathBuf,
    file: File,
    size: u64,
    digest: Digest,
    len: u64,
    hasher: Hasher,
}

impl Partial {
    /// What an earlier run left at `path`, or an empty file.
    fn open(path: &Path, remote: &RemoteFile, client: &Client<'_>) -> Result<Self, CliError> {
        let io = |error| disk::error(path, error);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        let (digest, size) = (remote.digest.clone(), remote.size);
        let hasher = digest.hasher(size);
        let mut partial = Self { path: path.to_owned(), file, size, digest, len, hasher };
        if len > size {
            partial.clear()?;
        }
        let keep_going = || go_on(client.stop()).is_ok();
        partial.hasher.read((&partial.file).take(partial.len), keep_going).map_err(io)?;
        go_on(client.stop())?;
        Ok(partial)
    }

    /// Starts again.
    fn clear(&mut self) -> Result<(), CliError> {
        if self.len == 0 {
            return Ok(());
        }
        let cleared = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        cleared.map_err(|error| disk::error(&self.path, error))?;
        self.len = 0;
        self.hasher = self.digest.hasher(self.size);
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.file.write_all(bytes).map_err(|error| disk::error(&self.path, error))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn is_right(&self) -> bool {
        self.len == self.size && self.hasher.finish() == self.digest
    }

    /// In which way the bytes are not those promised.
    fn fault(&self) -> String {
        if self.len > self.size {
            return format!("more than the {} bytes it should have", self.size);
        }
        format!("its hash is {}, expected {}", self.hasher.finish().hex(), self.digest.hex())
    }
}
