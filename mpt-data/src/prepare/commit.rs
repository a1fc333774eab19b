//! Packs what stays into shards, writes the tables and the tokenizer beside them, and last the manifest.

use std::path::Path;
use std::sync::Mutex;

use mpt_tokenize::Tokenizer;
use rayon::prelude::*;

use super::plan::PlannedRun;
use super::selection::Selection;
use super::unit_file::{PassedRecord, UnitReader};
use super::unit_iter::{UnitItem, UnitIter};
use crate::document_tables::{DocumentRow, DocumentWriter};
use crate::durable;
use crate::error::{Error, Result};
use crate::file_digest::FileDigest;
use crate::hash;
use crate::manifest::{DOCUMENTS, Manifest, ManifestContents, SourceRecord, Split, SplitRecord, TOKENIZER};
use crate::pack::Packer;
use crate::progress::{Phase, Progress, Shared, step};
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
    durable::write_file(&out.join(TOKENIZER), tokenizer.bytes())?;
    let bytes = tokenizer.bytes();
    let copy = FileDigest { name: TOKENIZER.into(), bytes: bytes.len() as u64, sha256: hash::sha256(bytes) };
    let contents = ManifestContents {
        plan: planned.plan.clone(),
        bos_id: planned.special.bos,
        eos_id: planned.special.eos,
        sources,
        dedup: selection.dedup.clone(),
        files: vec![documents, selection.drops.clone(), copy],
        file_table: None,
    };
    Manifest::commit(out, contents)
}

/// An earlier build that was killed may have packed other inputs or settings: its shards are not taken over.
fn remove_earlier(out: &Path) -> Result<()> {
    for split in Split::ALL {
        let dir = out.join(split.name());
        if dir.exists() {
            std::fs::remove_dir_all(&dir).map_err(Error::io(&dir, "removing"))?;
        }
    }
    Ok(())
}

struct CommitPass<'a> {
    planned: &'a PlannedRun<'a>,
    selection: &'a Selection,
    out: &'a Path,
}

/// A document that stays.
struct Kept<'a> {
    id: String,
    text_bytes: u64,
    tokens: u64,
    reader: &'a mut UnitReader,
}

impl CommitPass<'_> {
    /// Packs every split of every source; each is a work of its own, so threads change nothing.
    fn pack_all(&self, progress: &Shared<'_, '_>) -> Result<Vec<SourceRecord>> {
        let sources = self.planned.run.sources.len();
        let parts: Vec<_> = Split::ALL
            .into_iter()
            .flat_map(|split| (0..sources).map(move |source| (split, source)))
            .collect();
        let firsts = self.first_documents(&parts);
        let packed = parts
            .par_iter()
            .zip(firsts)
            .map(|(&(split, source), first)| self.pack(split, source, first, progress));
        let mut packed = packed.collect::<Result<Vec<_>>>()?;
        let eval = packed.split_off(sources);
        let records = packed.into_iter().zip(eval).enumerate().map(|(source, (train, eval))| {
            let (config, counts) = (&self.planned.run.sources[source], &self.selection.sources[source]);
            let (name, proportion) = (config.name.clone(), config.proportion);
            SourceRecord {
                name,
                proportion,
                documents: counts.documents,
                drops: counts.drops.clone(),
                tokens: counts.tokens,
                train,
                eval,
            }
        });
        Ok(records.collect())
    }

    /// The ordinal of the first document of each part: documents are numbered without gaps, part after part.
    fn first_documents(&self, parts: &[(Split, usize)]) -> Vec<u64> {
        let counts =
            parts.iter().map(|&(split, source)| self.selection.sources[source].split(split).documents);
        let next = |sum: &mut u64, count: u64| Some(std::mem::replace(sum, *sum + count));
        counts.scan(0, next).collect()
    }

    fn pack(
        &self,
        split: Split,
        source: usize,
        first: u64,
        progress: &Shared<'_, '_>,
    ) -> Result<SplitRecord> {
        let counts = self.selection.sources[source].split(split);
        let mut shards = RollingShardWriter::new(
            self.out,
            self.planned.plan.part(&self.planned.hash, &self.planned.run.sources[source].name, split),
        );
        let mut packer = Packer::new(self.planned.run.row_tokens);
        let (mut ordinal, mut tokens) = (first, Vec::new());
        self.each_kept(split, source, |kept| {
            tokens.clear();
            tokens.extend(self.planned.special.bos);
            kept.reader.tokens(&mut tokens)?;
            tokens.extend(self.planned.special.eos);
            packer.push(ordinal, &tokens, |row| shards.push(&row))?;
            ordinal += 1;
            step(progress, 1)
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
                self.each_kept(split, source, |kept| {
                    let tokens = kept.tokens + self.planned.special.count();
                    let (id, text_bytes) = (kept.id.as_str(), kept.text_bytes);
                    table.push(&DocumentRow {
                        ordinal,
                        id,
                        source: &config.name,
                        split: split.name(),
                        tokens,
                        text_bytes,
                    })?;
                    ordinal += 1;
                    Ok(())
                })?;
            }
        }
        table.finish()
    }

    /// Goes through the documents of a part, in order.
    fn each_kept(
        &self,
        split: Split,
        source: usize,
        mut each: impl FnMut(Kept<'_>) -> Result<()>,
    ) -> Result<()> {
        let selection = self.selection;
        for (index, (unit, splits)) in self.planned.units.iter().zip(&selection.splits).enumerate() {
            if unit.source != source || !splits.contains(&Some(split)) {
                continue;
            }
            let mut walk = UnitIter::new(&selection.files, index, &selection.fates[index])?;
            while let Some(step) = walk.next()? {
                let UnitItem::Passed(passed) = step else { continue };
                if splits[passed.index] == Some(split) {
                    let PassedRecord { id, text_bytes, tokens, .. } = passed.entry;
                    each(Kept { id, text_bytes, tokens, reader: passed.reader })?;
                }
            }
        }
        Ok(())
    }
}
