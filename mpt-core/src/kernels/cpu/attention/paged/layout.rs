//! Memory layout of a page.
//!
//! A page holds the keys and values of [`PAGE`] tokens in all layers and key/value heads: for each layer and head a block of keys,
//! then a block of values. Keys are `[PAGE / 16, e, 16]`, sixteen tokens side by side, so that a query is multiplied with sixteen
//! keys at once without shuffles. Values are `[PAGE, e]`, with rows padded to a multiple of 16 elements. The scales of an int8
//! block, `[PAGE]` f32, follow its elements.

use std::ops::Range;

use super::kv_convert::{bf16_to_f32, int8_to_f32};
use crate::kv_dtype::KvDtype;

/// Tokens of a page.
pub(crate) const PAGE: usize = 64;

/// Elements of a vector.
pub(super) const LANES: usize = 16;

/// Dtype and sizes of the pages of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageLayout {
    pub(crate) dtype: KvDtype,
    pub(crate) n_layers: usize,
    pub(crate) kv_n_heads: usize,
    pub(crate) head_dim: usize,
}

/// Keys or values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KvKind {
    Keys,
    Values,
}

/// Elements of keys or values in one dtype.
#[derive(Clone, Copy)]
pub(super) enum KvSlice<'a> {
    F32(&'a [f32]),
    /// Bits of bf16.
    Bf16(&'a [u16]),
    /// Codes, to be multiplied by a scale.
    Int8(&'a [i8]),
}

/// Keys or values of one layer and head of a page.
#[derive(Clone, Copy)]
pub(super) struct KvBlock<'a> {
    pub(super) data: KvSlice<'a>,
    /// One scale a token, for int8.
    pub(super) scales: Option<&'a [f32]>,
}

impl PageLayout {
    /// Bytes of a page.
    pub(crate) fn page_bytes(self) -> usize {
        let per_head = self.block_bytes(KvKind::Keys) + self.block_bytes(KvKind::Values);
        self.n_layers.saturating_mul(self.kv_n_heads).saturating_mul(per_head)
    }

    /// Elements from one token's value to the next.
    pub(super) fn value_stride(self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// Elements of a block.
    fn block_len(self, kind: KvKind) -> usize {
        PAGE * match kind {
            KvKind::Keys => self.head_dim,
            KvKind::Values => self.value_stride(),
        }
    }

    /// Bytes of the elements of a block.
    fn data_bytes(self, kind: KvKind) -> usize {
        self.block_len(kind) * self.dtype.number_bytes()
    }

    /// Bytes of a block, scales included.
    fn block_bytes(self, kind: KvKind) -> usize {
        self.data_bytes(kind) + PAGE * self.dtype.scale_bytes()
    }

    /// Byte ranges of a block within its page: elements, then scales.
    ///
    /// # Panics
    /// When there is no such layer or head.
    pub(super) fn block(self, layer: usize, head: usize, kind: KvKind) -> [Range<usize>; 2] {
        assert!(layer < self.n_layers && head < self.kv_n_heads, "layer {layer}, head {head}");
        let (keys, values) = (self.block_bytes(KvKind::Keys), self.block_bytes(KvKind::Values));
        let head_start = (layer * self.kv_n_heads + head) * (keys + values);
        let from = if kind == KvKind::Keys { head_start } else { head_start + keys };
        let (scales, end) = (from + self.data_bytes(kind), from + self.block_bytes(kind));
        [from..scales, scales..end]
    }
}

/// View of one layer of the pages of a pool.
#[derive(Clone, Copy)]
pub(crate) struct LayerPages<'a> {
    pub(crate) layout: PageLayout,
    pub(crate) layer: usize,
    /// Slabs of [`LayerPages::slab_pages`] pages each.
    pub(crate) slabs: &'a [&'a [u8]],
    pub(crate) slab_pages: usize,
}

impl<'a> LayerPages<'a> {
    /// Keys or values of one head of a page.
    pub(super) fn block(&self, page: u32, head: usize, kind: KvKind) -> KvBlock<'a> {
        let (slab, from) = locate_page(self.layout, self.slab_pages, page);
        let [data, scales] = self.layout.block(self.layer, head, kind);
        let bytes = |range: Range<usize>| &self.slabs[slab][from + range.start..from + range.end];
        let (data, scales) = (bytes(data), bytes(scales));
        match self.layout.dtype {
            KvDtype::F32 => KvBlock { data: KvSlice::F32(bytemuck::cast_slice(data)), scales: None },
            KvDtype::Bf16 => KvBlock { data: KvSlice::Bf16(bytemuck::cast_slice(data)), scales: None },
            KvDtype::Int8 => KvBlock {
                data: KvSlice::Int8(bytemuck::cast_slice(data)),
                scales: Some(bytemuck::cast_slice(scales)),
            },
        }
    }
}

/// Slab of a page, and its first byte there.
pub(super) fn locate_page(layout: PageLayout, slab_pages: usize, page: u32) -> (usize, usize) {
    let page = page as usize;
    (page / slab_pages, page % slab_pages * layout.page_bytes())
}

impl<'a> KvSlice<'a> {
    /// Elements from `first` on.
    pub(super) fn from(self, first: usize) -> Self {
        match self {
            Self::F32(data) => Self::F32(&data[first..]),
            Self::Bf16(data) => Self::Bf16(&data[first..]),
            Self::Int8(data) => Self::Int8(&data[first..]),
        }
    }

    /// Elements as f32, without their scales; in `buffer` unless they are f32 already.
    pub(super) fn to_f32<'w>(self, buffer: &'w mut [f32]) -> &'w [f32]
    where
        'a: 'w,
    {
        match self {
            Self::F32(data) => data,
            Self::Bf16(data) => {
                bf16_to_f32(data, &mut buffer[..data.len()]);
                &buffer[..data.len()]
            }
            Self::Int8(data) => {
                int8_to_f32(data, &mut buffer[..data.len()]);
                &buffer[..data.len()]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_fill_a_page_without_gaps() {
        for dtype in KvDtype::ALL {
            for head_dim in [8, 64, 80] {
                let layout = PageLayout { dtype, n_layers: 3, kv_n_heads: 2, head_dim };
                let mut end = 0;
                for (layer, head) in (0..3).flat_map(|layer| [(layer, 0), (layer, 1)]) {
                    for range in
                        [KvKind::Keys, KvKind::Values].map(|kind| layout.block(layer, head, kind)).concat()
                    {
                        assert_eq!(range.start, end);
                        assert_eq!(range.start % 64, 0, "vectors begin at a line of the cache");
                        end = range.end;
                    }
                }
                assert_eq!(end, layout.page_bytes());
            }
        }
    }
}
