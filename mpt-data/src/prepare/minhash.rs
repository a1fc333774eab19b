//! MinHash deduplication: signatures of all documents that no earlier stage dropped, compared band by band.

use super::plan::PlannedRun;
use super::unit_iter::{Candidate, DedupOutcomes, Duplicate, UnitIter, UnitPaths};
use crate::dedup::{self, DedupKind, LshBands, MinHash};
use crate::error::{Error, Result};
use crate::progress::{Phase, Progress};

/// Drops every document that is a near copy of an earlier one.
pub(super) fn minhash_dedup(
    planned: &PlannedRun<'_>,
    settings: &MinHash,
    paths: &UnitPaths,
    outcomes: &mut DedupOutcomes,
    progress: &mut dyn Progress,
) -> Result<()> {
    progress.start(Phase::Dedup, (planned.units.len() + settings.bands) as u64);
    let mut on_step = || {
        progress.advance(1);
        if progress.keep_going() { Ok(()) } else { Err(Error::Interrupted) }
    };
    let (mut bands, mut candidates) = (LshBands::new(settings), Vec::new());
    for unit in 0..planned.units.len() {
        if planned.run.goes_through(planned.units[unit].source, DedupKind::MinHash) {
            collect(paths, unit, outcomes, &mut bands, &mut candidates)?;
        }
        on_step()?;
    }
    let similarity = |a: u32, b: u32| {
        let signature = |document: u32| paths.signature(candidates[document as usize].location);
        Ok(dedup::similarity(&signature(a)?, &signature(b)?))
    };
    let firsts = dedup::near_duplicates(&bands, settings.threshold, &similarity, on_step)?;
    for (document, (&first, candidate)) in (0..).zip(firsts.iter().zip(&candidates)) {
        if first != document {
            let location = candidates[first as usize].location;
            let duplicate = Duplicate::Near(location, similarity(first, document)? as f32);
            candidate.drop_as(duplicate, outcomes);
        }
    }
    progress.finish();
    Ok(())
}

/// Collects the documents of a unit that have a signature.
fn collect(
    paths: &UnitPaths,
    unit: usize,
    outcomes: &DedupOutcomes,
    bands: &mut LshBands,
    candidates: &mut Vec<Candidate>,
) -> Result<()> {
    UnitIter::new(paths, unit, &outcomes[unit])?.for_each_kept(|document| {
        let signature = document.reader.signature()?;
        if !signature.is_empty() {
            bands.push(&signature);
            candidates.push(document.candidate());
        }
        Ok(())
    })
}
