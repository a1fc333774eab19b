//! Squares with the matrix unit: 32 rows x 32 columns of sums in four of its eight tiles.

#![expect(unsafe_code, reason = "tile instructions over the pointers of a square")]

use std::arch::asm;

use crate::kernels::cpu::gemm::pack::Tile;

/// Four tiles of sums, a row of two after the other, and a pass of the inner dimension to add to them.
///
/// Each panel is read from its tile on; where only one panel of rows or columns is left, both are the same one.
pub(crate) struct Square {
    pub(crate) left: [*const Tile; 2],
    pub(crate) right: [*const Tile; 2],
    /// At least 1.
    pub(crate) steps: usize,
    /// Four tiles.
    pub(crate) sums: *mut Tile,
    /// Whether `sums` hold something already.
    pub(crate) resume: bool,
    /// Where the sums go: into the first of 32 rows of 32 elements, `out_step` elements apart; null: back to `sums`.
    pub(crate) out: *mut f32,
    pub(crate) out_step: usize,
    /// What will be read soon, to be fetched into the second-level cache on the way; may lie anywhere.
    pub(crate) ahead: *const Tile,
}

/// Bytes that a step fetches of what lies ahead.
pub(crate) const AHEAD_OF_PAIRS: usize = 4 * 64;
pub(crate) const AHEAD_OF_SPLIT: usize = 12 * 64;

/// Bytes from one row of a tile in memory to the next.
const ROW: usize = 64;

/// Bytes of a tile as the assembly below writes it out.
const _: () = assert!(size_of::<Tile>() == 1024);

unsafe fn begin(square: &Square) {
    // SAFETY: tiles are in use; four tiles lie at `sums`.
    unsafe {
        if square.resume {
            asm!(
                "tileloadd tmm0, [{sums} + {row}*1]",
                "tileloadd tmm1, [{sums} + {row}*1 + 1024]",
                "tileloadd tmm2, [{sums} + {row}*1 + 2048]",
                "tileloadd tmm3, [{sums} + {row}*1 + 3072]",
                sums = in(reg) square.sums, row = in(reg) ROW,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nostack, readonly),
            );
        } else {
            asm!(
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nostack, nomem),
            );
        }
    }
}

unsafe fn end(square: &Square) {
    // SAFETY: tiles are in use; the result has 32 rows of 32 elements, or four tiles lie at `sums`.
    unsafe {
        if square.out.is_null() {
            asm!(
                "tilestored [{sums} + {row}*1], tmm0",
                "tilestored [{sums} + {row}*1 + 1024], tmm1",
                "tilestored [{sums} + {row}*1 + 2048], tmm2",
                "tilestored [{sums} + {row}*1 + 3072], tmm3",
                sums = in(reg) square.sums, row = in(reg) ROW,
                options(nostack),
            );
        } else {
            asm!(
                "tilestored [{upper} + {row}*1], tmm0",
                "tilestored [{upper} + {row}*1 + 64], tmm1",
                "tilestored [{lower} + {row}*1], tmm2",
                "tilestored [{lower} + {row}*1 + 64], tmm3",
                upper = in(reg) square.out, lower = in(reg) square.out.add(16 * square.out_step),
                row = in(reg) square.out_step * size_of::<f32>(),
                options(nostack),
            );
        }
    }
}

/// Assembly of one step: the lines given, then every pointer moves on by `tiles` tiles and `ahead` bytes.
macro_rules! steps {
    ($square:ident, step_bytes = $bytes:literal, ahead_bytes = $ahead:literal, $($line:literal,)+) => {
        asm!(
            "2:",
            $($line,)+
            concat!("add {l0}, ", $bytes), concat!("add {l1}, ", $bytes),
            concat!("add {r0}, ", $bytes), concat!("add {r1}, ", $bytes),
            concat!("add {ahead}, ", $ahead),
            "dec {steps}",
            "jnz 2b",
            l0 = inout(reg) $square.left[0] => _, l1 = inout(reg) $square.left[1] => _,
            r0 = inout(reg) $square.right[0] => _, r1 = inout(reg) $square.right[1] => _,
            ahead = inout(reg) $square.ahead => _,
            steps = inout(reg) $square.steps => _,
            row = in(reg) ROW,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, readonly),
        )
    };
}

/// Adds a pass of operands in [`Form::Pairs`](crate::kernels::cpu::gemm::pack::Form::Pairs).
///
/// # Safety
/// Tiles are in use ([`Tiles`](crate::kernels::cpu::amx::Tiles)); panels have as many steps, and memory lies where the
/// square says, used by nobody else.
pub(crate) unsafe fn pairs(square: &Square) {
    // SAFETY: the caller's promise.
    unsafe {
        begin(square);
        steps!(
            square,
            step_bytes = "1024",
            ahead_bytes = "256",
            "tileloadd tmm6, [{r0} + {row}*1]",
            "tileloadd tmm4, [{l0} + {row}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "prefetcht1 [{ahead}]",
            "prefetcht1 [{ahead} + 64]",
            "tileloadd tmm5, [{l1} + {row}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "prefetcht1 [{ahead} + 128]",
            "prefetcht1 [{ahead} + 192]",
            "tileloadd tmm7, [{r1} + {row}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
        );
        end(square);
    }
}

/// Adds a pass of operands in [`Form::Split`](crate::kernels::cpu::gemm::pack::Form::Split).
///
/// Of the nine products of parts, the three that lie below 2^-24 of the whole are left out. The order visits each pair of
/// parts with as few loads as it can.
///
/// # Safety
/// As for [`pairs`].
pub(crate) unsafe fn split(square: &Square) {
    // SAFETY: the caller's promise.
    unsafe {
        begin(square);
        steps!(
            square,
            step_bytes = "3072",
            ahead_bytes = "768",
            // first x third
            "tileloadd tmm4, [{l0} + {row}*1]",
            "tileloadd tmm6, [{r0} + {row}*1 + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{l1} + {row}*1]",
            "prefetcht1 [{ahead}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{r1} + {row}*1 + 2048]",
            "prefetcht1 [{ahead} + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // first x first
            "tileloadd tmm6, [{r0} + {row}*1]",
            "prefetcht1 [{ahead} + 128]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{r1} + {row}*1]",
            "prefetcht1 [{ahead} + 192]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // first x second
            "tileloadd tmm6, [{r0} + {row}*1 + 1024]",
            "prefetcht1 [{ahead} + 256]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{r1} + {row}*1 + 1024]",
            "prefetcht1 [{ahead} + 320]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // second x second
            "tileloadd tmm4, [{l0} + {row}*1 + 1024]",
            "prefetcht1 [{ahead} + 384]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{l1} + {row}*1 + 1024]",
            "prefetcht1 [{ahead} + 448]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // second x first
            "tileloadd tmm6, [{r0} + {row}*1]",
            "prefetcht1 [{ahead} + 512]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{r1} + {row}*1]",
            "prefetcht1 [{ahead} + 576]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // third x first
            "tileloadd tmm4, [{l0} + {row}*1 + 2048]",
            "prefetcht1 [{ahead} + 640]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{l1} + {row}*1 + 2048]",
            "prefetcht1 [{ahead} + 704]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
        );
        end(square);
    }
}
