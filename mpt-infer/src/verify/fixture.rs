//! Fixtures: inputs and logits recorded by a reference implementation, in a folder's `expected.safetensors`.
//!
//! | tensors | shapes |
//! |---|---|
//! | `P.input_ids`, `P.logits` | `[batch, seq]`, `[batch, seq, vocab]` |
//! | or `P.logits_last8` | `[batch, k, vocab]`: those of the last `k` positions |
//! | optional `P.attention_mask` | `[batch, seq]`, 0 for padding, whose logits are not compared |
//! | optional `P.sequence_id` | `[batch, seq]`, tokens see only their own sequence |
//! | optional `G.input_ids`, `G.new_tokens`, `G.attention_mask` | greedy continuations |
//!
//! `P` is `main`, which must be there, `one`, `full`, `long` or `pad`; `G` is `greedy` or `greedy_pad`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use mpt_core::{AttnMask, Batch, CausalLm, KvDtype, KvPool};
use serde::Serialize;

use super::models::expect_vocabulary;
use super::tally::{LogitPosition, Tally, best};
use super::{Comparison, for_each_logits, rows_of};
use crate::error::{Error, Result};

const FILE: &str = "expected.safetensors";
const BATCHES: [&str; 5] = ["main", "one", "full", "long", "pad"];
const GREEDY: [&str; 2] = ["greedy", "greedy_pad"];

/// Inputs and outputs of a model, recorded by a reference implementation.
#[derive(Debug)]
pub struct Fixture {
    path: PathBuf,
    parts: Vec<RecordedBatch>,
    greedy: Vec<Continuation>,
}

/// A batch with its recorded logits.
#[derive(Debug)]
struct RecordedBatch {
    name: &'static str,
    ids: Vec<Vec<u32>>,
    mask: AttnMask,
    /// Whether each token is text rather than padding.
    real: Vec<Vec<bool>>,
    /// Logits of the last `k` positions, `[batch, k, vocab]`.
    logits: Tensor,
}

/// A prompt and its greedy continuation.
#[derive(Debug, Clone)]
struct Continuation {
    prompt: Vec<u32>,
    new: Vec<u32>,
}

/// Result of comparing a model with a fixture.
#[derive(Debug, Clone, PartialEq)]
pub struct FixtureReport {
    /// Comparison of logits.
    pub comparison: Comparison,
    /// Greedy continuations, where the fixture has them.
    pub greedy: Option<GreedyReport>,
}

/// Agreement with greedy continuations, each token judged after the reference's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct GreedyReport {
    /// Number of tokens that are the model's choice, or within the tolerance of it.
    pub matched: usize,
    /// Number of tokens of all continuations.
    pub tokens: usize,
}

impl Fixture {
    /// Whether `dir` holds a fixture.
    pub fn is_in(dir: &Path) -> bool {
        dir.join(FILE).is_file()
    }

    /// Reads the fixture of a folder.
    ///
    /// # Errors
    /// [`Error::Fixture`] naming the tensor that is missing or has another shape.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let tensors =
            candle_core::safetensors::load(&path, &Device::Cpu).map_err(|error| Error::Fixture {
                path: path.clone(),
                tensor: "the file".to_owned(),
                found: error.to_string(),
                expected: "a readable safetensors file",
                source: Some(error.into()),
            })?;
        let reader = Reader { path: &path, tensors: &tensors };
        let is_there = |name: &&str| *name == "main" || reader.has(name, "input_ids");
        let parts =
            BATCHES.into_iter().filter(is_there).map(|name| reader.part(name)).collect::<Result<_>>()?;
        let greedy = GREEDY.into_iter().filter(|name| reader.has(name, "new_tokens"));
        let greedy = greedy.map(|name| reader.continuations(name)).collect::<Result<Vec<_>>>()?.concat();
        Ok(Self { path, parts, greedy })
    }

    /// Path of `expected.safetensors`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of tokens that a comparison runs.
    pub fn num_tokens(&self) -> usize {
        let parts: usize = self.parts.iter().flat_map(|part| &part.ids).map(Vec::len).sum();
        parts + self.greedy.iter().map(|greedy| greedy.prompt.len() + greedy.new.len()).sum::<usize>()
    }

    /// Compares the model with the fixture. A greedy token counts as matched when its logit is within
    /// `tolerance` times the range of the recorded logits of the best. `advance` is called with the number of tokens done.
    ///
    /// # Errors
    /// [`Error::Vocabulary`] when the model has another number of ids, and those of the forward pass.
    pub fn compare(
        &self,
        model: &CausalLm,
        tolerance: f64,
        advance: &mut dyn FnMut(usize),
    ) -> Result<FixtureReport> {
        let mut tally = Tally::default();
        for part in &self.parts {
            part.compare(model, &mut tally)?;
            advance(part.ids.iter().map(Vec::len).sum());
        }
        let margin = tolerance * tally.range();
        let mut report = GreedyReport { matched: 0, tokens: 0 };
        for greedy in &self.greedy {
            report.matched += greedy.matched(model, margin)?;
            report.tokens += greedy.new.len();
            advance(greedy.prompt.len() + greedy.new.len());
        }
        let greedy = (report.tokens > 0).then_some(report);
        Ok(FixtureReport { comparison: tally.comparison(), greedy })
    }
}

