//! Trace of samples: their documents, and their places in the shards.

use serde::Serialize;

use crate::document_tables::DocumentIndex;
use crate::error::Result;
use crate::loader::{Loader, SampleLocation};
use crate::manifest::Manifest;

/// Sample with its documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TracedSample {
    /// Index in the order of the run.
    pub index: u64,
    /// Name of the source.
    pub source: String,
    /// Place in the shards.
    #[serde(flatten)]
    pub location: SampleLocation,
    /// Documents, in order.
    pub documents: Vec<TracedDocument>,
}

/// Document of a sample, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TracedDocument {
    /// Id of the document.
    pub id: String,
    /// Ordinal among all documents of the data.
    pub ordinal: u64,
    /// First token in the sample.
    pub from: usize,
    /// End in the sample, exclusive.
    pub to: usize,
}

/// Documents and places of the samples of `range`, in order.
///
/// # Errors
/// [`Error::Shard`](crate::Error::Shard) for a damaged shard or index of documents.
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
    let location = loader.location(manifest, index);
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
    Ok(TracedSample { index, source, location, documents: found })
}
