//! The plan: which files there are, what they hold, how they are cut into units, and what a unit's file is called.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use mpt_tokenize::Tokenizer;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::find_files::find;
use super::sketch::Sketcher;
use super::unit::{InputFile, Unit};
use super::unit_file;
use crate::config::{PrepareRun, SourceConfig};
use crate::dedup::DedupKind;
use crate::error::{Error, Result};
use crate::file_digest::{FileDigest, sha256_file};
use crate::filter::{self, FilterChain};
use crate::hash;
use crate::layout::RowLayout;
use crate::manifest::{FORMAT, Plan, SourcePlan};
use crate::progress::{Note, Phase, Progress, Shared, step};
use crate::remote;

/// Files of a source are taken together up to this size, so that many small files do not make many small units.
const UNIT_BYTES: u64 = 8 << 20;
/// And up to this number.
const UNIT_FILES: usize = 4096;

/// A run with its inputs known.
#[derive(Debug)]
pub(crate) struct PlannedRun<'a> {
    /// What was asked for.
    pub(crate) run: &'a PrepareRun,
    /// What decides the output.
    pub(crate) plan: Plan,
    /// The hash of that.
    pub(crate) hash: String,
    /// The sizes of a row.
    pub(crate) layout: RowLayout,
    /// What stands between documents.
    pub(crate) special: BoundaryIds,
    /// The filters of each source, ready.
    pub(crate) judges: Vec<FilterChain>,
    /// What is kept of the texts of each source for deduplication.
    pub(crate) sketchers: Vec<Sketcher>,
    /// All units, in the order of sources and files.
    pub(crate) units: Vec<Unit>,
}

/// The tokens around each document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BoundaryIds {
    /// The token before each document.
    pub(crate) bos: Option<u32>,
    /// The token after each document.
    pub(crate) eos: Option<u32>,
}

impl BoundaryIds {
    /// How many they are.
    pub(crate) fn count(self) -> u64 {
        u64::from(self.bos.is_some()) + u64::from(self.eos.is_some())
    }
}

impl<'a> PlannedRun<'a> {
    /// Finds and hashes the inputs.
    pub(crate) fn new(
        run: &'a PrepareRun,
        tokenizer: &Tokenizer,
        embedder: Option<String>,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let mut files = |source| find(source, run.folder(), &run.out, progress);
        let found = run.sources.iter().map(&mut files).collect::<Result<Vec<_>>>()?;
        Self::with_inputs(run, tokenizer, embedder, hash_all(found, progress)?)
    }

    /// The same with inputs that were found and hashed before, of each source its files.
    pub(super) fn with_inputs(
        run: &'a PrepareRun,
        tokenizer: &Tokenizer,
        embedder: Option<String>,
        inputs: Vec<Vec<InputFile>>,
    ) -> Result<Self> {
        let special = BoundaryIds {
            bos: token(run, tokenizer, "bos", &run.bos)?,
            eos: token(run, tokenizer, "eos", &run.eos)?,
        };
        let layout = RowLayout::new(run.row_tokens, tokenizer.num_ids());
        let lists =
            run.sources.iter().map(|source| lists(source, run.folder())).collect::<Result<Vec<_>>>()?;
        let judges = run.sources.iter().map(|source| FilterChain::load(&source.filters, run.folder()));
        let judges = judges.collect::<Result<Vec<_>>>()?;
        for (source, lists) in run.sources.iter().zip(&lists) {
            check_lists(source, run.folder(), lists)?;
        }
        let plan = describe(run, tokenizer, &inputs, lists, embedder);
        let units = inputs
            .into_iter()
            .enumerate()
            .flat_map(|(source, files)| cut(source, files, &plan, layout))
            .collect();
        let hash = hash_of(&plan);
        let sketchers = (0..run.sources.len()).map(|source| Sketcher::new(run, source)).collect();
        Ok(Self { run, plan, hash, layout, special, judges, sketchers, units })
    }

    /// Of each source, its files.
    pub(super) fn inputs(&self) -> Vec<Vec<InputFile>> {
        let mut sources = vec![Vec::new(); self.run.sources.len()];
        for unit in &self.units {
            sources[unit.source].extend(unit.inputs.iter().cloned());
        }
        sources
    }

