//! Commit: packs the selected documents into shards, writes the tables and the tokenizer beside them, and last the manifest.

use std::path::Path;
use std::sync::Mutex;

use mpt_tokenize::Tokenizer;
use rayon::prelude::*;

use super::plan::PlannedRun;
use super::selection::Selection;
use super::unit::UnitRecord;
use super::unit_iter::{PassedDocument, UnitIter};
use crate::document_tables::{DocumentRow, DocumentWriter};
use crate::durable;
use crate::error::{Error, Result};
use crate::file_digest::FileDigest;
use crate::hash;
use crate::manifest::{DOCUMENTS, Manifest, ManifestContents, SourceRecord, Split, SplitRecord, TOKENIZER};
use crate::pack::Packer;
use crate::progress::{Phase, Progress, Shared, advance};
use crate::shard::RollingShardWriter;

/// Completes the folder `out`.
pub(super) fn commit(
    planned: &PlannedRun<'_>,
    selection: &Selection,
    out: &Path,
    tokenizer: &Tokenizer,
    progress: &mut dyn Progress,
) -> Result<Manifest> {
    remove_earlier(out)?;
    let pass = CommitPass { planned, selection, out };
    let kept = selection.sources.iter().map(|counts| counts.train.documents + counts.eval.documents).sum();
    progress.start(Phase::Pack, kept);
    let shared = Mutex::new(&mut *progress);
    let (sources, documents) = rayon::join(|| pass.pack_all(&shared), || pass.list_documents());
    let (sources, documents) = (sources?, documents?);
    progress.finish();
    durable::write_file(&out.join(TOKENIZER), tokenizer.json_bytes())?;
    let bytes = tokenizer.json_bytes();
    let copy = FileDigest { name: TOKENIZER.into(), bytes: bytes.len() as u64, sha256: hash::sha256(bytes) };
    let contents = ManifestContents {
        plan: planned.plan.clone(),
        bos_id: planned.boundary_ids.bos,
        eos_id: planned.boundary_ids.eos,
        sources,
        dedup: selection.dedup.clone(),
        files: vec![documents, selection.drops.clone(), copy],
        file_table: None,
    };
    Manifest::commit(out, contents)
}

/// Removes the shards of an earlier build that was killed: it may have packed other inputs or settings.
fn remove_earlier(out: &Path) -> Result<()> {
    for split in Split::ALL {
        let dir = out.join(split.name());
        if dir.exists() {
            std::fs::remove_dir_all(&dir).map_err(Error::io(&dir, "removing"))?;
        }
    }
    Ok(())
}

/// Pass over the selected documents.
struct CommitPass<'a> {
    planned: &'a PlannedRun<'a>,
    selection: &'a Selection,
    out: &'a Path,
}

impl CommitPass<'_> {
    /// Packs every split of every source. Each is independent of the others, so threads change nothing.
    fn pack_all(&self, progress: &Shared<'_, '_>) -> Result<Vec<SourceRecord>> {
        let sources = self.planned.run.sources.len();
        let of_split = |split| (0..sources).map(move |source| (split, source));
        let source_splits: Vec<_> = Split::ALL.into_iter().flat_map(of_split).collect();
        let packed = source_splits
            .par_iter()
            .zip(self.first_ordinals(&source_splits))
            .map(|(&(split, source), first)| self.pack(split, source, first, progress));
        let mut train = packed.collect::<Result<Vec<_>>>()?;
        let eval = train.split_off(sources);
        let records = train.into_iter().zip(eval).enumerate();
        Ok(records.map(|(source, (train, eval))| self.source_record(source, train, eval)).collect())
    }

    fn source_record(&self, source: usize, train: SplitRecord, eval: SplitRecord) -> SourceRecord {
        let (config, counts) = (&self.planned.run.sources[source], &self.selection.sources[source]);
        SourceRecord {
            name: config.name.clone(),
            proportion: config.proportion,
            documents: counts.documents,
            drops: counts.drops.clone(),
            tokens: counts.tokens,
            train,
            eval,
        }
    }

    /// Ordinal of the first document of each split of a source; ordinals have no gaps.
    fn first_ordinals(&self, source_splits: &[(Split, usize)]) -> Vec<u64> {
        let counts =
            |&(split, source): &(Split, usize)| self.selection.sources[source].split(split).documents;
        let next = |sum: &mut u64, count: u64| Some(std::mem::replace(sum, *sum + count));
        source_splits.iter().map(counts).scan(0, next).collect()
    }

    fn pack(
        &self,
        split: Split,
        source: usize,
        first: u64,
        progress: &Shared<'_, '_>,
    ) -> Result<SplitRecord> {
        let counts = self.selection.sources[source].split(split);
        let name = &self.planned.run.sources[source].name;
        let metadata = self.planned.plan.shard_metadata(&self.planned.hash, name, split);
        let mut shards = RollingShardWriter::new(self.out, metadata);
        let mut packer = Packer::new(self.planned.run.row_tokens);
        let (mut ordinal, mut tokens) = (first, Vec::new());
        self.for_each_selected(split, source, |document| {
            tokens.clear();
            tokens.extend(self.planned.boundary_ids.bos);
            document.reader.tokens(&mut tokens)?;
            tokens.extend(self.planned.boundary_ids.eos);
            packer.push(ordinal, &tokens, |row| shards.push(&row))?;
            ordinal += 1;
            advance(progress, 1)
        })?;
        let files = shards.finish()?;
        Ok(SplitRecord {
            documents: counts.documents,
            first_document: first,
            text_bytes: counts.text_bytes,
            tokens: counts.tokens,
            rows: files.iter().map(|file| file.rows).sum(),
            tail_tokens: packer.tail().len() as u64,
            files,
        })
    }

    /// Writes the table of documents, in the order of their ordinals.
    fn list_documents(&self) -> Result<FileDigest> {
        let mut table = DocumentWriter::create(self.out, DOCUMENTS)?;
        let mut ordinal = 0;
        for split in Split::ALL {
            for (source, config) in self.planned.run.sources.iter().enumerate() {
                self.for_each_selected(split, source, |document| {
                    let header = &document.header;
                    table.push(&DocumentRow {
                        ordinal,
                        id: &header.id,
                        source: &config.name,
                        split: split.name(),
                        tokens: header.tokens + self.planned.boundary_ids.count(),
                        text_bytes: header.text_bytes,
                    })?;
                    ordinal += 1;
                    Ok(())
                })?;
            }
        }
        table.finish()
    }

    /// Calls `on_document` with the selected documents of a split of a source, in order.
    fn for_each_selected(
        &self,
        split: Split,
        source: usize,
        mut on_document: impl FnMut(PassedDocument<'_>) -> Result<()>,
    ) -> Result<()> {
        let selection = self.selection;
        for (index, (unit, splits)) in self.planned.units.iter().zip(&selection.splits).enumerate() {
            if unit.source != source || !splits.contains(&Some(split)) {
                continue;
            }
            let mut documents = UnitIter::new(&selection.paths, index, &selection.outcomes[index])?;
            while let Some(record) = documents.next()? {
                let UnitRecord::Passed(document) = record else { continue };
                if splits[document.index] == Some(split) {
                    on_document(document)?;
                }
            }
        }
        Ok(())
    }
}
