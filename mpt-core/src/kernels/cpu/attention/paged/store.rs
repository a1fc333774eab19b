//! Writing the keys and values of new tokens to their pages, and reading them back.

use std::ops::Range;

use super::layout::{Half, LANES, PAGE, PageLayout, Pages, place};
use super::narrow::{narrow_bf16, narrow_int8};
use crate::kernels::cpu::pool::{self, Shared};
use crate::kernels::cpu::scratch::Scratch;
use crate::kv_dtype::KvDtype;

/// Heads of tokens: number `i` of head `h` of token `t` is `data[t * token_step + h * head_step + i]`.
#[derive(Clone, Copy)]
pub(crate) struct HeadRows<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) token_step: usize,
    pub(crate) head_step: usize,
}

impl<'a> HeadRows<'a> {
    /// The `e` numbers of one head of one token.
    pub(super) fn vector(self, token: usize, head: usize, e: usize) -> &'a [f32] {
        &self.data[token * self.token_step + head * self.head_step..][..e]
    }
}

/// New tokens that lie side by side in one page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) page: u32,
    /// Their places in the page.
    pub(crate) slots: Range<usize>,
    /// The first of them among the new tokens.
    pub(crate) first: usize,
}

/// Writes one layer's keys and values of new tokens.
///
/// # Panics
/// When two runs have one page, or one has no place or no token.
pub(crate) fn write(
    layout: PageLayout,
    layer: usize,
    (slabs, slab_pages): (&mut [&mut [u8]], usize),
    runs: &[Run],
    keys_values: [HeadRows<'_>; 2],
) {
    let mut pages: Vec<u32> = runs.iter().map(|run| run.page).collect();
    pages.sort_unstable();
    assert!(pages.windows(2).all(|pair| pair[0] < pair[1]), "each page is written by one sequence");
    assert!(runs.iter().all(|run| run.slots.end <= PAGE), "tokens of a page");
    let bases: Vec<(Shared<u8>, usize)> =
        slabs.iter_mut().map(|slab| (Shared(slab.as_mut_ptr()), slab.len())).collect();
    pool::run(runs.len() * layout.kv_n_heads, |task| {
        let (run, head) = (&runs[task / layout.kv_n_heads], task % layout.kv_n_heads);
        let (slab, page) = place(layout, slab_pages, run.page);
        for (half, rows) in [Half::Keys, Half::Values].into_iter().zip(keys_values) {
            let [numbers, scales] = layout.block(layer, head, half).map(|range| {
                let (base, len) = bases[slab];
                assert!(page + range.end <= len, "a page lies inside its slab");
                #[expect(unsafe_code, reason = "tasks write parts of one slab")]
                // SAFETY: the range lies inside the slab, which is borrowed uniquely for the whole call. Blocks of
                // different pages, heads and halves are disjoint, as are numbers and scales; no two tasks have both page
                // and head in common, since no two runs have a page in common.
                unsafe {
                    std::slice::from_raw_parts_mut(base.get().add(page + range.start), range.len())
                }
            });
            let vectors = (run.first..run.first + run.slots.len())
                .map(|token| rows.vector(token, head, layout.head_dim));
            write_block(layout, half, numbers, scales, run.slots.clone().zip(vectors));
        }
    });
}

/// Writes vectors to their places in one block.
fn write_block<'v>(
    layout: PageLayout,
    half: Half,
    numbers: &mut [u8],
    scales: &mut [u8],
    vectors: impl Iterator<Item = (usize, &'v [f32])>,
) {
    let (e, step) = (layout.head_dim, layout.value_step());
    match layout.dtype {
        KvDtype::F32 => {
            let numbers = bytemuck::cast_slice_mut::<u8, f32>(numbers);
            vectors.for_each(|(slot, x)| place_vector(half, step, numbers, slot, x));
        }
        KvDtype::Bf16 => {
            let (numbers, mut narrow) = (bytemuck::cast_slice_mut::<u8, u16>(numbers), Scratch::take(e, 0));
            for (slot, x) in vectors {
                narrow_bf16(x, &mut narrow);
                place_vector(half, step, numbers, slot, &narrow);
            }
        }
        KvDtype::Int8 => {
            let (numbers, mut narrow) = (bytemuck::cast_slice_mut::<u8, i8>(numbers), Scratch::take(e, 0));
            let scales = bytemuck::cast_slice_mut::<u8, f32>(scales);
            for (slot, x) in vectors {
                scales[slot] = narrow_int8(x, &mut narrow);
                place_vector(half, step, numbers, slot, &narrow);
            }
        }
    }
}

fn place_vector<T: Copy>(half: Half, value_step: usize, numbers: &mut [T], slot: usize, vector: &[T]) {
    match half {
        Half::Values => numbers[slot * value_step..][..vector.len()].copy_from_slice(vector),
        Half::Keys => {
            let of_sixteen = &mut numbers[slot / LANES * LANES * vector.len()..][..LANES * vector.len()];
            for (row, &x) in of_sixteen.chunks_exact_mut(LANES).zip(vector) {
                row[slot % LANES] = x;
            }
        }
    }
}

/// Reads the first `tokens` keys and values of a sequence, each `[tokens, kv_n_heads, head_dim]` as f32.
pub(crate) fn read(pages: &Pages<'_>, table: &[u32], tokens: usize) -> [Vec<f32>; 2] {
    let (heads, e) = (pages.layout.kv_n_heads, pages.layout.head_dim);
    [Half::Keys, Half::Values].map(|half| {
        let mut out = vec![0f32; tokens * heads * e];
        pool::run_chunks(&mut out, PAGE * heads * e, |page, out| {
            let mut wide = Scratch::take(PAGE * pages.layout.value_step(), 0f32);
            for head in 0..heads {
                let block = pages.block(table[page], head, half);
                let numbers = block.numbers.widened(&mut wide);
                for (slot, token) in out.chunks_exact_mut(heads * e).enumerate() {
                    let scale = block.scales.map(|scales| scales[slot]);
                    for (i, x) in token[head * e..(head + 1) * e].iter_mut().enumerate() {
                        let number = match half {
                            Half::Values => numbers[slot * pages.layout.value_step() + i],
                            Half::Keys => numbers[slot / LANES * LANES * e + i * LANES + slot % LANES],
                        };
                        *x = scale.map_or(number, |scale| number * scale);
                    }
                }
            }
        });
        out
    })
}
