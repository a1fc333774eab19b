//! CPU tensors as slices of f32.

use std::cell::RefCell;
use std::ops::{Deref, Range};

use candle_core::{CpuStorage, InplaceOp1, Layout, Storage, Tensor, bail};

use crate::error::Result;

/// Borrowed elements of an f32 tensor on the CPU.
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

/// Borrows the elements of a contiguous tensor.
///
/// # Errors
/// When `tensor` is not contiguous, f32 and on the CPU.
pub(crate) fn host_slice(tensor: &Tensor) -> Result<HostSlice<'_>> {
    let (from, to) = contiguous_offsets(tensor.layout())?;
    Ok(HostSlice { storage: host_storage(tensor)?, range: from..to })
}

/// Borrows the storage of `tensor`, which may be strided, from its first element on.
///
/// # Errors
/// When `tensor` is not f32 and on the CPU.
pub(crate) fn host_slice_strided(tensor: &Tensor) -> Result<HostSlice<'_>> {
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

/// Runs `body` on the mutable elements of a contiguous f32 tensor.
///
/// # Errors
/// When `tensor` is not contiguous, f32 and on the CPU.
pub(crate) fn with_slice_mut<R>(tensor: &Tensor, body: impl FnOnce(&mut [f32]) -> R) -> Result<R> {
    let op = InPlace { body: RefCell::new(Some(body)), result: RefCell::new(None) };
    tensor.inplace_op1(&op)?;
    Ok(op.result.into_inner().expect("an in-place op runs once"))
}

/// In-place op that runs a closure once.
struct InPlace<F, R> {
    body: RefCell<Option<F>>,
    result: RefCell<Option<R>>,
}

impl<R, F: FnOnce(&mut [f32]) -> R> InplaceOp1 for InPlace<F, R> {
    fn name(&self) -> &'static str {
        "change in place"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let CpuStorage::F32(data) = storage else { bail!("an f32 tensor is needed to change it in place") };
        let (from, to) = contiguous_offsets(layout)?;
        let body = self.body.borrow_mut().take().expect("an in-place op runs once");
        *self.result.borrow_mut() = Some(body(&mut data[from..to]));
        Ok(())
    }
}

/// Tensor of `values` with the shape and device of `like`.
pub(crate) fn tensor_like(values: Vec<f32>, like: &Tensor) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, like.shape(), like.device())?)
}

/// Tensor of `values` with the shape of `x` except for a last dimension of `width`.
pub(crate) fn tensor_with_width(values: Vec<f32>, x: &Tensor, width: usize) -> Result<Tensor> {
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = width;
    }
    Ok(Tensor::from_vec(values, dims, x.device())?)
}
