//! Semantic deduplication: each document that no earlier stage dropped becomes a vector, and the vectors are compared.
//!
//! All vectors are in memory at once: `4 · dimension + 32` bytes a document.

use std::path::{Path, PathBuf};

use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::plan::PlannedRun;
use super::unit_file;
use super::unit_iter::{Candidate, DedupOutcomes, Duplicate, UnitIter, UnitPaths};
use super::vector_file::{VectorWriter, read_vectors};
use crate::dedup::{DedupKind, Embedder, Embeddings, SemDedup, semantic_duplicates};
use crate::error::{Error, Result};
use crate::hash;
use crate::progress::{Phase, Progress};

/// Pass over all units.
pub(super) struct SemanticPass<'a> {
    pub(super) planned: &'a PlannedRun<'a>,
    pub(super) settings: &'a SemDedup,
    pub(super) paths: &'a UnitPaths,
    /// Folder of the vector files.
    pub(super) dir: &'a Path,
}

impl SemanticPass<'_> {
    /// Drops the documents nearest in meaning to others, and returns the smallest cosine of a dropped one.
    pub(super) fn run(
        &self,
        outcomes: &mut DedupOutcomes,
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
            let path = self.vector_path(unit, outcomes, &fingerprint);
            if !unit_file::is_complete(&path)? {
                self.embed(unit, outcomes, &path, embedder, progress)?;
            }
            self.collect(unit, outcomes, &path, &mut vectors, &mut candidates)?;
            progress.advance(1);
        }
        progress.finish();
        if !progress.keep_going() {
            return Err(Error::Interrupted);
        }
        let duplicates = semantic_duplicates(&vectors, self.settings);
        for found in &duplicates {
            let neighbor = candidates[found.to as usize].location;
            let duplicate = Duplicate::Semantic(neighbor, found.cosine as f32);
            candidates[found.document as usize].drop_as(duplicate, outcomes);
        }
        Ok(duplicates.last().map(|last| last.cosine))
    }

    /// Collects the vectors and the documents of a unit, one for one.
    fn collect(
        &self,
        unit: usize,
        outcomes: &DedupOutcomes,
        path: &Path,
        vectors: &mut Embeddings,
        candidates: &mut Vec<Candidate>,
    ) -> Result<()> {
        let first = vectors.len();
        read_vectors(path, vectors)?;
        UnitIter::new(self.paths, unit, &outcomes[unit])?.for_each_kept(|document| {
            candidates.push(document.candidate());
            Ok(())
        })?;
        if candidates.len() == vectors.len() {
            return Ok(());
        }
        let problem = format!("{} vectors for other documents", vectors.len() - first);
        Err(Error::Unit { path: path.to_owned(), problem })
    }

    /// Path of a unit's vectors, named after everything that decides them.
    fn vector_path(&self, unit: usize, outcomes: &DedupOutcomes, fingerprint: &str) -> PathBuf {
        let stay: Vec<u8> = outcomes[unit]
            .iter()
            .map(|outcome| u8::from(outcome.duplicate.is_none()) + 2 * u8::from(outcome.is_edited))
            .collect();
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let decides = json!([
            "vectors",
            fingerprint,
            self.settings.tokens,
            self.planned.units[unit].name,
            self.paths.edits[unit].as_deref().and_then(name),
            xxh3_64(&stay),
        ]);
        self.dir.join(format!("{}.vectors", &hash::sha256(decides.to_string().as_bytes())[..32]))
    }

    /// Writes the vectors of a unit's documents.
    fn embed(
        &self,
        unit: usize,
        outcomes: &DedupOutcomes,
        path: &Path,
        embedder: &mut dyn Embedder,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let (mut file, mut tokens) = (VectorWriter::create(path)?, Vec::new());
        UnitIter::new(self.paths, unit, &outcomes[unit])?.for_each_kept(|document| {
            tokens.clear();
            document.reader.tokens(&mut tokens)?;
            tokens.truncate(self.settings.tokens);
            let failed =
                |problem: String, source| Error::Embedder { id: document.header.id.clone(), problem, source };
            let vector = embedder.embed(&tokens).map_err(|error| failed(error.to_string(), Some(error)))?;
            if !file.fits(&vector) {
                let problem = "its vector has no direction, or another dimension than others";
                return Err(failed(problem.into(), None));
            }
            file.push(&vector)?;
            if progress.keep_going() { Ok(()) } else { Err(Error::Interrupted) }
        })?;
        file.finish()
    }
}
