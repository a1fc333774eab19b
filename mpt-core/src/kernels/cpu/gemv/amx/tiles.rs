//! The tile instructions of products of few rows: tiles 0 and 1 are the sums of two panels, 2 to 4 the parts of `x`, 5 to 7 parts of the
//! weight.

use std::arch::asm;

use super::{ROWS, Step};
use crate::kernels::cpu::gemm::{SIDE, Tile};

/// Bytes from one row of a tile of the weight in memory to the next.
const ROW: usize = size_of::<[u32; SIDE]>();

/// Bytes of a tile and of the parts of a panel, as the assembly below writes them out.
const _: () = assert!(size_of::<Tile>() == 1024 && size_of::<[Tile; 3]>() == 3072);

/// Sums of nothing.
///
/// # Safety
/// Tiles are in use, as for all that follow.
pub(super) unsafe fn clear_sums() {
    // SAFETY: tiles are in use.
    unsafe {
        asm!("tilezero tmm0", "tilezero tmm1", out("tmm0") _, out("tmm1") _, options(nostack, nomem));
    }
}

/// Writes the sums of a chunk to `y` `[rows, count]`, or adds them to it.
pub(super) unsafe fn finish(y: &mut [f32], count: usize, is_first: bool) {
    let mut sums = [0f32; ROWS * SIDE];
    let row = count * size_of::<f32>();
    // SAFETY: tiles are in use; two tiles of 16 rows of `count` values are at most as long as `sums`.
    unsafe {
        asm!(
            "tilestored [{upper} + {row}*1], tmm0",
            "tilestored [{lower} + {row}*1], tmm1",
            upper = in(reg) sums.as_mut_ptr(), lower = in(reg) sums[SIDE * count..].as_mut_ptr(), row = in(reg) row,
            options(nostack),
        );
    }
    for (y, &sum) in y.iter_mut().zip(&sums) {
        *y = if is_first { sum } else { *y + sum };
    }
}

/// Loads the three parts of a step of `x`.
pub(super) unsafe fn load_x(words: &[u32], count: usize) {
    let parts = words.as_ptr();
    // SAFETY: tiles are in use; the words are three tiles of 16 rows of `count` words.
    unsafe {
        asm!(
            "tileloadd tmm2, [{first} + {row}*1]",
            "tileloadd tmm3, [{second} + {row}*1]",
            "tileloadd tmm4, [{third} + {row}*1]",
            first = in(reg) parts, second = in(reg) parts.add(SIDE * count), third = in(reg) parts.add(2 * SIDE * count),
            row = in(reg) count * size_of::<u32>(),
            out("tmm2") _, out("tmm3") _, out("tmm4") _,
            options(nostack, readonly),
        );
    }
}

/// Loads a part of both panels, `offset` bytes from their first one, and adds its products with a part of `x`.
macro_rules! load_and_multiply {
    ($parts:expr, $offset:literal, $first:literal, $second:literal, $x:literal) => {
        asm!(
            concat!("tileloadd ", $first, ", [{parts} + {row}*1 + ", $offset, "]"),
            concat!("tileloadd ", $second, ", [{parts} + {row}*1 + 3072 + ", $offset, "]"),
            concat!("tdpbf16ps tmm0, ", $first, ", ", $x),
            concat!("tdpbf16ps tmm1, ", $second, ", ", $x),
            parts = in(reg) $parts.as_ptr(), row = in(reg) ROW,
            out("tmm0") _, out("tmm1") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, readonly),
        )
    };
}

/// Adds the products of a part that is loaded already.
macro_rules! multiply {
    ($first:literal, $second:literal, $x:literal) => {
        asm!(
            concat!("tdpbf16ps tmm0, ", $first, ", ", $x),
            concat!("tdpbf16ps tmm1, ", $second, ", ", $x),
            out("tmm0") _, out("tmm1") _,
            options(nostack, nomem),
        )
    };
}

/// The third part of the weight times the first one of `x`.
#[inline(always)]
pub(super) unsafe fn third_times_first(parts: &Step) {
    // SAFETY: tiles are in use; there are three tiles of each of two panels.
    unsafe { load_and_multiply!(parts, "2048", "tmm5", "tmm6", "tmm2") }
}

/// The first part of the weight times the first one of `x`.
#[inline(always)]
pub(super) unsafe fn first_times_first(parts: &Step) {
    // SAFETY: tiles are in use; there are three tiles of each of two panels.
    unsafe { load_and_multiply!(parts, "0", "tmm7", "tmm5", "tmm2") }
}

/// The second part of the weight, which stays in its tiles, times the first one of `x`.
#[inline(always)]
pub(super) unsafe fn second_times_first(parts: &Step) {
    // SAFETY: tiles are in use; there are three tiles of each of two panels.
    unsafe { load_and_multiply!(parts, "1024", "tmm6", "tmm7", "tmm2") }
}

/// The second part of the weight, as [`second_times_first`] left it, times the second one of `x`.
#[inline(always)]
pub(super) unsafe fn second_times_second() {
    // SAFETY: tiles are in use.
    unsafe { multiply!("tmm6", "tmm7", "tmm3") }
}

/// The first part of the weight, which stays in its tiles, times the second one of `x`.
#[inline(always)]
pub(super) unsafe fn first_times_second(parts: &Step) {
    // SAFETY: tiles are in use; there are three tiles of each of two panels.
    unsafe { load_and_multiply!(parts, "0", "tmm5", "tmm6", "tmm3") }
}

/// The first part of the weight, as [`first_times_second`] left it, times the third one of `x`.
#[inline(always)]
pub(super) unsafe fn first_times_third() {
    // SAFETY: tiles are in use.
    unsafe { multiply!("tmm5", "tmm6", "tmm4") }
}
