//! What was in a batch: the documents of every sample, and where they lie.

use serde::Serialize;

use crate::document_tables::DocumentIndex;
use crate::error::Result;
use crate::loader::{Loader, SampleLocation};
use crate::manifest::Manifest;

/// A sample and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TracedSample {
    /// Its number in the order of the run.
    pub index: u64,
    /// The name of its source.
    pub source: String,
    /// Where it lies.
    #[serde(flatten)]
    pub place: SampleLocation,
    /// Its documents, in order.
    pub documents: Vec<TracedDocument>,
}

/// A document, or the part of one, in a sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TracedDocument {
    /// The document's own id.
    pub id: String,
    /// Its number among all documents of the data.
    pub ordinal: u64,
    /// Its first token in the sample.
    pub from: usize,
    /// The first token after it.
    pub to: usize,
}

/// What the samples of `range` are made of, in order.
///
/// # Errors
/// [`Error::Shard`](crate::Error::Shard) when a shard or the index of documents is damaged.
pub fn trace(
    manifest: &Manifest,
    loader: &mut Loader,
    index: &mut DocumentIndex,
    range: std::ops::Range<u64>,
) -> Result<Vec<TracedSample>> {
    range.map(|sample| trace_sample(manifest, loader, index, sample)).collect()
}

fn trace_sample(
    manifest: &Manifest,
    loader: &mut Loader,
    documents: &mut DocumentIndex,
    index: u64,
) -> Result<TracedSample> {
    let place = loader.place(manifest, index);
    let sample = loader.sample(index)?;
    let mut found: Vec<TracedDocument> = Vec::new();
    for (at, &ordinal) in sample.documents.iter().enumerate() {
        match found.last_mut().filter(|document| document.ordinal == ordinal) {
            Some(document) => document.to = at + 1,
            None => {
                let id = documents.id(ordinal)?.to_owned();
                found.push(TracedDocument { id, ordinal, from: at, to: at + 1 });
            }
        }
    }
    let source = manifest.sources()[sample.id.source].name.clone();
    Ok(TracedSample { index, source, place, documents: found })
}
