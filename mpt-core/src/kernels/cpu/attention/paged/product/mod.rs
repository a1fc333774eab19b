//! The innermost loops of attention over pages: rows of a matrix, weighted and summed for a few queries at once.
//!
//! Scores are this product, where rows are the numbers of a head and sixteen keys lie side by side; and so are weighted
//! values, where rows are keys and the numbers of a value lie side by side. Every element of the result is one sum in the
//! order of rows, with one rounding a row where the level has fused multiply-add and two where it has not: for one query and
//! for six, for one block of columns and for eight, from f32 and from what is widened on the way.

mod lanes;

use lanes::{Element, Lanes, Plain};

use super::layout::{LANES, Numbers};
use crate::kernels::cpu::dispatch::Level;

/// Queries of a product at most, on any level.
const QUERIES: usize = 6;

/// A product `[queries, 16 blocks]` over `rows` rows.
pub(super) struct Product<'a> {
    /// Weight of row r for query q: element `q * weight_step + r`.
    pub(super) weights: &'a [f32],
    pub(super) weight_step: usize,
    /// Sixteen numbers of block b of row r: those from number `r * row_step + b * block_step`.
    pub(super) matrix: Numbers<'a>,
    pub(super) row_step: usize,
    pub(super) block_step: usize,
    pub(super) queries: usize,
    pub(super) rows: usize,
    pub(super) blocks: usize,
    /// Whether the product is added to what the result holds.
    pub(super) add: bool,
    /// Numbers that are read soon: asked for meanwhile.
    pub(super) ahead: Option<Numbers<'a>>,
}

/// Queries that a product of `level` has at most.
pub(super) fn most_queries(level: Level) -> usize {
    if level == Level::Baseline { Plain::QUERIES } else { QUERIES }
}

impl Product<'_> {
    /// Computes the product; block b of query q are the sixteen numbers of `out` from `q * out_step + 16 b`.
    ///
    /// # Panics
    /// When an operand or `out` is too short, or there are more queries than [`most_queries`].
    pub(super) fn run(&self, level: Level, out: &mut [f32], out_step: usize) {
        if self.queries == 0 || self.blocks == 0 {
            return;
        }
        assert!(self.queries <= most_queries(level), "{} queries", self.queries);
        assert!(out.len() >= (self.queries - 1) * out_step + self.blocks * LANES, "the result has room");
        let out = Out { first: out.as_mut_ptr(), step: out_step };
        match self.matrix {
            Numbers::F32(matrix) => self.of_form(level, matrix, out),
            Numbers::Bf16(matrix) => self.of_form(level, matrix, out),
            Numbers::Int8(matrix) => self.of_form(level, matrix, out),
        }
    }

    fn of_form<T: Element>(&self, level: Level, matrix: &[T], out: Out) {
        if self.rows > 0 {
            let (last_weight, last_row) = ((self.queries - 1) * self.weight_step, self.rows - 1);
            let last_block = last_row * self.row_step + (self.blocks - 1) * self.block_step;
            assert!(self.weights.len() >= last_weight + self.rows, "a weight for each query and row");
            assert!(matrix.len() >= last_block + LANES, "all blocks of all rows");
        }
        let ahead = self.ahead.and_then(T::of).map(<[T]>::as_ptr);
        let typed = Typed { product: self, matrix: matrix.as_ptr(), ahead };
        #[cfg(target_arch = "x86_64")]
        {
            use lanes::{Avx2, Avx512};

            #[expect(unsafe_code, reason = "operands are read through pointers")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            unsafe fn avx512<T: Element>(typed: &Typed<'_, T>, out: Out) {
                // SAFETY: the caller's promise, and the features of this function.
                unsafe { by_queries::<Avx512, T>(typed, out) }
            }
            #[expect(unsafe_code, reason = "operands are read through pointers")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2<T: Element>(typed: &Typed<'_, T>, out: Out) {
                // SAFETY: the caller's promise, and the features of this function.
                unsafe { by_queries::<Avx2, T>(typed, out) }
            }

            #[expect(unsafe_code, reason = "the call needs the features of its level")]
            match level {
                Level::Avx512 | Level::Avx512Bf16 | Level::Amx => {
                    // SAFETY: `level` is found only where its features are; operands and result were checked above.
                    return unsafe { avx512(&typed, out) };
                }
                // SAFETY: as above.
                Level::Avx2 => return unsafe { avx2(&typed, out) },
                Level::Baseline => {}
            }
        }
        #[expect(unsafe_code, reason = "operands are read through pointers")]
        // SAFETY: operands and result were checked above; the baseline needs no features.
        unsafe {
            by_queries::<Plain, T>(&typed, out)
        }
    }
}

