//! Folder of a quickstart: corpus, tokenizer, MIX.toml with its data, RUN.toml with its run.

use std::fmt::Write as _;
use std::fs::File;
use std::path::PathBuf;

use mpt_data::{Manifest, PrepareRun, durable, prepare};
use mpt_tokenize::{Tokenizer, TrainConfig};
use mpt_train::TrainRun;
use serde_json::json;

use super::corpus::Source;
use super::{BATCH_SIZE, EVAL_SAMPLES, SEQ_LEN};
use crate::commands::data::PrepareProgress;
use crate::exit::CliError;
use crate::settings::Context;

const VOCAB_SIZE: usize = 4096;

/// Folder of a quickstart.
pub(super) struct QuickstartDir {
    /// Path.
    pub(super) dir: PathBuf,
}

impl QuickstartDir {
    /// Path of an entry.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Creates the folder and locks it for this process.
    pub(super) fn lock(&self) -> Result<File, CliError> {
        durable::make_dir(&self.dir)?;
        let lock = durable::lock(&self.path(".lock"))?;
        Ok(lock.ok_or_else(|| mpt_data::Error::Busy { path: self.dir.clone() })?)
    }

    /// Writes the corpus as JSON Lines and trains a tokenizer on it.
    pub(super) fn train_tokenizer(&self, sources: &[Source], ctx: &Context) -> Result<Tokenizer, CliError> {
        for source in sources {
            let lines: String =
                source.documents.iter().map(|document| json!(document).to_string() + "\n").collect();
            durable::write_file(&self.path(&format!("corpus/{}.jsonl", source.name)), lines.as_bytes())?;
        }
        let texts: Vec<&str> =
            sources.iter().flat_map(|source| &source.documents).map(|d| d.text.as_str()).collect();
        let bytes: usize = texts.iter().map(|text| text.len()).sum();
        let log = ctx.out.log();
        log.info(format_args!(
            "corpus: {} documents, {:.1} MB; training a tokenizer",
            texts.len(),
            bytes as f64 / 1e6
        ));
        let path = self.path("tokenizer.json");
        let config = TrainConfig { vocab_size: VOCAB_SIZE, min_frequency: 2 };
        let bytes = mpt_tokenize::train(texts.into_iter(), &config)?;
        let tokenizer = Tokenizer::from_bytes(bytes, &path)?;
        durable::write_file(&path, tokenizer.json_bytes())?;
        Ok(tokenizer)
    }

    /// Prepares a mix in which each source has the proportion of its size.
    pub(super) fn build_data(
        &self,
        sources: &[Source],
        tokenizer: &Tokenizer,
        seed: u64,
        ctx: &Context,
    ) -> Result<Manifest, CliError> {
        let size =
            |source: &Source| source.documents.iter().map(|document| document.text.len()).sum::<usize>();
        let sizes: Vec<_> = sources.iter().map(size).collect();
        let proportions = proportions(&sizes);
        let mut mix = format!(
            "tokenizer = \"tokenizer.json\"\nseed = {seed}\nseq_len = {SEQ_LEN}\neval_fraction = 0.02\n"
        );
        for (source, proportion) in sources.iter().zip(proportions) {
            let name = &source.name;
            let _ = write!(
                mix,
                "\n[[sources]]\nname = \"{name}\"\nproportion = {proportion}\npaths = [\"corpus/{name}.jsonl\"]\nformat = \"jsonl\"\n"
            );
        }
        let path = self.path("mix.toml");
        durable::write_file(&path, mix.as_bytes())?;
        let mut run = PrepareRun::from_file(&path)?;
        run.out = self.path("data");
        Ok(prepare(&run, tokenizer, &mut PrepareProgress::new(ctx))?)
    }

    /// Writes the RUN.toml of a small model and reads it back.
    pub(super) fn write_run_file(
        &self,
        tokenizer: &Tokenizer,
        steps: u64,
        seed: u64,
    ) -> Result<TrainRun, CliError> {
        let text = format!(
            "# A small MPT: `mpt train` with this file gives the same checkpoint again.\n\
             run_dir = \"run\"\n\n\
             [model]\nd_model = 256\nn_heads = 4\nn_layers = 4\nvocab_size = {}\nmax_seq_len = {SEQ_LEN}\n\n\
             [data]\ndir = \"data\"\n\n\
             [optimizer]\nkind = \"adamw\"\nlr = 3e-3\nweight_decay = 1e-4\n\n\
             [schedule]\nkind = \"cosine\"\nwarmup_steps = {}\nalpha_f = 0.1\n\n\
             [train]\nsteps = {steps}\nbatch_size = {BATCH_SIZE}\nseed = {seed}\neval_every = {}\neval_samples = {EVAL_SAMPLES}\n\n\
             [checkpoint]\nevery_steps = 100\n",
            tokenizer.num_ids().next_multiple_of(64),
            (steps / 10).min(20),
            (steps / 4).max(1),
        );
        let path = self.path("run.toml");
        durable::write_file(&path, text.as_bytes())?;
        Ok(TrainRun::from_file(&path, &[])?)
    }

    /// Commands to try next.
    pub(super) fn next_commands(&self) -> Vec<String> {
        let dir = self.dir.display();
        vec![
            format!("mpt generate --model {dir}/run --prompt \"pub fn \" --temperature 0.8"),
            format!("mpt data inspect {dir}/data"),
            format!("mpt train {dir}/run.toml --set train.steps=1000"),
            format!("mpt bench infer --model {dir}/run"),
        ]
    }
}

/// Proportions by size that sum to 1, in multiples of a power of ten of 1/100 or less; none is zero.
fn proportions(sizes: &[usize]) -> Vec<f64> {
    let (count, total) = (sizes.len(), sizes.iter().sum::<usize>().max(1));
    let whole =
        (2..).map(|digits| 10usize.pow(digits)).find(|&whole| whole >= 10 * count).unwrap_or(usize::MAX);
    let part = |&size: &usize| 1 + (size as u128 * (whole - count) as u128 / total as u128) as usize;
    let mut parts: Vec<_> = sizes.iter().map(part).collect();
    let largest = (0..count).max_by_key(|&index| parts[index]).unwrap_or(0);
    parts[largest] += whole - parts.iter().sum::<usize>();
    parts.into_iter().map(|part| part as f64 / whole as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sum_to_one() {
        for sizes in [vec![6, 3, 1], vec![1], vec![1_000_000, 1, 1], vec![5, 5, 5]] {
            let proportions = proportions(&sizes);
            assert!((proportions.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{proportions:?}");
            assert!(proportions.iter().all(|&proportion| proportion >= 0.01), "{proportions:?}");
        }
        for count in [11, 99, 101, 150, 999, 5000] {
            let mut sizes = vec![1; count];
            (sizes[0], sizes[1]) = (1000 * count, 1000 * count);
            let proportions = proportions(&sizes);
            assert!((proportions.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{count}");
            assert!(proportions.iter().all(|&proportion| proportion > 0.0), "{count}");
        }
    }
}
