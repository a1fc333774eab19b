//! Where the numbers of a page lie.
//!
//! A page holds the keys and values of [`PAGE`] tokens in all layers and key/value heads: for each layer and head a block
//! of keys, then a block of values. Keys lie `[PAGE / 16][e][16]`: sixteen tokens side by side, so that a query is
//! multiplied with sixteen keys at once and nothing is shuffled. Values lie `[PAGE][e]`, each row filled up to a multiple of
//! 16 numbers. Behind the numbers of an int8 block lie its scales, `[PAGE]`, one f32 a token.

use std::ops::Range;

use super::narrow::{widen_bf16, widen_int8};
use crate::kv_dtype::KvDtype;

/// Tokens of a page.
pub(crate) const PAGE: usize = 64;

/// Numbers side by side that one instruction takes, or a few.
pub(super) const LANES: usize = 16;

/// Sizes of the pages of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageLayout {
    pub(crate) dtype: KvDtype,
    pub(crate) n_layers: usize,
    pub(crate) kv_n_heads: usize,
    pub(crate) head_dim: usize,
}

/// Keys or values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Keys,
    Values,
}

/// Numbers in one form.
#[derive(Clone, Copy)]
pub(super) enum Numbers<'a> {
    F32(&'a [f32]),
    /// The upper halves of the bits of f32.
    Bf16(&'a [u16]),
    /// To be multiplied by a scale.
    Int8(&'a [i8]),
}

/// One layer and head of a page: the keys or values of its tokens.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub(super) numbers: Numbers<'a>,
    /// One a token, where the form has them.
    pub(super) scales: Option<&'a [f32]>,
}

impl PageLayout {
    /// Bytes of a page.
    pub(crate) fn page_bytes(self) -> usize {
        let per_head = self.block_bytes(Half::Keys) + self.block_bytes(Half::Values);
        self.n_layers.saturating_mul(self.kv_n_heads).saturating_mul(per_head)
    }

    /// Numbers from one token's value to the next.
    pub(super) fn value_step(self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    fn numbers(self, half: Half) -> usize {
        PAGE * match half {
            Half::Keys => self.head_dim,
            Half::Values => self.value_step(),
        }
    }

    fn number_bytes(self, half: Half) -> usize {
        self.numbers(half) * self.dtype.number_bytes()
    }

    fn block_bytes(self, half: Half) -> usize {
        self.number_bytes(half) + PAGE * self.dtype.scale_bytes()
    }

    /// The bytes of a block within its page: numbers, then scales.
    pub(super) fn block(self, layer: usize, head: usize, half: Half) -> [Range<usize>; 2] {
        assert!(layer < self.n_layers && head < self.kv_n_heads, "layer {layer}, head {head}");
        let (keys, values) = (self.block_bytes(Half::Keys), self.block_bytes(Half::Values));
        let of_head = (layer * self.kv_n_heads + head) * (keys + values);
        let from = if half == Half::Keys { of_head } else { of_head + keys };
        let (scales, end) = (from + self.number_bytes(half), from + self.block_bytes(half));
        [from..scales, scales..end]
    }
}

/// One layer of the pages of a pool.
#[derive(Clone, Copy)]
pub(crate) struct Pages<'a> {
    pub(crate) layout: PageLayout,
    pub(crate) layer: usize,
    /// Memory of [`Pages::slab_pages`] pages each.
    pub(crate) slabs: &'a [&'a [u8]],
    pub(crate) slab_pages: usize,
}

impl<'a> Pages<'a> {
    /// The keys or values of one head of a page.
    pub(super) fn block(&self, page: u32, head: usize, half: Half) -> Block<'a> {
        let (slab, from) = place(self.layout, self.slab_pages, page);
        let [numbers, scales] = self.layout.block(self.layer, head, half);
        let bytes = |range: Range<usize>| &self.slabs[slab][from + range.start..from + range.end];
        let (numbers, scales) = (bytes(numbers), bytes(scales));
        match self.layout.dtype {
            KvDtype::F32 => Block { numbers: Numbers::F32(bytemuck::cast_slice(numbers)), scales: None },
            KvDtype::Bf16 => Block { numbers: Numbers::Bf16(bytemuck::cast_slice(numbers)), scales: None },
            KvDtype::Int8 => Block {
                numbers: Numbers::Int8(bytemuck::cast_slice(numbers)),
                scales: Some(bytemuck::cast_slice(scales)),
            },
        }
    }
}

/// The slab of a page, and its first byte there.
pub(super) fn place(layout: PageLayout, slab_pages: usize, page: u32) -> (usize, usize) {
    let page = page as usize;
    (page / slab_pages, page % slab_pages * layout.page_bytes())
}

impl<'a> Numbers<'a> {
    /// Those from number `first` on.
    pub(super) fn from(self, first: usize) -> Self {
        match self {
            Self::F32(numbers) => Self::F32(&numbers[first..]),
            Self::Bf16(numbers) => Self::Bf16(&numbers[first..]),
            Self::Int8(numbers) => Self::Int8(&numbers[first..]),
        }
    }

    /// The numbers as f32, before they are scaled, in `wide` where they are not f32 already.
    pub(super) fn widened<'w>(self, wide: &'w mut [f32]) -> &'w [f32]
    where
        'a: 'w,
    {
        match self {
            Self::F32(numbers) => numbers,
            Self::Bf16(numbers) => {
                widen_bf16(numbers, &mut wide[..numbers.len()]);
                &wide[..numbers.len()]
            }
            Self::Int8(numbers) => {
                widen_int8(numbers, &mut wide[..numbers.len()]);
                &wide[..numbers.len()]
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
                        [Half::Keys, Half::Values].map(|half| layout.block(layer, head, half)).concat()
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
