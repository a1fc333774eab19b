//! Tile instructions of GEMV: tiles 0 and 1 hold the accumulators of two panels, 2 to 4 the parts of `x`, 5 to 7 parts of the
//! weight.

use std::arch::asm;

use super::{ROWS, StepParts};
use crate::kernels::cpu::gemm::{TILE_DIM, Tile};

/// Bytes from one row of a tile of the weight in memory to the next.
const ROW: usize = size_of::<[u32; TILE_DIM]>();

/// Bytes of a tile and of the parts of a panel, as the assembly below writes them out.
const _: () = assert!(size_of::<Tile>() == 1024 && size_of::<[Tile; 3]>() == 3072);

/// Zeroes the accumulators.
///
/// # Safety
/// Tiles are configured by [`TileGuard::for_gemv`](crate::kernels::cpu::amx::TileGuard::for_gemv), as for every function here.
pub(super) unsafe fn zero_acc() {
    // SAFETY: tiles are configured.
    unsafe {
        asm!("tilezero tmm0", "tilezero tmm1", out("tmm0") _, out("tmm1") _, options(nostack, nomem));
    }
}

/// Writes the accumulators of a KC block to `y` `[rows, m]`, or adds them unless the block is the first.
///
/// # Safety
/// As for [`zero_acc`], for `m` columns.
pub(super) unsafe fn store_acc(y: &mut [f32], m: usize, is_first: bool) {
    let mut acc = [0f32; ROWS * TILE_DIM];
    let row = m * size_of::<f32>();
    // SAFETY: tiles are configured; two tiles of 16 rows of `m` values fit `acc`.
    unsafe {
        asm!(
            "tilestored [{upper} + {row}*1], tmm0",
            "tilestored [{lower} + {row}*1], tmm1",
            upper = in(reg) acc.as_mut_ptr(), lower = in(reg) acc[TILE_DIM * m..].as_mut_ptr(), row = in(reg) row,
            options(nostack),
        );
    }
    for (y, &acc) in y.iter_mut().zip(&acc) {
        *y = if is_first { acc } else { *y + acc };
    }
}

/// Loads the three parts of a step of `x`: `words` `[part][word][row of x]`.
///
/// # Safety
/// As for [`zero_acc`], for `m` columns.
pub(super) unsafe fn load_x(words: &[u32], m: usize) {
    let parts = words.as_ptr();
    // SAFETY: tiles are configured; the words are three tiles of 16 rows of `m` words.
    unsafe {
        asm!(
            "tileloadd tmm2, [{high} + {row}*1]",
            "tileloadd tmm3, [{middle} + {row}*1]",
            "tileloadd tmm4, [{low} + {row}*1]",
            high = in(reg) parts, middle = in(reg) parts.add(TILE_DIM * m), low = in(reg) parts.add(2 * TILE_DIM * m),
            row = in(reg) m * size_of::<u32>(),
            out("tmm2") _, out("tmm3") _, out("tmm4") _,
            options(nostack, readonly),
        );
    }
}

/// Loads one part of both panels, `offset` bytes after their high parts, and adds its products with a part of `x`.
macro_rules! load_and_multiply {
    ($parts:expr, $offset:literal, $panel0:literal, $panel1:literal, $x:literal) => {
        asm!(
            concat!("tileloadd ", $panel0, ", [{parts} + {row}*1 + ", $offset, "]"),
            concat!("tileloadd ", $panel1, ", [{parts} + {row}*1 + 3072 + ", $offset, "]"),
            concat!("tdpbf16ps tmm0, ", $panel0, ", ", $x),
            concat!("tdpbf16ps tmm1, ", $panel1, ", ", $x),
            parts = in(reg) $parts.as_ptr(), row = in(reg) ROW,
            out("tmm0") _, out("tmm1") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, readonly),
        )
    };
}

/// Adds the products of a loaded part of both panels with a part of `x`.
macro_rules! multiply {
    ($panel0:literal, $panel1:literal, $x:literal) => {
        asm!(
            concat!("tdpbf16ps tmm0, ", $panel0, ", ", $x),
            concat!("tdpbf16ps tmm1, ", $panel1, ", ", $x),
            out("tmm0") _, out("tmm1") _,
            options(nostack, nomem),
        )
    };
}

/// Low part of the weight times high part of `x`.
///
/// # Safety
/// As for [`zero_acc`].
#[inline(always)]
pub(super) unsafe fn mul_low_high(parts: &StepParts) {
    // SAFETY: tiles are configured; there are three tiles of each of two panels.
    unsafe { load_and_multiply!(parts, "2048", "tmm5", "tmm6", "tmm2") }
}

/// High part of the weight times high part of `x`.
///
/// # Safety
/// As for [`zero_acc`].
#[inline(always)]
pub(super) unsafe fn mul_high_high(parts: &StepParts) {
    // SAFETY: tiles are configured; there are three tiles of each of two panels.
    unsafe { load_and_multiply!(parts, "0", "tmm7", "tmm5", "tmm2") }
}

/// Middle part of the weight, which stays in its tiles, times high part of `x`.
///
/// # Safety
/// As for [`zero_acc`].
#[inline(always)]
pub(super) unsafe fn mul_middle_high(parts: &StepParts) {
    // SAFETY: tiles are configured; there are three tiles of each of two panels.
    unsafe { load_and_multiply!(parts, "1024", "tmm6", "tmm7", "tmm2") }
}

/// Middle part of the weight, left in its tiles by [`mul_middle_high`], times middle part of `x`.
///
/// # Safety
/// As for [`zero_acc`].
#[inline(always)]
pub(super) unsafe fn mul_middle_middle() {
    // SAFETY: tiles are configured.
    unsafe { multiply!("tmm6", "tmm7", "tmm3") }
}

/// High part of the weight, which stays in its tiles, times middle part of `x`.
///
/// # Safety
/// As for [`zero_acc`].
#[inline(always)]
pub(super) unsafe fn mul_high_middle(parts: &StepParts) {
    // SAFETY: tiles are configured; there are three tiles of each of two panels.
    unsafe { load_and_multiply!(parts, "0", "tmm5", "tmm6", "tmm3") }
}

/// High part of the weight, left in its tiles by [`mul_high_middle`], times low part of `x`.
///
/// # Safety
/// As for [`zero_acc`].
#[inline(always)]
pub(super) unsafe fn mul_high_low() {
    // SAFETY: tiles are configured.
    unsafe { multiply!("tmm5", "tmm6", "tmm4") }
}
