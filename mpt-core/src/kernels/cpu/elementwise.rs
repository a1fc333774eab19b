//! Elementwise operations of whole tensors on all threads, one cache-sized block at a time.
//!
//! Activation functions are `activation`.

use std::ops::Range;

use super::dispatch::for_each_level;
use super::pool;

/// Elements of a block: a few blocks fit the first-level cache.
const BLOCK: usize = 1 << 10;

/// Blocks of a task.
const TASK_BLOCKS: usize = 1 << 3;

/// Copy of `source` with `work` applied to each block and its range, on all threads.
///
/// Long arithmetic straight from memory waits for memory, since the processor sees few loads ahead. The copy of a block is
/// short work, and the arithmetic then runs from the cache. No pass over the result zeroes it first.
pub(crate) fn map_blocks(source: &[f32], work: impl Fn(Range<usize>, &mut [f32]) + Sync) -> Vec<f32> {
    let len = source.len();
    let mut values = Vec::with_capacity(len);
    pool::run_chunks(&mut values.spare_capacity_mut()[..len], TASK_BLOCKS * BLOCK, |task, part| {
        for (number, block) in part.chunks_mut(BLOCK).enumerate() {
            let from = (task * TASK_BLOCKS + number) * BLOCK;
            let range = from..from + block.len();
            work(range.clone(), block.write_copy_of_slice(&source[range]));
        }
    });
    #[expect(unsafe_code, reason = "zeroing a vector that is written whole costs a pass over memory")]
    // SAFETY: the capacity is at least `len`, and the blocks, which cover `0..len`, were written above.
    unsafe {
        values.set_len(len);
    }
    values
}

/// `sum += values` on all threads.
///
/// # Panics
/// When the lengths differ.
pub(crate) fn add_assign(sum: &mut [f32], values: &[f32]) {
    assert_eq!(sum.len(), values.len(), "as many values as sums");
    let len = TASK_BLOCKS * BLOCK;
    pool::run_chunks(sum, len, |task, sum| add_block(sum, &values[task * len..][..sum.len()]));
}

/// `product *= values` on all threads.
///
/// # Panics
/// When the lengths differ.
pub(crate) fn mul_assign(product: &mut [f32], values: &[f32]) {
    assert_eq!(product.len(), values.len(), "as many values as products");
    let len = TASK_BLOCKS * BLOCK;
    pool::run_chunks(product, len, |task, product| {
        mul_block(product, &values[task * len..][..product.len()])
    });
}

/// `values *= factor` on all threads.
pub(crate) fn scale_assign(values: &mut [f32], factor: f32) {
    pool::run_chunks(values, TASK_BLOCKS * BLOCK, |_, values| scale_block(values, factor));
}

/// Adds `row` `[d]` to every row of `rows` `[rows, d]`, on all threads.
pub(crate) fn add_to_rows(rows: &mut [f32], row: &[f32]) {
    let task_len = (TASK_BLOCKS * BLOCK).div_ceil(row.len().max(1)) * row.len();
    pool::run_chunks(rows, task_len, |_, rows| {
        rows.chunks_exact_mut(row.len()).for_each(|sum| add_block(sum, row))
    });
}

/// Rows summed by one task; the sums of tasks are added in order.
const SUM_ROWS: usize = 64;

/// Sum of the rows of `rows` `[rows, d]`, `[d]`, on all threads; the order of additions does not depend on their number.
pub(crate) fn sum_rows(rows: &[f32], d: usize) -> Vec<f32> {
    if d == 0 {
        return Vec::new();
    }
    let mut partial = vec![0f32; rows.len().div_ceil(SUM_ROWS * d) * d];
    pool::run_chunks(&mut partial, d, |task, sum| {
        let from = task * SUM_ROWS * d;
        rows[from..rows.len().min(from + SUM_ROWS * d)].chunks_exact(d).for_each(|row| add_block(sum, row));
    });
    let mut sum = vec![0f32; d];
    partial.chunks_exact(d).for_each(|partial| add_block(&mut sum, partial));
    sum
}

for_each_level! {
    fn mul_block(product: &mut [f32], values: &[f32]) {
        product.iter_mut().zip(values).for_each(|(product, value)| *product *= value);
    }

    fn scale_block(values: &mut [f32], factor: f32) {
        values.iter_mut().for_each(|value| *value *= factor);
    }

    fn add_block(sum: &mut [f32], values: &[f32]) {
        sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_seen_once_with_its_place() {
        for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, TASK_BLOCKS * BLOCK * 3 + 7] {
            let source: Vec<f32> = (0..len).map(|i| i as f32).collect();
            let found = map_blocks(&source, |range, block| {
                for (at, value) in range.zip(block) {
                    assert_eq!(*value, at as f32);
                    *value += 0.5;
                }
            });
            assert!(found.len() == len && found.iter().zip(&source).all(|(y, x)| *y == x + 0.5), "{len}");
        }
    }
}
