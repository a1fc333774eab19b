//! Verification of prepared data: every file and every row.

use std::io;
use std::path::PathBuf;
use std::sync::Mutex;

use rayon::prelude::*;

use super::{Manifest, Split};
use crate::error::{Damage, Error, Result};
use crate::file_digest::{FileDigest, sha256_file};
use crate::layout::{RowBuffers, ShardRecord, length_problem};
use crate::progress::{NoProgress, Phase, Progress, Shared, advance};
use crate::remote;
use crate::shard::ShardReader;

impl Manifest {
    /// Checks every file and every row.
    ///
    /// # Errors
    /// [`Error::Damaged`] lists every damaged file.
    pub fn verify(&self) -> Result<()> {
        let files = self.find_damage(&mut NoProgress)?;
        if files.is_empty() { Ok(()) } else { Err(Error::Damaged { path: self.dir.clone(), files }) }
    }

    /// Checks every file and every row, and returns the damage in the order of the manifest.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be read at all, [`Error::Interrupted`] when `progress` says so.
    pub fn find_damage(&self, progress: &mut dyn Progress) -> Result<Vec<Damage>> {
        let shards: Vec<_> = self.shards().collect();
        let total =
            shards.iter().map(|file| file.bytes).chain(self.other_files().map(|file| file.bytes)).sum();
        progress.start(Phase::Verify, total);
        let shared: Shared<'_, '_> = Mutex::new(&mut *progress);
        let shards =
            shards.par_iter().map(|file| self.shard_damage(file, &shared)).collect::<Result<Vec<_>>>()?;
        let plain: Vec<_> = self.other_files().collect();
        let plain =
            plain.par_iter().map(|file| self.file_damage(file, &shared)).collect::<Result<Vec<_>>>()?;
        progress.finish();
        Ok(shards.into_iter().chain(plain).flatten().collect())
    }

    /// First file, relative to the folder, that is missing or has another length. Nothing is read.
    pub(crate) fn first_incomplete(&self) -> Option<String> {
        let shards = self.shards().map(|file| (&file.path, file.bytes));
        let mut files = shards.chain(self.other_files().map(|file| (&file.name, file.bytes)));
        let is_incomplete = |(name, bytes): &(&String, u64)| {
            let found = self.dir.join(name).metadata();
            !found.is_ok_and(|found| found.is_file() && found.len() == *bytes)
        };
        files.find(is_incomplete).map(|(name, _)| name.clone())
    }

    fn other_files(&self) -> impl Iterator<Item = &FileDigest> {
        self.contents.files.iter().chain(&self.contents.file_table)
    }

    fn shards(&self) -> impl Iterator<Item = &ShardRecord> {
        Split::ALL
            .into_iter()
            .flat_map(|split| self.sources().iter().flat_map(move |source| &source.split(split).files))
    }

    /// Damaged rows of a shard, or else the damage of the whole file.
    fn shard_damage(&self, file: &ShardRecord, progress: &Shared<'_, '_>) -> Result<Vec<Damage>> {
        if remote::is_remote(&self.dir) {
            return remote::shard_damage(&self.dir.join(&file.path), file, self.layout(), |bytes| {
                advance(progress, bytes)
            });
        }
        let damage =
            |row, problem: &str| Damage { path: PathBuf::from(&file.path), row, problem: problem.to_owned() };
        let reader = match ShardReader::open(&self.dir, file, self.layout()) {
            Ok(reader) => reader,
            Err(Error::Shard(damage)) => return Ok(vec![damage]),
            Err(error) => return Err(error),
        };
        let (mut found, mut scratch) = (Vec::new(), RowBuffers::default());
        for row in 0..file.rows {
            match reader.rows(row, 1, &mut scratch, |_| ()) {
                Ok(()) => {}
                Err(Error::Shard(damage)) => found.push(damage),
                Err(error) => return Err(error),
            }
        }
        let (sha256, _) = sha256_file(&self.dir.join(&file.path), |bytes| advance(progress, bytes))?;
        if sha256 != file.sha256 && found.is_empty() {
            found.push(damage(None, "every row is sound, but the file is not as it was written (Parquet headers or footer); restore it, or remove it and run the same build again"));
        }
        Ok(found)
    }

    fn file_damage(&self, file: &FileDigest, progress: &Shared<'_, '_>) -> Result<Vec<Damage>> {
        let path = self.dir.join(&file.name);
        let damage = |problem: String| vec![Damage { path: PathBuf::from(&file.name), row: None, problem }];
        match sha256_file(&path, |bytes| advance(progress, bytes)) {
            Ok((_, bytes)) if bytes != file.bytes => Ok(damage(length_problem(bytes, file.bytes))),
            Ok((sha256, _)) if sha256 == file.sha256 => Ok(Vec::new()),
            Ok(_) => Ok(damage(
                "is not as it was written; restore it, or remove it and run the same build again".into(),
            )),
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(damage("is missing; restore it, or run the same build again".into()))
            }
            Err(error) => Err(error),
        }
    }
}
