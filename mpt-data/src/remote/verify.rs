//! Verification of a shard in one pass over the object: its rows and its hash.

use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::RemoteObject;
use crate::error::{Damage, Error, Result};
use crate::hash;
use crate::layout::{ColumnPages, RowGroup, RowLayout, ShardRecord, length_problem, verified_row};

/// Problem of a row whose checksum does not hold.
const UNSOUND: &str = "does not match its checksum; restore the file, or build again";
/// Problem of a file with valid rows and another hash.
const CHANGED: &str = "every row is sound, but the file is not as it was written (Parquet headers or footer); restore it, or build again";

/// Lists the damaged rows of a shard, or else the damage of the whole file.
///
/// # Errors
/// [`Error::Remote`] when the object cannot be read at all, and those of `on_read`, which is called with bytes read.
pub(crate) fn shard_damage(
    path: &Path,
    record: &ShardRecord,
    layout: RowLayout,
    mut on_read: impl FnMut(u64) -> Result<()>,
) -> Result<Vec<Damage>> {
    let damage = |row, problem: String| Damage { path: PathBuf::from(&record.path), row, problem };
    let object = match RemoteObject::find(path)? {
        Some(object) => object,
        None => return Ok(vec![damage(None, "is missing; restore it, or build again".to_owned())]),
    };
    if object.bytes() != record.bytes {
        return Ok(vec![damage(None, length_problem(object.bytes(), record.bytes))]);
    }
    let (mut stream, mut hash, mut at, mut first) = (object.read_from(0), Sha256::new(), 0, 0);
    let mut found = Vec::new();
    let mut take = |end: u64, at: &mut u64| -> Result<Vec<u8>> {
        let mut bytes = vec![0; end.saturating_sub(*at) as usize];
        stream.read_exact(&mut bytes).map_err(Error::io(path, "reading"))?;
        hash.update(&bytes);
        *at += bytes.len() as u64;
        on_read(bytes.len() as u64)?;
        Ok(bytes)
    };
    for group in &record.groups {
        let start = at;
        let bytes = take(group_end(group, layout).min(record.bytes), &mut at)?;
        let bad = (0..group.rows).filter(|&row| !is_undamaged(group, layout, row, start, &bytes));
        found.extend(bad.map(|row| damage(Some(first + row), UNSOUND.to_owned())));
        first += group.rows;
    }
    take(record.bytes, &mut at)?;
    if hash::hex(&hash.finalize()) != record.sha256 && found.is_empty() {
        found.push(damage(None, CHANGED.to_owned()));
    }
    Ok(found)
}

/// End of the rows of a row group in the file.
fn group_end(group: &RowGroup, layout: RowLayout) -> u64 {
    let ends =
        [(group.tokens, layout.tokens_width()), (group.meta, layout.meta_width())].map(|(pages, width)| {
            let last = group.rows.saturating_sub(1);
            pages.offset(last, group.rows, width).saturating_add(width as u64)
        });
    ends[0].max(ends[1])
}

fn is_undamaged(group: &RowGroup, layout: RowLayout, row: u64, start: u64, bytes: &[u8]) -> bool {
    let cell = |pages: &ColumnPages, width: usize| {
        let at = usize::try_from(pages.offset(row, group.rows, width).checked_sub(start)?).ok()?;
        bytes.get(at..at.checked_add(width)?)
    };
    let (tokens, meta) = (cell(&group.tokens, layout.tokens_width()), cell(&group.meta, layout.meta_width()));
    tokens.zip(meta).is_some_and(|(tokens, meta)| verified_row(tokens, meta).is_some())
}