impl RecordedBatch {
    fn compare(&self, model: &CausalLm, tally: &mut Tally) -> Result<()> {
        let (_, recorded, vocab_size) = self.logits.dims3()?;
        expect_vocabulary(model, vocab_size)?;
        let hidden = model.hidden(&self.ids, &self.mask)?;
        let skipped = hidden.dim(1)? - recorded;
        for (row, real) in self.real.iter().enumerate() {
            let reference = rows_of(&self.logits.get(row)?)?;
            let hidden = hidden.narrow(0, row, 1)?.narrow(1, skipped, recorded)?.contiguous()?;
            for_each_logits(model, &hidden, |index, found| {
                let position = skipped + index;
                if real[position] {
                    let reference = &reference[index * vocab_size..(index + 1) * vocab_size];
                    tally.add(LogitPosition { part: self.name, row, position }, found, reference, None);
                }
            })?;
        }
        Ok(())
    }
}

impl Continuation {
    /// New tokens whose logit is within `margin` of the best, decoded with a cache as generation does.
    fn matched(&self, model: &CausalLm, margin: f64) -> Result<usize> {
        let capacity = self.prompt.len() + self.new.len();
        let mut pool = KvPool::new(model.config(), capacity, KvDtype::F32)?;
        let sequence = pool.add();
        let mut input = self.prompt.as_slice();
        let mut matched = 0;
        for (index, &token) in self.new.iter().enumerate() {
            let hidden = model.forward(&Batch::single(sequence, input)?, &mut pool)?;
            let last = hidden.narrow(0, input.len() - 1, 1)?.contiguous()?;
            let logits = rows_of(&model.logits(&last)?)?;
            let highest = best(&logits).map_or(f32::NAN, |best| logits[best]);
            let logit = logits.get(token as usize).copied().unwrap_or(f32::NAN);
            matched += usize::from(f64::from(highest - logit) <= margin);
            input = &self.new[index..=index];
        }
        Ok(matched)
    }
}

/// Tensors of the file, with checked access.
struct Reader<'a> {
    path: &'a Path,
    tensors: &'a HashMap<String, Tensor>,
}

