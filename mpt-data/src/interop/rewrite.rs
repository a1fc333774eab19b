//! Rewriting of MDS datasets with other settings.

use std::collections::HashSet;
use std::path::Path;

use super::byte_progress::ByteProgress;
use super::mds::{MdsDataset, MdsOptions, MdsShard, MdsWriter, merge_index};
use crate::durable::Staging;
use crate::error::{Error, Result};
use crate::progress::{Phase, Progress};

/// Rewrites an MDS dataset with other compression, hashes or size of shards, and returns the number of samples. Folders,
/// columns and samples stay the same.
///
/// # Errors
/// [`Error::BrokenInput`] naming shard, sample and column; [`Error::Taken`] for a folder that holds something.
pub fn rewrite(
    input: &Path,
    out: &Path,
    options: &MdsOptions,
    verify: bool,
    progress: &mut dyn Progress,
) -> Result<u64> {
    let dataset = MdsDataset::open(input)?;
    let staging = Staging::folder(out)?;
    progress.start(Phase::Convert, dataset.shards().iter().map(|shard| shard.raw.bytes).sum());
    let mut bytes_done = ByteProgress::new(progress);
    let (mut seen, mut written, mut samples) = (HashSet::new(), Vec::new(), 0);
    for shard in dataset.shards() {
        let folder = shard.folder();
        if seen.insert(folder) {
            let of_folder: Vec<_> =
                dataset.shards().iter().filter(|shard| shard.folder() == folder).collect();
            samples += of_folder.iter().map(|shard| shard.samples).sum::<u64>();
            let name = super::sources::name_in(Path::new(""), folder);
            let index = rewrite_folder(
                &dataset,
                &of_folder,
                &staging.path().join(folder),
                options,
                verify,
                &mut bytes_done,
            )?;
            written.push((name, index));
        }
    }
    if written.iter().any(|(folder, _)| !folder.is_empty()) || written.is_empty() {
        merge_index(staging.path(), written)?;
    }
    progress.finish();
    staging.commit()?;
    Ok(samples)
}

fn rewrite_folder(
    dataset: &MdsDataset,
    shards: &[&MdsShard],
    out: &Path,
    options: &MdsOptions,
    verify: bool,
    bytes_done: &mut ByteProgress<'_>,
) -> Result<Vec<serde_json::Value>> {
    let columns = &shards[0].columns;
    let described: Vec<_> =
        columns.iter().map(|column| (column.name.clone(), column.encoding.clone())).collect();
    let mut writer = MdsWriter::create(out, &described, options.clone())?;
    for shard in shards {
        if shard.columns != *columns {
            let path = dataset.dir().join(&shard.raw.path);
            return Err(Error::input(&path, "has other columns than the shards before it in its folder"));
        }
        let mut samples = dataset.samples(shard, verify)?;
        while let Some(sample) = samples.next_sample()? {
            let values = (0..columns.len()).map(|column| sample.value(column)).collect::<Result<Vec<_>>>()?;
            writer.push(&values)?;
            bytes_done.step((0..columns.len()).map(|column| sample.bytes(column).len() as u64).sum())?;
        }
    }
    writer.finish()
}
