//! The pass that finds near copies: the signatures of all documents that stayed so far, compared band by band.

use super::exact_dedup::DedupOutcomes;
use super::plan::PlannedRun;
use super::unit_iter::{Duplicate, RecordLocation, UnitItem, UnitIter, UnitPaths};
use crate::dedup::{self, DedupKind, LshBands, MinHash};
use crate::error::{Error, Result};
use crate::progress::{Phase, Progress};

/// A document that takes part: 24 bytes.
struct Candidate {
    place: RecordLocation,
    /// Which of its unit's.
    index: u32,
}

/// Marks every document that is nearly an earlier one.
pub(super) fn near(
    planned: &PlannedRun<'_>,
    settings: &MinHash,
    files: &UnitPaths,
    fates: &mut DedupOutcomes,
    progress: &mut dyn Progress,
) -> Result<()> {
    progress.start(Phase::Dedup, (planned.units.len() + settings.bands) as u64);
    let mut step = || {
        progress.advance(1);
        if progress.keep_going() { Ok(()) } else { Err(Error::Interrupted) }
    };
    let (mut bands, mut candidates) = (LshBands::new(settings), Vec::new());
    for unit in 0..planned.units.len() {
        if planned.run.goes_through(planned.units[unit].source, DedupKind::MinHash) {
            collect(files, unit, fates, &mut bands, &mut candidates)?;
        }
        step()?;
    }
    let similar = |a: u32, b: u32| {
        let signature = |document: u32| files.signature(candidates[document as usize].place);
        Ok(dedup::similarity(&signature(a)?, &signature(b)?))
    };
    let firsts = dedup::near_duplicates(&bands, settings.threshold, &similar, step)?;
    for (document, (&first, candidate)) in (0..).zip(firsts.iter().zip(&candidates)) {
        if first == document {
            continue;
        }
        let gone = Duplicate::Near(candidates[first as usize].place, similar(first, document)? as f32);
        fates[candidate.place.unit as usize][candidate.index as usize].gone = Some(gone);
    }
    progress.finish();
    Ok(())
}

/// Takes in the documents of a unit that stayed and have a signature.
fn collect(
    files: &UnitPaths,
    unit: usize,
    fates: &DedupOutcomes,
    bands: &mut LshBands,
    candidates: &mut Vec<Candidate>,
) -> Result<()> {
    let mut walk = UnitIter::new(files, unit, &fates[unit])?;
    while let Some(step) = walk.next()? {
        let UnitItem::Passed(passed) = step else { continue };
        if fates[unit][passed.index].gone.is_some() {
            continue;
        }
        let signature = passed.reader.signature()?;
        if !signature.is_empty() {
            bands.push(&signature);
            let index = u32::try_from(passed.index).expect("documents of a unit are fewer than 2^32");
            candidates.push(Candidate { place: passed.place, index });
        }
    }
    Ok(())
}
