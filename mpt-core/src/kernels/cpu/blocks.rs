//! Work on a copy of a slice, block by block, while a block is in the cache.

use std::ops::Range;

use super::dispatch::for_each_level;
use super::pool;

/// Elements of a block: these and a few times as many fit the first cache.
const BLOCK: usize = 1 << 10;

/// Blocks of one task.
const BLOCKS: usize = 1 << 3;

/// A copy of `source` changed by `work`, which is given each block and its range, on all threads.
///
/// Long arithmetic straight from memory waits for memory: the processor sees few loads ahead. Here a block is copied,
/// which is short work, and computed on from the cache; and no pass over the result zeroes it first.
pub(crate) fn map_blocks(source: &[f32], work: impl Fn(Range<usize>, &mut [f32]) + Sync) -> Vec<f32> {
    let len = source.len();
    let mut values = Vec::with_capacity(len);
    pool::run_chunks(&mut values.spare_capacity_mut()[..len], BLOCKS * BLOCK, |task, part| {
        for (number, block) in part.chunks_mut(BLOCK).enumerate() {
            let from = (task * BLOCKS + number) * BLOCK;
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
pub(crate) fn add_into(sum: &mut [f32], values: &[f32]) {
    assert_eq!(sum.len(), values.len(), "as many values as sums");
    let len = BLOCKS * BLOCK;
    pool::run_chunks(sum, len, |task, sum| add(sum, &values[task * len..][..sum.len()]));
}

/// `product *= values` on all threads.
///
/// # Panics
/// When the lengths differ.
pub(crate) fn multiply_into(product: &mut [f32], values: &[f32]) {
    assert_eq!(product.len(), values.len(), "as many values as products");
    let len = BLOCKS * BLOCK;
    pool::run_chunks(product, len, |task, product| multiply(product, &values[task * len..][..product.len()]));
}

/// `values *= factor` on all threads.
pub(crate) fn scale_all(values: &mut [f32], factor: f32) {
    pool::run_chunks(values, BLOCKS * BLOCK, |_, values| scale(values, factor));
}

/// Adds `row` to every row of `rows`, on all threads.
pub(crate) fn add_rows(rows: &mut [f32], row: &[f32]) {
    let of_task = (BLOCKS * BLOCK).div_ceil(row.len().max(1)) * row.len();
    pool::run_chunks(rows, of_task, |_, rows| rows.chunks_exact_mut(row.len()).for_each(|sum| add(sum, row)));
}

/// Rows that are summed by one task; the sums of tasks are added in order.
const SUM_ROWS: usize = 64;

/// The sum of the rows of `rows` `[rows, d]`, on all threads and in one order for any number of them.
pub(crate) fn sum_rows(rows: &[f32], d: usize) -> Vec<f32> {
    if d == 0 {
        return Vec::new();
    }
    let mut partial = vec![0f32; rows.len().div_ceil(SUM_ROWS * d) * d];
    pool::run_chunks(&mut partial, d, |task, sum| {
        let from = task * SUM_ROWS * d;
        rows[from..rows.len().min(from + SUM_ROWS * d)].chunks_exact(d).for_each(|row| add(sum, row));
    });
    let mut sum = vec![0f32; d];
    partial.chunks_exact(d).for_each(|partial| add(&mut sum, partial));
    sum
}

for_each_level! {
    fn multiply(product: &mut [f32], values: &[f32]) {
        product.iter_mut().zip(values).for_each(|(product, value)| *product *= value);
    }

    fn scale(values: &mut [f32], factor: f32) {
        values.iter_mut().for_each(|value| *value *= factor);
    }

    fn add(sum: &mut [f32], values: &[f32]) {
        sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_seen_once_with_its_place() {
        for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, BLOCKS * BLOCK * 3 + 7] {
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