    /// The units whose files are not there whole, each name once; damaged files are removed.
    pub(crate) fn missing_units(&self, dir: &Path, progress: &mut dyn Progress) -> Result<Vec<usize>> {
        let whole = |unit: &Unit| unit_file::is_whole(&dir.join(&unit.name));
        let whole = self.units.par_iter().map(whole).collect::<Result<Vec<_>>>()?;
        let mut names = HashSet::new();
        let mut is_first = |index: usize| names.insert(&self.units[index].name);
        let missing: Vec<_> =
            (0..self.units.len()).filter(|&index| is_first(index) && !whole[index]).collect();
        let (done, total) = (whole.iter().filter(|&&whole| whole).count(), self.units.len());
        if done > 0 {
            progress.note(&Note::Continued { done, total });
        }
        Ok(missing)
    }
}

/// What is different from an earlier plan, in words; empty if nothing is.
pub(crate) fn changes(earlier: &Plan, now: &Plan) -> Vec<String> {
    let value = |plan: &Plan| serde_json::to_value(plan).expect("plans have string keys and finite numbers");
    let mut changes = Vec::new();
    compare("", &value(earlier), &value(now), &mut changes);
    if changes.len() > 5 {
        let more = changes.len() - 4;
        changes.truncate(4);
        changes.push(format!("and {more} more"));
    }
    changes
}

fn token(run: &PrepareRun, tokenizer: &Tokenizer, field: &'static str, token: &str) -> Result<Option<u32>> {
    if token.is_empty() {
        return Ok(None);
    }
    let missing = || Error::NoToken { path: run.path.clone(), field, token: token.to_owned() };
    tokenizer.id_of(token).map(Some).ok_or_else(missing)
}

/// The hash of a plan.
pub(crate) fn hash_of(plan: &Plan) -> String {
    hash::sha256(&serde_json::to_vec(plan).expect("plans have string keys and finite numbers"))
}

/// Hashes the input files of each source.
pub(crate) fn hash_all(
    found: Vec<Vec<(PathBuf, String)>>,
    progress: &mut dyn Progress,
) -> Result<Vec<Vec<InputFile>>> {
    let total =
        found.iter().flatten().filter_map(|(path, _)| path.metadata().ok()).map(|data| data.len()).sum();
    progress.start(Phase::Hash, total);
    let shared: Shared<'_, '_> = Mutex::new(&mut *progress);
    let hashed = |(path, name): (PathBuf, String)| {
        let read = |bytes| step(&shared, bytes);
        let (sha256, bytes) =
            if remote::is_remote(&path) { remote::identity(&path, read) } else { sha256_file(&path, read) }?;
        Ok(InputFile { path, file: FileDigest { name, bytes, sha256 } })
    };
    let inputs = found.into_par_iter().map(|files| files.into_par_iter().map(hashed).collect()).collect();
    progress.finish();
    inputs
}

/// The files that the filters of a source name.
fn lists(source: &SourceConfig, folder: &Path) -> Result<Vec<FileDigest>> {
    let list = |file: String| {
        let (sha256, bytes) = sha256_file(&folder.join(&file), |_| Ok(()))?;
        Ok(FileDigest { name: filter::file_name(&file), bytes, sha256 })
    };
    source.filters.iter().flat_map(filter::Filter::files).map(list).collect()
}

/// The lists that were read are those that were hashed.
fn check_lists(source: &SourceConfig, folder: &Path, hashed: &[FileDigest]) -> Result<()> {
    let files = source.filters.iter().flat_map(filter::Filter::files);
    for ((file, now), earlier) in files.zip(lists(source, folder)?).zip(hashed) {
        if now != *earlier {
            return Err(Error::InputChanged { path: folder.join(file) });
        }
    }
    Ok(())
}

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
        filters: source.filters.iter().map(filter::Filter::without_folders).collect(),
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

/// Cuts the files of a source into units.
fn cut(source: usize, files: Vec<InputFile>, plan: &Plan, layout: RowLayout) -> Vec<Unit> {
    let mut groups: Vec<Vec<InputFile>> = Vec::new();
    let mut bytes = 0;
    for file in files {
        bytes += file.file.bytes;
        match groups.last_mut() {
            Some(group) if bytes <= UNIT_BYTES && group.len() < UNIT_FILES => group.push(file),
            _ => {
                bytes = file.file.bytes;
                groups.push(vec![file]);
            }
        }
    }
    let named = |inputs: Vec<InputFile>| Unit {
        name: unit_name(&plan.sources[source], &inputs, plan, layout),
        source,
        inputs,
    };
    groups.into_iter().map(named).collect()
}

