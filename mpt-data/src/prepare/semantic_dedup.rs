//! The pass that drops documents for their meaning: each that stayed so far becomes a vector, and the vectors are compared.
//!
//! The vectors of a unit are a file, named after everything that decides them: `"mptembd1"`, u32 dimension, f32 values, u64
//! XXH3-64 of all before. All vectors are held at once: `4 · dimension + 32` bytes a document.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::exact_dedup::DedupOutcomes;
use super::plan::PlannedRun;
use super::unit_file;
use super::unit_iter::{Duplicate, RecordLocation, UnitItem, UnitIter, UnitPaths};
use crate::dedup::{DedupKind, Embedder, Embeddings, SemDedup, semantic_duplicates};
use crate::durable::AtomicFile;
use crate::error::{Error, Result};
use crate::hash;
use crate::progress::{Phase, Progress};

const MAGIC: &[u8; 8] = b"mptembd1";
const HEAD_BYTES: usize = 12;

/// The pass over all units.
pub(super) struct SemanticPass<'a> {
    pub(super) planned: &'a PlannedRun<'a>,
    pub(super) settings: &'a SemDedup,
    pub(super) files: &'a UnitPaths,
    pub(super) dir: &'a Path,
}

/// A document that takes part.
struct Candidate {
    place: RecordLocation,
    /// Which of its unit's.
    index: u32,
}

impl SemanticPass<'_> {
    /// Marks the documents that go, and says the cosine of the last of them.
    pub(super) fn run(
        &self,
        fates: &mut DedupOutcomes,
        embedder: &mut dyn Embedder,
        progress: &mut dyn Progress,
    ) -> Result<Option<f64>> {
        let fingerprint = embedder.fingerprint();
        let (mut vectors, mut candidates) = (Embeddings::default(), Vec::new());
        let units = (0..self.planned.units.len()).filter(|&unit| {
            self.planned.run.goes_through(self.planned.units[unit].source, DedupKind::SemDedup)
        });
        progress.start(Phase::Embed, self.planned.units.len() as u64);
        for unit in units {
            let path = self.path(unit, fates, &fingerprint);
            if !unit_file::is_whole(&path)? {
                self.embed(unit, fates, &path, embedder, progress)?;
            }
            let first = vectors.len();
            read(&path, &mut vectors)?;
            self.collect(unit, fates, &mut candidates)?;
            if candidates.len() != vectors.len() {
                let problem = format!("{} vectors for other documents", vectors.len() - first);
                return Err(Error::Unit { path, problem });
            }
            progress.advance(1);
        }
        progress.finish();
        if !progress.keep_going() {
            return Err(Error::Interrupted);
        }
        let copies = semantic_duplicates(&vectors, self.settings);
        for found in &copies {
            let (document, to) = (&candidates[found.document as usize], &candidates[found.to as usize]);
            let gone = Duplicate::Semantic(to.place, found.cosine as f32);
            fates[document.place.unit as usize][document.index as usize].gone = Some(gone);
        }
        Ok(copies.last().map(|last| last.cosine))
    }

    /// Where the vectors of a unit are.
    fn path(&self, unit: usize, fates: &DedupOutcomes, fingerprint: &str) -> PathBuf {
        let stay: Vec<u8> = fates[unit]
            .iter()
            .map(|fate| u8::from(fate.gone.is_none()) + 2 * u8::from(fate.is_edited))
            .collect();
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let decides = json!([
            "vectors",
            fingerprint,
            self.settings.tokens,
            self.planned.units[unit].name,
            self.files.edits[unit].as_deref().and_then(name),
            xxh3_64(&stay),
        ]);
        self.dir.join(format!("{}.vectors", &hash::sha256(decides.to_string().as_bytes())[..32]))
    }

    fn embed(
        &self,
        unit: usize,
        fates: &DedupOutcomes,
        path: &Path,
        embedder: &mut dyn Embedder,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let mut file = ChecksummedFile::create(path)?;
        let mut walk = UnitIter::new(self.files, unit, &fates[unit])?;
        let (mut tokens, mut dim) = (Vec::new(), None);
        while let Some(step) = walk.next()? {
            let UnitItem::Passed(passed) = step else { continue };
            if fates[unit][passed.index].gone.is_some() {
                continue;
            }
            tokens.clear();
            passed.reader.tokens(&mut tokens)?;
            tokens.truncate(self.settings.tokens);
            let failed = |problem: String| Error::Embedder { id: passed.entry.id.clone(), problem };
            let vector = embedder.embed(&tokens).map_err(|error| failed(error.to_string()))?;
            if !Embeddings::default().push(&vector) || dim.is_some_and(|dim| dim != vector.len()) {
                return Err(failed("its vector has no direction, or another dimension than others".into()));
            }
            if dim.is_none() {
                file.write(MAGIC)?;
                file.write(&u32::try_from(vector.len()).unwrap_or(u32::MAX).to_le_bytes())?;
                dim = Some(vector.len());
            }
            file.write(&vector.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())?;
            if !progress.keep_going() {
                return Err(Error::Interrupted);
            }
        }
        file.finish()
    }

    fn collect(&self, unit: usize, fates: &DedupOutcomes, candidates: &mut Vec<Candidate>) -> Result<()> {
        let mut walk = UnitIter::new(self.files, unit, &fates[unit])?;
        while let Some(step) = walk.next()? {
            let UnitItem::Passed(passed) = step else { continue };
            if fates[unit][passed.index].gone.is_none() {
                let index = u32::try_from(passed.index).expect("documents of a unit are fewer than 2^32");
                candidates.push(Candidate { place: passed.place, index });
            }
        }
        Ok(())
    }
}

/// A file that ends with its checksum.
struct ChecksummedFile<'a> {
    path: &'a Path,
    file: AtomicFile,
    hash: Xxh3,
}

impl<'a> ChecksummedFile<'a> {
    fn create(path: &'a Path) -> Result<Self> {
        Ok(Self { path, file: AtomicFile::create(path)?, hash: Xxh3::new() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.file.write_all(bytes).map_err(Error::io(self.path, "writing"))
    }

    fn finish(mut self) -> Result<()> {
        let sum = self.hash.digest().to_le_bytes();
        self.file.write_all(&sum).map_err(Error::io(self.path, "writing"))?;
        self.file.commit()
    }
}

/// Takes in the vectors of a file; one without documents is a checksum alone.
fn read(path: &Path, vectors: &mut Embeddings) -> Result<()> {
    let bytes = fs::read(path).map_err(Error::io(path, "reading"))?;
    let content = &bytes[..bytes.len().saturating_sub(8)];
    if content.is_empty() {
        return Ok(());
    }
    let damaged = || Error::Unit { path: path.to_owned(), problem: "not vectors of this version".into() };
    let dim = content.get(..HEAD_BYTES).filter(|head| head.starts_with(MAGIC)).ok_or_else(damaged)?;
    let dim = u32::from_le_bytes(dim[8..].try_into().expect("4 bytes")) as usize;
    for vector in content[HEAD_BYTES..].chunks(4 * dim.max(1)) {
        let values =
            vector.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().expect("4 bytes")));
        if !vectors.push(&values.collect::<Vec<_>>()) {
            return Err(damaged());
        }
    }
    Ok(())
}