/// A product with its matrix, whose length has been checked, in one form.
struct Typed<'a, T> {
    product: &'a Product<'a>,
    matrix: *const T,
    ahead: Option<*const T>,
}

/// Where a result lies.
#[derive(Clone, Copy)]
struct Out {
    first: *mut f32,
    step: usize,
}

#[expect(unsafe_code, reason = "operands are read through pointers")]
/// # Safety
/// The processor has the features of `L`; operands and result are as long as the product says, with at most six queries.
#[inline(always)]
unsafe fn by_queries<L: Lanes, T: Element>(typed: &Typed<'_, T>, out: Out) {
    // SAFETY: the caller's promise.
    unsafe {
        match typed.product.queries {
            1 => by_blocks::<L, T, 1>(typed, out),
            2 => by_blocks::<L, T, 2>(typed, out),
            3 => by_blocks::<L, T, 3>(typed, out),
            4 => by_blocks::<L, T, 4>(typed, out),
            5 => by_blocks::<L, T, 5>(typed, out),
            _ => by_blocks::<L, T, 6>(typed, out),
        }
    }
}

#[expect(unsafe_code, reason = "operands are read through pointers")]
/// # Safety
/// As [`by_queries`], for Q queries.
#[inline(always)]
unsafe fn by_blocks<L: Lanes, T: Element, const Q: usize>(typed: &Typed<'_, T>, out: Out) {
    let mut block = 0;
    while block < typed.product.blocks {
        let (left, sums) = (typed.product.blocks - block, |blocks| Q * blocks <= L::SUMS);
        // SAFETY: the caller's promise; the blocks of each tile are among the product's.
        block += unsafe {
            if sums(8) && left >= 8 {
                tile::<L, T, Q, 8>(typed, block, out)
            } else if sums(4) && left >= 4 {
                tile::<L, T, Q, 4>(typed, block, out)
            } else if sums(2) && left >= 2 {
                tile::<L, T, Q, 2>(typed, block, out)
            } else {
                tile::<L, T, Q, 1>(typed, block, out)
            }
        };
    }
}

#[expect(unsafe_code, reason = "operands are read through pointers")]
/// The blocks `block .. block + B` of Q queries; returns B.
///
/// # Safety
/// As [`by_queries`], for Q queries and at least `block + B` blocks.
#[inline(always)]
unsafe fn tile<L: Lanes, T: Element, const Q: usize, const B: usize>(
    typed: &Typed<'_, T>,
    block: usize,
    out: Out,
) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        let product = typed.product;
        let out_of = |q: usize, b: usize| out.first.add(q * out.step + (block + b) * LANES);
        let weights: [*const f32; Q] =
            std::array::from_fn(|q| product.weights.as_ptr().add(q * product.weight_step));
        let mut row = typed.matrix.add(block * product.block_step);
        let mut ahead = Ahead::new(typed, block);
        let mut sums = [[L::zero(); B]; Q];
        if product.add {
            for (q, sums) in sums.iter_mut().enumerate() {
                for (b, sum) in sums.iter_mut().enumerate() {
                    *sum = L::load(out_of(q, b));
                }
            }
        }
        for r in 0..product.rows {
            ahead.ask::<B>();
            let mut numbers = [L::zero(); B];
            for (b, numbers) in numbers.iter_mut().enumerate() {
                *numbers = T::load::<L>(row.add(b * product.block_step));
            }
            for (sums, weights) in sums.iter_mut().zip(&weights) {
                let weight = L::splat(*weights.add(r));
                for (sum, &numbers) in sums.iter_mut().zip(&numbers) {
                    *sum = L::multiply_add(weight, numbers, *sum);
                }
            }
            row = row.wrapping_add(product.row_step);
        }
        for (q, sums) in sums.into_iter().enumerate() {
            for (b, sum) in sums.into_iter().enumerate() {
                L::store(out_of(q, b), sum);
            }
        }
    }
    B
}

