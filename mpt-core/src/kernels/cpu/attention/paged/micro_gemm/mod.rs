//! Micro-GEMM of paged attention: products of a few queries with the rows of a block of a page.
//!
//! For scores, rows are the elements of a head with sixteen keys side by side. For weighted values, rows are keys with the elements
//! of a value side by side. Each element of the result is one sum in the order of rows, with one rounding a row on levels with fused
//! multiply-add and two on others. It does not depend on the number of queries and blocks, and f32 and converted elements are
//! summed alike.

mod vector;

#[cfg(target_arch = "x86_64")]
use vector::{Avx2, Avx512};
use vector::{KvElement, Scalar, Vector};

use super::layout::{KvSlice, LANES};
use crate::kernels::cpu::dispatch::Level;

/// Queries of a product at most, at any level.
const MAX_QUERIES: usize = 6;

/// Product `[queries, 16 blocks]` over `rows` rows.
pub(super) struct MicroGemm<'a> {
    /// Weight of row r for query q: element `q * weight_stride + r`.
    pub(super) weights: &'a [f32],
    pub(super) weight_stride: usize,
    /// Sixteen elements of block b of row r: those from `r * row_stride + b * block_stride`.
    pub(super) matrix: KvSlice<'a>,
    pub(super) row_stride: usize,
    pub(super) block_stride: usize,
    pub(super) queries: usize,
    pub(super) rows: usize,
    pub(super) blocks: usize,
    /// Whether the product is added to the result rather than overwriting it.
    pub(super) accumulate: bool,
    /// Elements to prefetch meanwhile.
    pub(super) prefetch: Option<KvSlice<'a>>,
}

/// Queries of a product at `level` at most.
pub(super) fn max_queries(level: Level) -> usize {
    if level == Level::Baseline { Scalar::MAX_QUERIES } else { MAX_QUERIES }
}

impl MicroGemm<'_> {
    /// Computes the product; block b of query q is the sixteen elements of `out` from `q * out_stride + 16 b`.
    ///
    /// # Panics
    /// When an operand or `out` is too short, or there are more queries than [`max_queries`].
    pub(super) fn run(&self, level: Level, out: &mut [f32], out_stride: usize) {
        if self.queries == 0 || self.blocks == 0 {
            return;
        }
        assert!(self.queries <= max_queries(level), "{} queries", self.queries);
        assert!(out.len() >= (self.queries - 1) * out_stride + self.blocks * LANES, "the result has room");
        let out = OutPtr { first: out.as_mut_ptr(), stride: out_stride };
        match self.matrix {
            KvSlice::F32(matrix) => self.run_typed(level, matrix, out),
            KvSlice::Bf16(matrix) => self.run_typed(level, matrix, out),
            KvSlice::Int8(matrix) => self.run_typed(level, matrix, out),
        }
    }

    /// [`run`](Self::run) for elements of type `T`.
    fn run_typed<T: KvElement>(&self, level: Level, matrix: &[T], out: OutPtr) {
        self.check_operands(matrix.len());
        let prefetch = self.prefetch.and_then(T::of).map(<[T]>::as_ptr);
        let typed = TypedGemm { gemm: self, matrix: matrix.as_ptr(), prefetch };
        #[expect(
            unsafe_code,
            reason = "the calls need the features of their level and read through pointers"
        )]
        // SAFETY: `level` is found only where its features are; operands and result were checked.
        unsafe {
            match level {
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 | Level::Avx512Bf16 | Level::Amx => for_queries_avx512(&typed, out),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => for_queries_avx2(&typed, out),
                _ => for_queries::<Scalar, T>(&typed, out),
            }
        }
    }

    /// Asserts that the weights and a matrix of `len` elements reach as far as the product reads.
    fn check_operands(&self, len: usize) {
        if self.rows > 0 {
            let (last_weight, last_row) = ((self.queries - 1) * self.weight_stride, self.rows - 1);
            let last_block = last_row * self.row_stride + (self.blocks - 1) * self.block_stride;
            assert!(self.weights.len() >= last_weight + self.rows, "a weight for each query and row");
            assert!(len >= last_block + LANES, "all blocks of all rows");
        }
    }
}

/// Product with the elements of its matrix, whose length has been checked.
struct TypedGemm<'a, T> {
    gemm: &'a MicroGemm<'a>,
    matrix: *const T,
    prefetch: Option<*const T>,
}

