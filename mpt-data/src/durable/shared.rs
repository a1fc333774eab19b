//! Files whose names say what they hold: whoever comes second writes the same, so nobody waits for anybody.

use std::fs;
use std::io::Write;
use std::path::Path;

use super::{make_parent, parent, sync_dir};
use crate::error::{Error, Result};

/// Writes a file that others may be writing with the same bytes: aside under a name of its own, synced, renamed, synced.
/// Missing parent folders are made.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub(crate) fn write_shared(path: &Path, bytes: &[u8]) -> Result<()> {
    make_parent(path)?;
    let mut aside = named_by_chance().tempfile_in(parent(path)).map_err(Error::io(path, "creating"))?;
    aside.write_all(bytes).map_err(Error::io(path, "writing"))?;
    aside.as_file().sync_all().map_err(Error::io(path, "syncing"))?;
    aside.persist(path).map_err(|error| Error::io(path, "renaming to")(error.error))?;
    sync_dir(parent(path))
}

/// Names of files in the making; others may read what becomes of them, as of any file.
fn named_by_chance() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_writers_of_the_same_none_is_refused_and_nothing_stays_aside() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("deep/copy");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| write_shared(&path, &[7; 1 << 16]).expect("written"));
            }
        });
        assert_eq!(fs::read(&path).expect("readable"), [7; 1 << 16]);
        assert_eq!(fs::read_dir(dir.path().join("deep")).expect("listable").count(), 1);
    }
}