/// Asks for bytes that are read soon: the processor does so by itself only within its pages of memory, which it soon leaves.
struct Ahead<T> {
    next: Option<*const T>,
}

/// Bytes of a line of the processor's cache.
const LINE: usize = 64;

impl<T> Ahead<T> {
    /// What a tile asks for: the tiles of a product share it.
    #[inline(always)]
    fn new(typed: &Typed<'_, T>, block: usize) -> Self {
        let share = block * typed.product.rows * LANES;
        Self { next: typed.ahead.map(|ahead| ahead.wrapping_add(share)) }
    }

    /// Asks for as many numbers as one row of B blocks has.
    #[inline(always)]
    fn ask<const B: usize>(&mut self) {
        let Some(next) = &mut self.next else { return };
        let per_line = LINE / size_of::<T>();
        for line in 0..B * LANES / per_line {
            prefetch(next.wrapping_add(line * per_line));
        }
        *next = next.wrapping_add(B * LANES);
    }
}

#[inline(always)]
fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "a prefetch takes a raw pointer")]
    // SAFETY: a prefetch is a hint without effect on memory, and every x86-64 processor has it.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

        _mm_prefetch::<_MM_HINT_T1>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::cpu::dispatch::levels;
    use crate::rng::CounterRng;
    use proptest::prelude::*;

    /// One sum at a time.
    fn plain<T: Element>(
        product: &Product<'_>,
        matrix: &[T],
        level: Level,
        out: &mut [f32],
        out_step: usize,
    ) {
        for (q, b, lane) in (0..product.queries)
            .flat_map(|q| (0..product.blocks).flat_map(move |b| (0..LANES).map(move |lane| (q, b, lane))))
        {
            let at = q * out_step + b * LANES + lane;
            let mut sum = if product.add { out[at] } else { 0.0 };
            for r in 0..product.rows {
                let weight = product.weights[q * product.weight_step + r];
                let number = matrix[r * product.row_step + b * product.block_step + lane].widened();
                sum = match level {
                    Level::Baseline => sum + weight * number,
                    _ => weight.mul_add(number, sum),
                };
            }
            out[at] = sum;
        }
    }

    fn normal(n: usize, rng: &mut CounterRng) -> Vec<f32> {
        (0..n).map(|_| rng.normal()).collect()
    }

    /// Compares a product of `[queries, rows, blocks]` with one sum at a time, on all levels.
    fn agrees<T: Element>(
        [queries, rows, blocks]: [usize; 3],
        [add, keys]: [bool; 2],
        matrix: &[T],
        numbers: Numbers<'_>,
        rng: &mut CounterRng,
    ) {
        let (weight_step, out_step) = (rows + 3, blocks * LANES + 5);
        let (row_step, block_step) = if keys { (LANES, rows * LANES) } else { (blocks * LANES, LANES) };
        let weights = normal(queries * weight_step, rng);
        for level in levels().filter(|&level| queries <= most_queries(level)) {
            let product = Product {
                weights: &weights,
                weight_step,
                matrix: numbers,
                row_step,
                block_step,
                queries,
                rows,
                blocks,
                add,
                ahead: add.then_some(numbers),
            };
            let mut found = normal(queries * out_step, rng);
            let mut expected = found.clone();
            product.run(level, &mut found, out_step);
            plain(&product, matrix, level, &mut expected, out_step);
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&found), bits(&expected), "{level:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn every_element_is_one_sum_in_the_order_of_rows(queries in 1usize..=QUERIES, rows in 0usize..70, blocks in 1usize..20,
                                                        add: bool, keys: bool, seed: u64) {
            let (sizes, how) = ([queries, rows, blocks], [add, keys]);
            let rng = &mut CounterRng::new(seed, 0);
            let x = normal(rows * blocks * LANES, rng);
            agrees(sizes, how, &x, Numbers::F32(&x), rng);
            let halves: Vec<u16> = x.iter().map(|&x| half::bf16::from_f32(x).to_bits()).collect();
            agrees(sizes, how, &halves, Numbers::Bf16(&halves), rng);
            let bytes: Vec<i8> = x.iter().map(|x| (x * 40.0) as i8).collect();
            agrees(sizes, how, &bytes, Numbers::Int8(&bytes), rng);
        }
    }
}
