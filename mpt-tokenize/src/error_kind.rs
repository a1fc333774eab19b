//! Kinds of errors: the coarse cause of a failure, which decides the exit code of a program.
//!
//! The enum of `mpt-core` stands apart: neither crate depends on the other.

use std::io;

/// Kind of an error, by the remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A setting, a parameter or a path is wrong: ask for something else.
    Usage,
    /// A file or data is unusable: restore or replace it.
    Data,
    /// Memory, the disk or the network failed: the same may work later or elsewhere.
    System,
    /// The caller asked to stop.
    Interrupted,
    /// A program is wrong, this one or the one that calls it.
    Bug,
}

impl ErrorKind {
    /// Kind of an I/O error: `unusable` where the file is missing or is not what it should be, else [`ErrorKind::System`].
    pub fn of_io(error: &io::Error, unusable: Self) -> Self {
        use io::ErrorKind as K;
        match error.kind() {
            K::NotFound
            | K::InvalidData
            | K::UnexpectedEof
            | K::IsADirectory
            | K::NotADirectory
            | K::InvalidInput => unusable,
            _ => Self::System,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_and_a_failing_disk_differ() {
        let missing = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(ErrorKind::of_io(&missing, ErrorKind::Usage), ErrorKind::Usage);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(ErrorKind::of_io(&full, ErrorKind::Usage), ErrorKind::System);
    }
}
