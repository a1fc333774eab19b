//! Tensors as slices of f32 in main memory.

use std::cell::RefCell;
use std::ops::{Deref, Range};

use candle_core::{CpuStorage, InplaceOp1, Layout, Storage, Tensor, bail};

use crate::error::Result;

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
    let (from, to) = contiguous_offsets(tensor.layout())?;
    Ok(HostSlice { storage: host_storage(tensor)?, range: from..to })
}

/// Borrows all of the storage from the first element of `tensor` on, which may be strided.
pub(crate) fn strided_slice(tensor: &Tensor) -> Result<HostSlice<'_>> {
    let storage = host_storage(tensor)?;
    let end = match &*storage {
        Storage::Cpu(CpuStorage::F32(data)) => data.len(),
        _ => unreachable!("checked by `host_storage`"),
    };
    Ok(HostSlice { storage, range: tensor.layout().start_offset()..end })
}

fn host_storage(tensor: &Tensor) -> Result<candle_core::StorageRef<'_>> {
    let (storage, _) = tensor.storage_and_layout();
    if !matches!(&*storage, Storage::Cpu(CpuStorage::F32(_))) {
        let found = format!("{:?} on {:?}", tensor.dtype(), tensor.device());
        return Err(candle_core::Error::Msg(format!("a tensor is {found}, expected f32 on the CPU")).into());
    }
    Ok(storage)
}

fn contiguous_offsets(layout: &Layout) -> candle_core::Result<(usize, usize)> {
    match layout.contiguous_offsets() {
        Some(offsets) => Ok(offsets),
        None => bail!("a contiguous tensor is needed, strides are {:?}", layout.stride()),
    }
}

/// Runs `change` on the elements of a contiguous f32 tensor, in place.
pub(crate) fn change_in_place<R>(tensor: &Tensor, change: impl FnOnce(&mut [f32]) -> R) -> Result<R> {
    let op = Change { change: RefCell::new(Some(change)), result: RefCell::new(None) };
    tensor.inplace_op1(&op)?;
    Ok(op.result.into_inner().expect("an in-place op runs once"))
}

struct Change<F, R> {
    change: RefCell<Option<F>>,
    result: RefCell<Option<R>>,
}

impl<R, F: FnOnce(&mut [f32]) -> R> InplaceOp1 for Change<F, R> {
    fn name(&self) -> &'static str {
        "change in place"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let CpuStorage::F32(data) = storage else { bail!("an f32 tensor is needed to change it in place") };
        let (from, to) = contiguous_offsets(layout)?;
        let change = self.change.borrow_mut().take().expect("an in-place op runs once");
        *self.result.borrow_mut() = Some(change(&mut data[from..to]));
        Ok(())
    }
}

/// A tensor of `values` with the shape and the device of `like`.
pub(crate) fn tensor_like(values: Vec<f32>, like: &Tensor) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, like.shape(), like.device())?)
}

/// A tensor of `values` with the shape of `x` but for a last dimension of `width`.
pub(crate) fn tensor_of_width(values: Vec<f32>, x: &Tensor, width: usize) -> Result<Tensor> {
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = width;
    }
    Ok(Tensor::from_vec(values, dims, x.device())?)
}