impl Reader<'_> {
    fn has(&self, part: &str, name: &str) -> bool {
        self.tensors.contains_key(&format!("{part}.{name}"))
    }

    fn part(&self, name: &'static str) -> Result<RecordedBatch> {
        let ids = self.ids(name, "input_ids")?;
        let (batch, seq) = (ids.len(), ids[0].len());
        let real = self.mask(name, (batch, seq))?;
        let which = if self.has(name, "logits_last8") { "logits_last8" } else { "logits" };
        let logits = self.tensor(name, which)?;
        match *logits.dims() {
            [b, k, vocab] if b == batch && k <= seq && k * vocab > 0 => {}
            ref dims => {
                let found = format!("has shape {dims:?} beside ids of [{batch}, {seq}]");
                return Err(fixture_error(
                    self.path,
                    &format!("{name}.{which}"),
                    found,
                    "[batch, seq, vocab]",
                ));
            }
        }
        let mask = if self.has(name, "sequence_id") {
            AttnMask::documents(&self.shaped(name, "sequence_id", (batch, seq))?.concat(), batch, seq)?
        } else if real.iter().flatten().all(|&real| real) {
            AttnMask::causal(batch, seq)
        } else {
            let bytes: Vec<u8> = real.iter().flatten().map(|&real| u8::from(real)).collect();
            AttnMask::padded(&bytes, batch, seq)?
        };
        Ok(RecordedBatch { name, ids, mask, real, logits: logits.clone() })
    }

    /// Continuations of a greedy batch, without padding.
    fn continuations(&self, name: &str) -> Result<Vec<Continuation>> {
        let ids = self.ids(name, "input_ids")?;
        let real = self.mask(name, (ids.len(), ids[0].len()))?;
        let new = self.ids(name, "new_tokens")?;
        if new.len() != ids.len() {
            let found = format!("has {} rows beside {} rows of ids", new.len(), ids.len());
            let tensor = format!("{name}.new_tokens");
            return Err(fixture_error(self.path, &tensor, found, "as many rows as input_ids"));
        }
        let prompts = ids.iter().zip(&real).map(|(row, real)| {
            row.iter().zip(real).filter(|(_, real)| **real).map(|(&id, _)| id).collect::<Vec<u32>>()
        });
        let pairs = prompts.zip(new).map(|(prompt, new)| Continuation { prompt, new });
        Ok(pairs.filter(|continuation| !continuation.prompt.is_empty()).collect())
    }

    /// Whether each token is text, `[batch][seq]`; all are where there is no mask.
    fn mask(&self, part: &str, (batch, seq): (usize, usize)) -> Result<Vec<Vec<bool>>> {
        if !self.has(part, "attention_mask") {
            return Ok(vec![vec![true; seq]; batch]);
        }
        let mask = self.shaped(part, "attention_mask", (batch, seq))?;
        Ok(mask.into_iter().map(|row| row.into_iter().map(|value| value != 0).collect()).collect())
    }

    fn shaped(&self, part: &str, name: &str, (batch, seq): (usize, usize)) -> Result<Vec<Vec<u32>>> {
        let rows = self.ids(part, name)?;
        if (rows.len(), rows[0].len()) == (batch, seq) {
            return Ok(rows);
        }
        let found = format!("has shape [{}, {}] beside ids of [{batch}, {seq}]", rows.len(), rows[0].len());
        Err(fixture_error(self.path, &format!("{part}.{name}"), found, "the shape of input_ids"))
    }

    /// Rows of token ids: at least one row, of at least one id.
    fn ids(&self, part: &str, name: &str) -> Result<Vec<Vec<u32>>> {
        let tensor = self.tensor(part, name)?;
        let fail = |found| fixture_error(self.path, &format!("{part}.{name}"), found, "rows of token ids");
        let rows = tensor.to_dtype(DType::I64).and_then(|tensor| tensor.to_vec2::<i64>());
        let rows =
            rows.map_err(|_| fail(format!("has dtype {:?} and shape {:?}", tensor.dtype(), tensor.dims())))?;
        if rows.first().is_none_or(Vec::is_empty) {
            return Err(fail("is empty".to_owned()));
        }
        let id = |value: i64| u32::try_from(value).map_err(|_| fail(format!("holds {value}")));
        rows.into_iter().map(|row| row.into_iter().map(id).collect()).collect()
    }

    fn tensor(&self, part: &str, name: &str) -> Result<&Tensor> {
        let name = format!("{part}.{name}");
        self.tensors.get(&name).ok_or_else(|| {
            fixture_error(
                self.path,
                &name,
                "is missing".to_owned(),
                "`main.input_ids` and `main.logits` at least",
            )
        })
    }
}

fn fixture_error(path: &Path, tensor: &str, found: String, expected: &'static str) -> Error {
    Error::Fixture { path: path.to_owned(), tensor: tensor.to_owned(), found, expected, source: None }
}
