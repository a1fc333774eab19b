//! Strided view of heads in a tensor's host memory.

use candle_core::{CpuStorage, Storage, StorageRef, Tensor};

use crate::error::{Error, Result};
use crate::kernels::cpu::attention::paged::HeadRows;

/// Borrowed heads `[tokens, heads, head_dim]`, f32 on the CPU; a head is contiguous.
pub(crate) struct HeadView<'a> {
    storage: StorageRef<'a>,
    offset: usize,
    heads: usize,
    token_stride: usize,
    head_stride: usize,
}

impl<'a> HeadView<'a> {
    /// Borrows `x` `[tokens, heads, head_dim]`; `sizes` has the expected dimensions, `None` for any.
    ///
    /// # Errors
    /// [`Error::Shape`] naming `argument` for another shape, dtype, device or stride.
    pub(crate) fn new(
        op: &'static str,
        argument: &'static str,
        x: &'a Tensor,
        sizes: [Option<usize>; 3],
    ) -> Result<Self> {
        let is_size = x.rank() == 3
            && x.dims().iter().zip(sizes).all(|(&found, size)| size.is_none_or(|size| size == found));
        let (storage, layout) = x.storage_and_layout();
        let is_f32 = matches!(&*storage, Storage::Cpu(CpuStorage::F32(_)));
        if !is_size || !is_f32 || layout.stride()[2] != 1 {
            let size = |size: Option<usize>| size.map_or("any".to_owned(), |size| size.to_string());
            let expected =
                format!("[{}], f32 on the CPU, numbers of a head side by side", sizes.map(size).join(", "));
            let actual = format!("{:?}, {:?}, strides {:?}", x.dims(), x.dtype(), layout.stride());
            return Err(Error::Shape { op, argument, actual, expected });
        }
        let (offset, stride) = (layout.start_offset(), layout.stride());
        Ok(Self { offset, heads: x.dims()[1], token_stride: stride[0], head_stride: stride[1], storage })
    }

    /// Number of heads.
    pub(crate) fn heads(&self) -> usize {
        self.heads
    }

    /// Strided rows for the kernels.
    pub(crate) fn rows(&self) -> HeadRows<'_> {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(data)) => HeadRows {
                data: &data[self.offset..],
                token_stride: self.token_stride,
                head_stride: self.head_stride,
            },
            _ => unreachable!("checked by `new`"),
        }
    }
}
