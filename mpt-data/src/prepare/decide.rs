//! One pass over all units, in the order of sources and documents: which documents stay, for which split, and the ledger
//! of those that do not.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::plan::{PlannedRun, Unit};
use super::unit_file::{Entry, UnitReader};
use super::units::{DroppedDocument, TokenizedDocument, UnitSink};
use crate::config::Dedup;
use crate::documents::DropWriter;
use crate::error::{Error, Result};
use crate::filter::{self, BAD_LINE, Drop, EXACT_DUPLICATE};
use crate::manifest::{DROPS, PlainFile, Split, TokenAccount};
use crate::progress::Progress;

/// What is decided about every document.
pub(super) struct Decided {
    /// Per unit, for each document that passed the filters: its split, or `None` for a copy of an earlier one.
    pub(super) fates: Vec<Vec<Option<Split>>>,
    /// Per source, what was counted.
    pub(super) sources: Vec<Counts>,
    /// The ledger.
    pub(super) drops: PlainFile,
}

/// What was counted in a source.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    pub(crate) documents: u64,
    pub(crate) drops: BTreeMap<String, u64>,
    pub(crate) tokens: TokenAccount,
    pub(crate) train: SplitCounts,
    pub(crate) eval: SplitCounts,
    fields_seen: u64,
}

/// What was counted in a split of a source.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SplitCounts {
    pub(crate) documents: u64,
    pub(crate) text_bytes: u64,
    /// With the tokens before and after each document.
    pub(crate) tokens: u64,
}

impl Counts {
    pub(crate) fn split(&self, split: Split) -> &SplitCounts {
        match split {
            Split::Train => &self.train,
            Split::Eval => &self.eval,
        }
    }

    /// Counts a document that goes, with its tokens as read and those around it.
    fn drop(&mut self, rule: &str, tokens_read: u64) {
        self.documents += 1;
        *self.drops.entry(rule.to_owned()).or_default() += 1;
        self.tokens.drop(tokens_read);
    }

    /// Counts a document that stays, its tokens with those around it.
    fn keep(&mut self, split: Split, document: &Stays) {
        self.documents += 1;
        self.tokens.keep(document.tokens_read, document.tokens, document.is_edited);
        let counts = match split {
            Split::Train => &mut self.train,
            Split::Eval => &mut self.eval,
        };
        counts.documents += 1;
        counts.text_bytes += document.text_bytes;
        counts.tokens += document.tokens;
    }
}

/// A document that stays, its tokens with those around it.
struct Stays {
    text_bytes: u64,
    tokens_read: u64,
    tokens: u64,
    is_edited: bool,
}

/// The tokens that a document as read would have had, those around it included; what is no document has none.
fn tokens_dropped(drop: &Drop, tokens_read: u64, planned: &PlannedRun<'_>) -> u64 {
    if drop.rule == BAD_LINE { 0 } else { tokens_read + planned.special.count() }
}

/// Decides about every document and writes the ledger into `out`.
///
/// # Errors
/// [`Error::NoField`], [`Error::EmptySource`] and [`Error::SmallSource`] name a source that cannot be used.
pub(super) fn decide(
    planned: &PlannedRun<'_>,
    units: &Path,
    out: &Path,
    progress: &mut dyn Progress,
) -> Result<Decided> {
    let paths: Vec<_> = planned.units.iter().map(|unit| units.join(&unit.name)).collect();
    let mut pass = Pass {
        planned,
        paths: &paths,
        first: HashMap::new(),
        ledger: DropWriter::create(out, DROPS)?,
        sources: vec![Counts::default(); planned.run.sources.len()],
    };
    let mut fates = Vec::with_capacity(paths.len());
    for unit in 0..paths.len() {
        fates.push(pass.unit(unit)?);
        if !progress.keep_going() {
            return Err(Error::Interrupted);
        }
    }
    let Pass { ledger, sources, .. } = pass;
    sources.iter().enumerate().try_for_each(|(source, counts)| check(planned, source, counts))?;
    Ok(Decided { fates, sources, drops: ledger.finish()? })
}

/// The split of a text: decided by its content alone, so that copies never lie in both, and sources added later change
/// nothing.
fn split_of(text_hash: u128, planned: &PlannedRun<'_>) -> Split {
    let draw = xxh3_64_with_seed(&text_hash.to_le_bytes(), planned.run.seed) as f64 / 2f64.powi(64);
    if draw < planned.run.eval_fraction { Split::Eval } else { Split::Train }
}

struct Pass<'a> {
    planned: &'a PlannedRun<'a>,
    paths: &'a [PathBuf],
    /// Where the first document with a text is: 32 bytes a document are all that is held of it.
    first: HashMap<u128, (u32, u64)>,
    ledger: DropWriter,
    sources: Vec<Counts>,
}

