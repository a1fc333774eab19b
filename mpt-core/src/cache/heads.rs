//! Heads of tokens as tensors have them, read in place.

use candle_core::{CpuStorage, Storage, StorageRef, Tensor};

use crate::error::{Error, Result};
use crate::kernels::cpu::attention::paged::HeadRows;

/// Heads `[tokens, heads, head_dim]`, f32 on the CPU, borrowed.
pub(crate) struct HostHeads<'a> {
    storage: StorageRef<'a>,
    first: usize,
    heads: usize,
    token_stride: usize,
    head_stride: usize,
}

impl<'a> HostHeads<'a> {
    /// Borrows `x` `[tokens, heads, head_dim]`, in which the numbers of a head are neighbors.
    ///
    /// # Errors
    /// [`Error::Shape`] naming `argument` when `x` is of another size or kind; a dimension that is `None` may be any.
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
        let (first, stride) = (layout.start_offset(), layout.stride());
        Ok(Self { first, heads: x.dims()[1], token_stride: stride[0], head_stride: stride[1], storage })
    }

    /// Number of heads.
    pub(crate) fn heads(&self) -> usize {
        self.heads
    }

    /// The numbers as kernels take them.
    pub(crate) fn rows(&self) -> HeadRows<'_> {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(data)) => HeadRows {
                data: &data[self.first..],
                token_stride: self.token_stride,
                head_stride: self.head_stride,
            },
            _ => unreachable!("checked by `new`"),
        }
    }
}