/// Result of a product.
#[derive(Clone, Copy)]
struct OutPtr {
    first: *mut f32,
    /// Elements from one query to the next.
    stride: usize,
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "operands are read through pointers")]
/// [`for_queries`] with AVX-512.
///
/// # Safety
/// As [`for_queries`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn for_queries_avx512<T: KvElement>(typed: &TypedGemm<'_, T>, out: OutPtr) {
    // SAFETY: as the caller promises, with the features of this function.
    unsafe { for_queries::<Avx512, T>(typed, out) }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "operands are read through pointers")]
/// [`for_queries`] with AVX2 and FMA.
///
/// # Safety
/// As [`for_queries`].
#[target_feature(enable = "avx2,fma")]
unsafe fn for_queries_avx2<T: KvElement>(typed: &TypedGemm<'_, T>, out: OutPtr) {
    // SAFETY: as the caller promises, with the features of this function.
    unsafe { for_queries::<Avx2, T>(typed, out) }
}

#[expect(unsafe_code, reason = "operands are read through pointers")]
/// Selects the kernel of the number of queries.
///
/// # Safety
/// The processor has the features of `V`; operands and result are as long as the product says, with at most six queries.
#[inline(always)]
unsafe fn for_queries<V: Vector, T: KvElement>(typed: &TypedGemm<'_, T>, out: OutPtr) {
    // SAFETY: as the caller promises.
    unsafe {
        match typed.gemm.queries {
            1 => for_blocks::<V, T, 1>(typed, out),
            2 => for_blocks::<V, T, 2>(typed, out),
            3 => for_blocks::<V, T, 3>(typed, out),
            4 => for_blocks::<V, T, 4>(typed, out),
            5 => for_blocks::<V, T, 5>(typed, out),
            _ => for_blocks::<V, T, 6>(typed, out),
        }
    }
}

#[expect(unsafe_code, reason = "operands are read through pointers")]
/// Cuts the blocks of Q queries into tiles whose accumulators fit registers.
///
/// # Safety
/// As [`for_queries`], for Q queries.
#[inline(always)]
unsafe fn for_blocks<V: Vector, T: KvElement, const Q: usize>(typed: &TypedGemm<'_, T>, out: OutPtr) {
    let mut block = 0;
    while block < typed.gemm.blocks {
        let (left, fits) = (typed.gemm.blocks - block, |blocks| Q * blocks <= V::ACCUMULATORS);
        // SAFETY: as the caller promises; the blocks of each tile are among the product's.
        block += unsafe {
            if fits(8) && left >= 8 {
                register_tile::<V, T, Q, 8>(typed, block, out)
            } else if fits(4) && left >= 4 {
                register_tile::<V, T, Q, 4>(typed, block, out)
            } else if fits(2) && left >= 2 {
                register_tile::<V, T, Q, 2>(typed, block, out)
            } else {
                register_tile::<V, T, Q, 1>(typed, block, out)
            }
        };
    }
}

#[expect(unsafe_code, reason = "operands are read through pointers")]
/// Computes the blocks `block .. block + B` of Q queries; returns B.
///
/// # Safety
/// As [`for_queries`], for Q queries and at least `block + B` blocks.
#[inline(always)]
unsafe fn register_tile<V: Vector, T: KvElement, const Q: usize, const B: usize>(
    typed: &TypedGemm<'_, T>,
    block: usize,
    out: OutPtr,
) -> usize {
    // SAFETY: as the caller promises.
    unsafe {
        let gemm = typed.gemm;
        let out_block = |q: usize, b: usize| out.first.add(q * out.stride + (block + b) * LANES);
        let weights: [*const f32; Q] =
            std::array::from_fn(|q| gemm.weights.as_ptr().add(q * gemm.weight_stride));
        let mut row = typed.matrix.add(block * gemm.block_stride);
        let mut prefetcher = Prefetcher::new(typed, block);
        let mut acc = [[V::zero(); B]; Q];
        if gemm.accumulate {
            for (q, acc) in acc.iter_mut().enumerate() {
                for (b, acc) in acc.iter_mut().enumerate() {
                    *acc = V::load(out_block(q, b));
                }
            }
        }
        for r in 0..gemm.rows {
            prefetcher.prefetch_row::<B>();
            let mut elements = [V::zero(); B];
            for (b, elements) in elements.iter_mut().enumerate() {
                *elements = T::load::<V>(row.add(b * gemm.block_stride));
            }
            for (acc, weights) in acc.iter_mut().zip(&weights) {
                let weight = V::splat(*weights.add(r));
                for (acc, &elements) in acc.iter_mut().zip(&elements) {
                    *acc = V::mul_add(weight, elements, *acc);
                }
            }
            row = row.wrapping_add(gemm.row_stride);
        }
        for (q, acc) in acc.into_iter().enumerate() {
            for (b, acc) in acc.into_iter().enumerate() {
                V::store(out_block(q, b), acc);
            }
        }
    }
    B
}