impl Pass<'_> {
    fn unit(&mut self, unit: usize) -> Result<Vec<Option<Split>>> {
        let source = self.planned.units[unit].source;
        let mut reader = UnitReader::open(&self.paths[unit])?;
        let mut fates = Vec::new();
        while let Some(entry) = reader.next()? {
            match entry {
                Entry::Dropped { id, drop, tokens_read } => self.drop(source, &id, &drop, tokens_read)?,
                Entry::Kept { id, text_hash, text_bytes, tokens_read, is_edited, tokens, place } => {
                    if let Some(drop) = self.copy_of(text_hash, unit, place)? {
                        self.drop(source, &id, &drop, tokens_read)?;
                        fates.push(None);
                        continue;
                    }
                    let (split, special) = (split_of(text_hash, self.planned), self.planned.special.count());
                    let (tokens_read, tokens) = (tokens_read + special, tokens + special);
                    self.sources[source].keep(split, &Stays { text_bytes, tokens_read, tokens, is_edited });
                    fates.push(Some(split));
                }
            }
        }
        self.sources[source].fields_seen |= reader.fields_seen();
        Ok(fates)
    }

    /// Whether an earlier document has the same text.
    fn copy_of(&mut self, text_hash: u128, unit: usize, place: u64) -> Result<Option<Drop>> {
        if self.planned.run.dedup == Dedup::None {
            return Ok(None);
        }
        let here = (u32::try_from(unit).expect("units are fewer than 2^32"), place);
        let first = *self.first.entry(text_hash).or_insert(here);
        if first == here {
            return Ok(None);
        }
        let value = UnitReader::id_at(&self.paths[first.0 as usize], first.1)?;
        Ok(Some(Drop { rule: EXACT_DUPLICATE, value }))
    }

    fn drop(&mut self, source: usize, id: &str, drop: &Drop, tokens_read: u64) -> Result<()> {
        let tokens = tokens_dropped(drop, tokens_read, self.planned);
        self.sources[source].drop(drop.rule, tokens);
        self.ledger.push(id, &self.planned.run.sources[source].name, drop, tokens)
    }
}

fn check(planned: &PlannedRun<'_>, source: usize, counts: &Counts) -> Result<()> {
    let config = &planned.run.sources[source];
    let source_name = config.name.clone();
    let fields = filter::fields(&config.filters);
    let unseen = |field: &usize| counts.fields_seen >> field & 1 == 0;
    if let Some(field) = (0..fields.len()).find(unseen).filter(|_| counts.documents > 0) {
        return Err(Error::NoField { source_name, field: fields[field].to_owned() });
    }
    if counts.train.documents == 0 {
        let mut drops: Vec<_> = counts.drops.clone().into_iter().collect();
        if counts.eval.documents > 0 {
            drops.push(("held out".into(), counts.eval.documents));
        }
        return Err(Error::EmptySource { source_name, documents: counts.documents, drops });
    }
    let row = ("row", planned.run.row_tokens, "row_tokens");
    let sequence = ("sequence", planned.run.seq_len, "seq_len");
    let (what, needed, field) = if row.1 > sequence.1 { row } else { sequence };
    if counts.train.tokens < needed as u64 {
        let (split, tokens, needed) = (Split::Train.name(), counts.train.tokens, needed as u64);
        return Err(Error::SmallSource { source_name, split, tokens, what, needed, field });
    }
    Ok(())
}

/// Decides about documents while they are tokenized, and keeps only counts: what a plan needs.
pub(crate) struct Tally<'a> {
    planned: &'a PlannedRun<'a>,
    seen: HashSet<u128>,
    source: usize,
    /// Per source, what was counted.
    pub(crate) sources: Vec<Counts>,
}

impl<'a> Tally<'a> {
    /// Nothing counted yet.
    pub(crate) fn new(planned: &'a PlannedRun<'a>) -> Self {
        Self {
            planned,
            seen: HashSet::new(),
            source: 0,
            sources: vec![Counts::default(); planned.run.sources.len()],
        }
    }
}

impl UnitSink for Tally<'_> {
    fn begin(&mut self, unit: &Unit) -> Result<()> {
        self.source = unit.source;
        Ok(())
    }

    fn keep(&mut self, document: &TokenizedDocument<'_>) -> Result<()> {
        let (counts, special) = (&mut self.sources[self.source], self.planned.special.count());
        let tokens_read = document.tokens_read + special;
        if self.planned.run.dedup == Dedup::Exact && !self.seen.insert(document.text_hash) {
            counts.drop(EXACT_DUPLICATE, tokens_read);
            return Ok(());
        }
        let (tokens, text_bytes) = (document.tokens.len() as u64 + special, document.text_bytes);
        let stays = Stays { text_bytes, tokens_read, tokens, is_edited: document.is_edited };
        counts.keep(split_of(document.text_hash, self.planned), &stays);
        Ok(())
    }

    fn drop(&mut self, document: &DroppedDocument<'_>) -> Result<()> {
        let tokens = tokens_dropped(document.drop, document.tokens_read, self.planned);
        self.sources[self.source].drop(document.drop.rule, tokens);
        Ok(())
    }

    fn end(&mut self, fields_seen: u64) -> Result<()> {
        self.sources[self.source].fields_seen |= fields_seen;
        Ok(())
    }
}
