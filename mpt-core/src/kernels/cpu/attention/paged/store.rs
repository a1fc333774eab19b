//! Writing keys and values of new tokens to their pages, and reading them back.

use std::ops::Range;

use super::kv_convert::{f32_to_bf16, quantize_int8};
use super::layout::{KvKind, LANES, LayerPages, PAGE, PageLayout, locate_page};
use crate::kernels::cpu::pool::{self, SharedPtr};
use crate::kernels::cpu::scratch::Scratch;
use crate::kv_dtype::KvDtype;

/// Strided view of heads: element `i` of head `h` of token `t` is `data[t * token_stride + h * head_stride + i]`.
#[derive(Clone, Copy)]
pub(crate) struct HeadRows<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) token_stride: usize,
    pub(crate) head_stride: usize,
}

impl<'a> HeadRows<'a> {
    /// The `e` elements of one head of one token.
    pub(super) fn vector(self, token: usize, head: usize, e: usize) -> &'a [f32] {
        &self.data[token * self.token_stride + head * self.head_stride..][..e]
    }
}

/// New tokens in consecutive slots of one page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenRun {
    pub(crate) page: u32,
    /// Slots in the page.
    pub(crate) slots: Range<usize>,
    /// Position of the first one in the batch.
    pub(crate) first: usize,
}

/// Writes one layer's keys and values of new tokens.
///
/// # Panics
/// When two runs share a page, or a run does not fit its page, its slab or the tokens.
pub(crate) fn write_kv(
    layout: PageLayout,
    layer: usize,
    (slabs, slab_pages): (&mut [&mut [u8]], usize),
    runs: &[TokenRun],
    keys_values: [HeadRows<'_>; 2],
) {
    let mut pages: Vec<u32> = runs.iter().map(|run| run.page).collect();
    pages.sort_unstable();
    assert!(pages.windows(2).all(|pair| pair[0] < pair[1]), "each page is written by one sequence");
    assert!(runs.iter().all(|run| run.slots.end <= PAGE), "tokens of a page");
    let bases: Vec<(SharedPtr<u8>, usize)> =
        slabs.iter_mut().map(|slab| (SharedPtr(slab.as_mut_ptr()), slab.len())).collect();
    pool::run(runs.len() * layout.kv_n_heads, |task| {
        let (run, head) = (&runs[task / layout.kv_n_heads], task % layout.kv_n_heads);
        let (slab, page) = locate_page(layout, slab_pages, run.page);
        for (kind, rows) in [KvKind::Keys, KvKind::Values].into_iter().zip(keys_values) {
            let [data, scales] = layout.block(layer, head, kind).map(|range| {
                let (base, len) = bases[slab];
                assert!(page + range.end <= len, "a page lies inside its slab");
                #[expect(unsafe_code, reason = "tasks write parts of one slab")]
                // SAFETY: the range lies inside the slab, which is borrowed uniquely for the whole call. Blocks of
                // different pages, heads and kinds are disjoint, as are elements and scales; no two tasks have both page and
                // head in common, since no two runs have a page in common.
                unsafe {
                    std::slice::from_raw_parts_mut(base.get().add(page + range.start), range.len())
                }
            });
            let vectors = (run.first..run.first + run.slots.len())
                .map(|token| rows.vector(token, head, layout.head_dim));
            write_kv_block(layout, kind, data, scales, run.slots.clone().zip(vectors));
        }
    });
}

/// Writes vectors to their slots in one block.
fn write_kv_block<'v>(
    layout: PageLayout,
    kind: KvKind,
    data: &mut [u8],
    scales: &mut [u8],
    vectors: impl Iterator<Item = (usize, &'v [f32])>,
) {
    let (e, value_stride) = (layout.head_dim, layout.value_stride());
    match layout.dtype {
        KvDtype::F32 => {
            let data = bytemuck::cast_slice_mut::<u8, f32>(data);
            vectors.for_each(|(slot, x)| store_vector(kind, value_stride, data, slot, x));
        }
        KvDtype::Bf16 => {
            let (data, mut converted) = (bytemuck::cast_slice_mut::<u8, u16>(data), Scratch::take(e, 0));
            for (slot, x) in vectors {
                f32_to_bf16(x, &mut converted);
                store_vector(kind, value_stride, data, slot, &converted);
            }
        }
        KvDtype::Int8 => {
            let (data, mut converted) = (bytemuck::cast_slice_mut::<u8, i8>(data), Scratch::take(e, 0));
            let scales = bytemuck::cast_slice_mut::<u8, f32>(scales);
            for (slot, x) in vectors {
                scales[slot] = quantize_int8(x, &mut converted);
                store_vector(kind, value_stride, data, slot, &converted);
            }
        }
    }
}

/// Writes the vector of one slot.
fn store_vector<T: Copy>(kind: KvKind, value_stride: usize, data: &mut [T], slot: usize, vector: &[T]) {
    match kind {
        KvKind::Values => data[slot * value_stride..][..vector.len()].copy_from_slice(vector),
        KvKind::Keys => {
            let sixteen_keys = &mut data[slot / LANES * LANES * vector.len()..][..LANES * vector.len()];
            for (row, &x) in sixteen_keys.chunks_exact_mut(LANES).zip(vector) {
                row[slot % LANES] = x;
            }
        }
    }
}

/// Keys and values of the first `tokens` tokens of a sequence, each `[tokens, kv_n_heads, head_dim]`, as f32.
pub(crate) fn read_kv(pages: &LayerPages<'_>, table: &[u32], tokens: usize) -> [Vec<f32>; 2] {
    let (heads, e) = (pages.layout.kv_n_heads, pages.layout.head_dim);
    [KvKind::Keys, KvKind::Values].map(|kind| {
        let mut out = vec![0f32; tokens * heads * e];
        pool::run_chunks(&mut out, PAGE * heads * e, |page, out| {
            let mut buffer = Scratch::take(PAGE * pages.layout.value_stride(), 0f32);
            for head in 0..heads {
                let block = pages.block(table[page], head, kind);
                let data = block.data.to_f32(&mut buffer);
                for (slot, token) in out.chunks_exact_mut(heads * e).enumerate() {
                    let scale = block.scales.map(|scales| scales[slot]);
                    for (i, x) in token[head * e..(head + 1) * e].iter_mut().enumerate() {
                        let element = match kind {
                            KvKind::Values => data[slot * pages.layout.value_stride() + i],
                            KvKind::Keys => data[slot / LANES * LANES * e + i * LANES + slot % LANES],
                        };
                        *x = scale.map_or(element, |scale| element * scale);
                    }
                }
            }
        });
        out
    })
}
