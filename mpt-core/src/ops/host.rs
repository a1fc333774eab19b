//! Reading tensors as slices of f32 in main memory.

use std::ops::{Deref, Range};

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};

/// The elements of a contiguous f32 tensor on the CPU, borrowed.
pub(crate) struct HostSlice<'a> {
    storage: candle_core::StorageRef<'a>,
    range: Range<usize>,
}

impl Deref for HostSlice<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(data)) => &data[self.range.clone()],
            _ => unreachable!("checked by `host_slice`"),
        }
    }
}

/// Borrows the elements of `tensor`, which is contiguous, f32 and on the CPU.
pub(crate) fn host_slice(tensor: &Tensor) -> Result<HostSlice<'_>> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some((from, to)) = layout.contiguous_offsets() else {
        bail!("a contiguous tensor is needed, strides are {:?}", layout.stride())
    };
    match &*storage {
        Storage::Cpu(CpuStorage::F32(_)) => {}
        _ => bail!(
            "an f32 tensor on the CPU is needed, this one is {:?} on {:?}",
            tensor.dtype(),
            tensor.device()
        ),
    }
    Ok(HostSlice { storage, range: from..to })
}

/// The elements of a contiguous argument inside a custom op.
pub(crate) fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((from, to)) = layout.contiguous_offsets() else {
        bail!("a contiguous tensor is needed, strides are {:?}", layout.stride())
    };
    Ok(&f32s(storage)?[from..to])
}

/// All elements behind an argument inside a custom op.
pub(crate) fn f32s(storage: &CpuStorage) -> Result<&[f32]> {
    match storage {
        CpuStorage::F32(data) => Ok(data),
        _ => bail!("an f32 tensor is needed"),
    }
}