/// Software prefetch of the next block. Hardware prefetch ends at the pages of memory, which a block soon leaves.
struct Prefetcher<T> {
    next: Option<*const T>,
}

/// Bytes of a cache line.
const LINE: usize = 64;

impl<T> Prefetcher<T> {
    /// Share of one tile of a product.
    #[inline(always)]
    fn new(typed: &TypedGemm<'_, T>, block: usize) -> Self {
        let share = block * typed.gemm.rows * LANES;
        Self { next: typed.prefetch.map(|first| first.wrapping_add(share)) }
    }

    /// Prefetches as many elements as a row of B blocks has.
    #[inline(always)]
    fn prefetch_row<const B: usize>(&mut self) {
        let Some(next) = &mut self.next else { return };
        let per_line = LINE / size_of::<T>();
        for line in 0..B * LANES / per_line {
            prefetch(next.wrapping_add(line * per_line));
        }
        *next = next.wrapping_add(B * LANES);
    }
}

/// Prefetches the cache line at `at`, which need not be valid.
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
    fn reference<T: KvElement>(
        product: &MicroGemm<'_>,
        matrix: &[T],
        level: Level,
        out: &mut [f32],
        out_stride: usize,
    ) {
        for (q, b, lane) in (0..product.queries)
            .flat_map(|q| (0..product.blocks).flat_map(move |b| (0..LANES).map(move |lane| (q, b, lane))))
        {
            let at = q * out_stride + b * LANES + lane;
            let mut sum = if product.accumulate { out[at] } else { 0.0 };
            for r in 0..product.rows {
                let weight = product.weights[q * product.weight_stride + r];
                let element = matrix[r * product.row_stride + b * product.block_stride + lane].to_f32();
                sum = match level {
                    Level::Baseline => sum + weight * element,
                    _ => weight.mul_add(element, sum),
                };
            }
            out[at] = sum;
        }
    }

    fn normal(n: usize, rng: &mut CounterRng) -> Vec<f32> {
        (0..n).map(|_| rng.normal()).collect()
    }

    /// Compares a product of `[queries, rows, blocks]` with one sum at a time, on all levels.
    fn check_levels<T: KvElement>(
        [queries, rows, blocks]: [usize; 3],
        [accumulate, keys]: [bool; 2],
        matrix: &[T],
        data: KvSlice<'_>,
        rng: &mut CounterRng,
    ) {
        let (weight_stride, out_stride) = (rows + 3, blocks * LANES + 5);
        let (row_stride, block_stride) = if keys { (LANES, rows * LANES) } else { (blocks * LANES, LANES) };
        let weights = normal(queries * weight_stride, rng);
        for level in levels().filter(|&level| queries <= max_queries(level)) {
            let product = MicroGemm {
                weights: &weights,
                weight_stride,
                matrix: data,
                row_stride,
                block_stride,
                queries,
                rows,
                blocks,
                accumulate,
                prefetch: accumulate.then_some(data),
            };
            let mut found = normal(queries * out_stride, rng);
            let mut expected = found.clone();
            product.run(level, &mut found, out_stride);
            reference(&product, matrix, level, &mut expected, out_stride);
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&found), bits(&expected), "{level:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn every_element_is_one_sum_in_the_order_of_rows(queries in 1usize..=MAX_QUERIES, rows in 0usize..70, blocks in 1usize..20,
                                                        accumulate: bool, keys: bool, seed: u64) {
            let (sizes, options) = ([queries, rows, blocks], [accumulate, keys]);
            let rng = &mut CounterRng::new(seed, 0);
            let x = normal(rows * blocks * LANES, rng);
            check_levels(sizes, options, &x, KvSlice::F32(&x), rng);
            let bf16: Vec<u16> = x.iter().map(|&x| half::bf16::from_f32(x).to_bits()).collect();
            check_levels(sizes, options, &bf16, KvSlice::Bf16(&bf16), rng);
            let bytes: Vec<i8> = x.iter().map(|x| (x * 40.0) as i8).collect();
            check_levels(sizes, options, &bytes, KvSlice::Int8(&bytes), rng);
        }
    }
}
