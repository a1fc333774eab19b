//! Plan of a run: its inputs, everything that decides the output, and the work units.

use std::collections::HashSet;
use std::path::Path;

use mpt_tokenize::Tokenizer;
use rayon::prelude::*;

use super::find_files::find_files;
use super::inputs::{check_lists, hash_inputs, hash_lists};
use super::sketch::Sketcher;
use super::unit::{InputFile, Unit};
use super::unit_file;
use super::unit_split::split_into_units;
use crate::config::PrepareRun;
use crate::error::{Error, Result};
use crate::file_digest::FileDigest;
use crate::filter::{Filter, FilterChain};
use crate::hash;
use crate::layout::RowLayout;
use crate::manifest::{FORMAT, Plan, SourcePlan};
use crate::progress::{Note, Progress};

/// Run whose inputs are known.
#[derive(Debug)]
pub(crate) struct PlannedRun<'a> {
    /// Run as asked for.
    pub(crate) run: &'a PrepareRun,
    /// Everything that decides the output.
    pub(crate) plan: Plan,
    /// Hash of the plan.
    pub(crate) hash: String,
    /// Sizes of a row.
    pub(crate) layout: RowLayout,
    /// Tokens around documents.
    pub(crate) boundary_ids: BoundaryIds,
    /// Filter chain of each source, with its files loaded.
    pub(crate) filters: Vec<FilterChain>,
    /// Sketcher of each source.
    pub(crate) sketchers: Vec<Sketcher>,
    /// Units, in the order of sources and files.
    pub(crate) units: Vec<Unit>,
}

/// Ids of the tokens around each document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BoundaryIds {
    /// Token before each document.
    pub(crate) bos: Option<u32>,
    /// Token after each document.
    pub(crate) eos: Option<u32>,
}

impl BoundaryIds {
    /// Tokens around a document.
    pub(crate) fn count(self) -> u64 {
        u64::from(self.bos.is_some()) + u64::from(self.eos.is_some())
    }
}

impl<'a> PlannedRun<'a> {
    /// Finds and hashes the inputs of a run.
    pub(crate) fn new(
        run: &'a PrepareRun,
        tokenizer: &Tokenizer,
        embedder: Option<String>,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let mut files = |source| find_files(source, run.folder(), &run.out, progress);
        let found = run.sources.iter().map(&mut files).collect::<Result<Vec<_>>>()?;
        Self::with_inputs(run, tokenizer, embedder, hash_inputs(found, progress)?)
    }

    /// Plan with the given inputs of each source.
    pub(super) fn with_inputs(
        run: &'a PrepareRun,
        tokenizer: &Tokenizer,
        embedder: Option<String>,
        inputs: Vec<Vec<InputFile>>,
    ) -> Result<Self> {
        let boundary_ids = BoundaryIds {
            bos: boundary_id(run, tokenizer, "bos", &run.bos)?,
            eos: boundary_id(run, tokenizer, "eos", &run.eos)?,
        };
        let layout = RowLayout::new(run.row_tokens, tokenizer.num_ids());
        let lists =
            run.sources.iter().map(|source| hash_lists(source, run.folder())).collect::<Result<Vec<_>>>()?;
        let filters = run.sources.iter().map(|source| FilterChain::load(&source.filters, run.folder()));
        let filters = filters.collect::<Result<Vec<_>>>()?;
        for (source, lists) in run.sources.iter().zip(&lists) {
            check_lists(source, run.folder(), lists)?;
        }
        let plan = describe(run, tokenizer, &inputs, lists, embedder);
        let units = inputs
            .into_iter()
            .enumerate()
            .flat_map(|(source, files)| split_into_units(source, files, &plan, layout))
            .collect();
        let hash = plan_hash(&plan);
        let sketchers = (0..run.sources.len()).map(|source| Sketcher::new(run, source)).collect();
        Ok(Self { run, plan, hash, layout, boundary_ids, filters, sketchers, units })
    }

    /// Inputs of each source.
    pub(super) fn inputs(&self) -> Vec<Vec<InputFile>> {
        let mut sources = vec![Vec::new(); self.run.sources.len()];
        for unit in &self.units {
            sources[unit.source].extend(unit.inputs.iter().cloned());
        }
        sources
    }

    /// Units without a complete file in `dir`, each name once. Damaged files are removed.
    pub(crate) fn missing_units(&self, dir: &Path, progress: &mut dyn Progress) -> Result<Vec<usize>> {
        let complete = |unit: &Unit| unit_file::is_complete(&dir.join(&unit.name));
        let complete = self.units.par_iter().map(complete).collect::<Result<Vec<_>>>()?;
        let mut names = HashSet::new();
        let mut is_first = |index: usize| names.insert(&self.units[index].name);
        let missing: Vec<_> =
            (0..self.units.len()).filter(|&index| is_first(index) && !complete[index]).collect();
        let (done, total) = (complete.iter().filter(|&&complete| complete).count(), self.units.len());
        if done > 0 {
            progress.note(&Note::Continued { done, total });
        }
        Ok(missing)
    }
}

/// Id of a boundary token; `None` where the run file names none.
fn boundary_id(
    run: &PrepareRun,
    tokenizer: &Tokenizer,
    field: &'static str,
    token: &str,
) -> Result<Option<u32>> {
    if token.is_empty() {
        return Ok(None);
    }
    let missing = || Error::NoToken { path: run.path.clone(), field, token: token.to_owned() };
    tokenizer.token_to_id(token).map(Some).ok_or_else(missing)
}

/// Hash of a plan.
pub(crate) fn plan_hash(plan: &Plan) -> String {
    hash::sha256(&serde_json::to_vec(plan).expect("plans have string keys and finite numbers"))
}

/// The plan, as the manifest will hold it.
fn describe(
    run: &PrepareRun,
    tokenizer: &Tokenizer,
    inputs: &[Vec<InputFile>],
    lists: Vec<Vec<FileDigest>>,
    embedder: Option<String>,
) -> Plan {
    let sources = run.sources.iter().zip(inputs).zip(lists).map(|((source, files), lists)| SourcePlan {
        name: source.name.clone(),
        proportion: source.proportion,
        format: source.format,
        text_field: source.text_field.clone(),
        id_field: source.id_field.clone(),
        token_dtype: None,
        filters: source.filters.iter().map(Filter::without_folders).collect(),
        lists,
        dedup: source.dedup.clone(),
        on_bad_line: source.on_bad_line,
        inputs: files.iter().map(|input| input.file.clone()).collect(),
    });
    Plan {
        format: FORMAT,
        seed: run.seed,
        seq_len: run.seq_len,
        row_tokens: run.row_tokens,
        dedup: run.dedup.without_folders(),
        embedder,
        eval_fraction: run.eval_fraction,
        bos: run.bos.clone(),
        eos: run.eos.clone(),
        tokenizer: tokenizer.fingerprint().to_string(),
        vocab_size: tokenizer.num_ids(),
        mixing: run.mixing.clone(),
        sources: sources.collect(),
    }
}