fn unit_name(source: &SourcePlan, inputs: &[InputFile], plan: &Plan, layout: RowLayout) -> String {
    let takes_part = |kind| source.dedup.as_ref().is_none_or(|kinds| kinds.contains(&kind));
    let decides = json!({
        "format": FORMAT,
        "unit": unit_file::VERSION,
        "tokenizer": plan.tokenizer,
        "token_bytes": layout.token_bytes,
        "source": {
            "format": source.format, "text_field": source.text_field, "id_field": source.id_field,
            "filters": source.filters, "lists": source.lists, "on_bad_line": source.on_bad_line,
        },
        "minhash": plan.dedup.minhash().filter(|_| takes_part(DedupKind::MinHash)),
        "paragraph": plan.dedup.paragraphs().filter(|_| takes_part(DedupKind::Paragraph)),
        "inputs": inputs.iter().map(|input| &input.file).collect::<Vec<_>>(),
    });
    hash::sha256(decides.to_string().as_bytes())[..32].to_owned()
}

/// Lists the places where two values differ; parts of a list are called by their names where they have one.
fn compare(place: &str, old: &Value, new: &Value, changes: &mut Vec<String>) {
    let inside = |name: &str| if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") };
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
            for key in keys {
                let get = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
                compare(&inside(key), &get(old), &get(new), changes);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                let name =
                    new.get("name").and_then(Value::as_str).map_or_else(|| index.to_string(), str::to_owned);
                compare(&inside(&name), old, new, changes);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            changes.push(format!("{place} had {} entries, now {}", old.len(), new.len()))
        }
        _ if old == new => {}
        _ => changes.push(format!("{place} was {old}, is now {new}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named() {
        let old = json!({"seed": 1, "sources": [{"name": "web", "proportion": 0.5}], "gone": 1});
        let new = json!({"seed": 2, "sources": [{"name": "web", "proportion": 0.25}]});
        let mut changes = Vec::new();
        compare("", &old, &new, &mut changes);
        assert_eq!(
            changes,
            [
                "seed was 1, is now 2",
                "sources.web.proportion was 0.5, is now 0.25",
                "gone was 1, is now null"
            ]
        );
        changes.clear();
        compare("inputs", &json!([1, 2]), &json!([1]), &mut changes);
        assert_eq!(changes, ["inputs had 2 entries, now 1"]);
    }

    #[test]
    fn small_files_share_a_unit_and_large_ones_do_not() {
        let file = |index: usize, bytes| InputFile {
            path: PathBuf::new(),
            file: FileDigest { name: format!("{index}"), bytes, sha256: String::new() },
        };
        let plan = Plan {
            format: 1,
            seed: 0,
            seq_len: 8,
            row_tokens: 8,
            dedup: crate::dedup::Dedup::none(),
            embedder: None,
            eval_fraction: 0.0,
            bos: String::new(),
            eos: String::new(),
            tokenizer: "t".into(),
            vocab_size: 9,
            mixing: Default::default(),
            sources: vec![SourcePlan {
                name: "s".into(),
                proportion: crate::mixing::Share::Proportion(1.0),
                format: crate::config::Format::Text,
                text_field: "text".into(),
                id_field: None,
                token_dtype: None,
                filters: vec![],
                lists: vec![],
                dedup: None,
                on_bad_line: crate::config::OnBadLine::Fail,
                inputs: vec![],
            }],
        };
        let cut = |sizes: &[u64]| {
            let files = sizes.iter().enumerate().map(|(index, &bytes)| file(index, bytes)).collect();
            super::cut(0, files, &plan, RowLayout::new(8, 9))
                .iter()
                .map(|unit| unit.inputs.len())
                .collect::<Vec<_>>()
        };
        assert_eq!(cut(&[5, 5, UNIT_BYTES, 5, UNIT_BYTES - 5, 1]), [2, 1, 2, 1]);
        assert_eq!(cut(&vec![1; UNIT_FILES + 1]), [UNIT_FILES, 1]);
    }
}
