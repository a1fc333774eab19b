//! Checks of a MIX.toml.

use std::path::Path;

use super::check_source::check_source;
use super::key_errors::KeyErrors;
use super::raw::RawRun;
use super::{DEFAULT_ROW_TOKENS, MAX_ROW_TOKENS, PrepareRun, SourceConfig};
use crate::dedup::{Dedup, DedupKind};
use crate::error::Result;
use crate::filter::check_local;
use crate::mixing::{Mixing, Quota, Share};

/// Checks a MIX.toml, and returns the run.
pub(super) fn check(raw: RawRun, path: &Path) -> Result<PrepareRun> {
    let at = KeyErrors { path, table: String::new() };
    let folder = path.parent().unwrap_or(Path::new(""));
    check_local("tokenizer", &raw.tokenizer)
        .map_err(|wrong| at.config(wrong.key, wrong.actual, wrong.expected))?;
    let row_tokens = row_tokens(&raw, &at)?;
    if !(0.0..=0.5).contains(&raw.eval_fraction) {
        return Err(at.config("eval_fraction", raw.eval_fraction, "a share from 0 to 0.5"));
    }
    let sources: Vec<_> =
        raw.sources.into_iter().map(|source| check_source(source, path)).collect::<Result<_>>()?;
    check_mix(&sources, &at)?;
    check_dedup(&raw.dedup, &sources, &at)?;
    let mixing = Mixing {
        sampling: raw.sampling,
        batching: raw.batching,
        batch_group: raw.batch_group,
        shuffle: raw.shuffle,
        shuffle_window: raw.shuffle_window,
        stages: raw.stages,
    };
    let names = sources.iter().map(|source| source.name.as_str());
    mixing.check(names).map_err(|wrong| at.config(wrong.key, wrong.actual, wrong.expected))?;
    Ok(PrepareRun {
        path: path.to_owned(),
        out: path.with_extension(""),
        tokenizer: folder.join(raw.tokenizer),
        seed: raw.seed,
        seq_len: raw.seq_len,
        row_tokens,
        dedup: raw.dedup,
        eval_fraction: raw.eval_fraction,
        bos: raw.bos,
        eos: raw.eos,
        mixing,
        sources,
    })
}

/// Default tokens in a row, for samples of `seq_len` tokens.
pub(crate) fn default_row_tokens(seq_len: usize) -> usize {
    if seq_len.is_multiple_of(DEFAULT_ROW_TOKENS) { DEFAULT_ROW_TOKENS } else { seq_len }
}

fn row_tokens(raw: &RawRun, at: &KeyErrors<'_>) -> Result<usize> {
    if raw.seq_len == 0 {
        return Err(at.config("seq_len", 0, "1 or more"));
    }
    let row = raw.row_tokens.unwrap_or_else(|| default_row_tokens(raw.seq_len));
    if row == 0 || row > MAX_ROW_TOKENS {
        let expected =
            format!("from 1 to {MAX_ROW_TOKENS}; a longer `seq_len` is several rows, so set a divisor of it");
        return Err(at.config("row_tokens", row, expected));
    }
    if !raw.seq_len.is_multiple_of(row) && !row.is_multiple_of(raw.seq_len) {
        let expected = format!("a divisor or a multiple of `seq_len`, which is {}", raw.seq_len);
        return Err(at.config("row_tokens", row, expected));
    }
    Ok(row)
}

fn check_dedup(dedup: &Dedup, sources: &[SourceConfig], at: &KeyErrors<'_>) -> Result<()> {
    dedup.check().map_err(|(index, wrong)| {
        at.config(&format!("dedup[{index}].{}", wrong.key), wrong.actual, wrong.expected)
    })?;
    for source in sources {
        let unknown = |kind: &&DedupKind| !dedup.has(**kind);
        if let Some(kind) = source.dedup.iter().flatten().find(unknown) {
            let key = format!("sources.{}.dedup", source.name);
            return Err(at.config(
                &key,
                format!("\"{}\"", kind.name()),
                "stages that `dedup` of the run has",
            ));
        }
    }
    Ok(())
}

fn check_mix(sources: &[SourceConfig], at: &KeyErrors<'_>) -> Result<()> {
    if sources.is_empty() {
        return Err(at.config("sources", "empty", "at least one `[[sources]]` table"));
    }
    for (index, source) in sources.iter().enumerate() {
        if sources[..index].iter().any(|earlier| earlier.name.eq_ignore_ascii_case(&source.name)) {
            return Err(at.config(
                "sources",
                format!("two sources named `{}`", source.name),
                "a name of its own for each",
            ));
        }
    }
    let Some(proportions) = proportions(sources, at)? else { return Ok(()) };
    let sum: f64 = proportions.iter().sum();
    if (sum - 1.0).abs() > 1e-6 {
        let sum = format!("{:.6}", sum);
        let sum = sum.trim_end_matches('0').trim_end_matches('.');
        return Err(at.config(
            "proportion",
            format!("{sum} in sum over the {} sources", sources.len()),
            "shares that sum to 1",
        ));
    }
    Ok(())
}

/// Proportions of the sources; `None` for quotas, which cannot be mixed with proportions.
fn proportions(sources: &[SourceConfig], at: &KeyErrors<'_>) -> Result<Option<Vec<f64>>> {
    let shares = sources.iter().filter_map(|source| match source.proportion {
        Share::Proportion(share) => Some(share),
        Share::Quota(_) => None,
    });
    let shares: Vec<_> = shares.collect();
    if shares.is_empty() || shares.len() == sources.len() {
        return Ok((!shares.is_empty()).then_some(shares));
    }
    let quota = sources.iter().find_map(|source| match source.proportion {
        Share::Quota(Quota::Repeat(_)) => Some((&source.name, "repeat")),
        Share::Quota(Quota::Choose(_)) => Some((&source.name, "choose")),
        Share::Proportion(_) => None,
    });
    let (name, key) = quota.expect("a source has a quota");
    let expected = "`proportion` in all sources or in none: it cannot be mixed with `repeat` and `choose`";
    Err(at.config(&format!("sources.{name}.{key}"), "set where other sources have a `proportion`", expected))
}
