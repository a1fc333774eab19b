//! Kinds of errors: the coarse cause of a failure, which decides the exit code of a program.

use std::io;

/// Kind of an error, by the remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A setting, a parameter or a path is wrong: ask for something else.
    Usage,
    /// A model, a file or data is unusable: restore or replace it.
    Data,
    /// The device, memory, the disk or the network failed: the same may work later or elsewhere.
    System,
    /// A number is infinite or NaN.
    NotFinite,
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

impl From<&candle_core::Error> for ErrorKind {
    /// Unusable files are [`ErrorKind::Data`] and device failures [`ErrorKind::System`]. All other errors of candle report a
    /// wrong call, [`ErrorKind::Bug`].
    fn from(error: &candle_core::Error) -> Self {
        use candle_core::Error as E;
        match error {
            E::Context { inner, .. } | E::WithPath { inner, .. } | E::WithBacktrace { inner, .. } => {
                Self::from(&**inner)
            }
            E::Io(error) => Self::of_io(error, Self::Data),
            E::Cuda(_) | E::Metal(_) | E::NotCompiledWithCudaSupport | E::NotCompiledWithMetalSupport => {
                Self::System
            }
            E::SafeTensor(_)
            | E::UnsupportedSafeTensorDtype(_)
            | E::CannotFindTensor { .. }
            | E::Npy(_)
            | E::Zip(_)
            | E::ParseInt(_)
            | E::FromUtf8(_) => Self::Data,
            E::UnexpectedDType { .. }
            | E::DTypeMismatchBinaryOp { .. }
            | E::UnsupportedDTypeForOp(..)
            | E::DimOutOfRange { .. }
            | E::DuplicateDimIndex { .. }
            | E::UnexpectedNumberOfDims { .. }
            | E::UnexpectedShape { .. }
            | E::ShapeMismatch { .. }
            | E::ShapeMismatchBinaryOp { .. }
            | E::ShapeMismatchCat { .. }
            | E::ShapeMismatchSplit { .. }
            | E::OnlySingleDimension { .. }
            | E::EmptyTensor { .. }
            | E::DeviceMismatchBinaryOp { .. }
            | E::NarrowInvalidArgs { .. }
            | E::Conv1dInvalidArgs { .. }
            | E::InvalidIndex { .. }
            | E::BroadcastIncompatibleShapes { .. }
            | E::CannotSetVar { .. }
            | E::MatMulUnexpectedStriding(_)
            | E::RequiresContiguous { .. }
            | E::OpRequiresAtLeastOneTensor { .. }
            | E::OpRequiresAtLeastTwoTensors { .. }
            | E::BackwardNotSupported { .. }
            | E::TryFromIntError(_)
            | E::Wrapped(_)
            | E::WrappedContext { .. }
            | E::Msg(_)
            | E::UnwrapNone => Self::Bug,
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn a_missing_file_and_a_failing_disk_differ() {
        let missing = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(ErrorKind::of_io(&missing, ErrorKind::Usage), ErrorKind::Usage);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(ErrorKind::of_io(&full, ErrorKind::Usage), ErrorKind::System);
    }

    #[test]
    fn shapes_are_a_bug_files_data_and_devices_the_systems() {
        let tensor = |len| Tensor::zeros(len, candle_core::DType::F32, &Device::Cpu).expect("small");
        let shapes = tensor(2).add(&tensor(3)).expect_err("2 and 3");
        assert_eq!(ErrorKind::from(&shapes.context("adding")), ErrorKind::Bug);
        let dir = tempfile::tempdir().expect("a temporary folder");
        let missing =
            candle_core::safetensors::load(dir.path().join("x"), &Device::Cpu).expect_err("nothing there");
        assert_eq!(ErrorKind::from(&missing), ErrorKind::Data);
        assert_eq!(ErrorKind::from(&candle_core::Error::NotCompiledWithCudaSupport), ErrorKind::System);
    }
}
