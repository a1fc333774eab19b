//! Micro-kernels of the matrix unit (AMX): 32 x 32 accumulators in four of its eight tile registers.

#![expect(unsafe_code, reason = "tile instructions over the pointers of a micro-tile")]

use std::arch::asm;

use crate::kernels::cpu::gemm::pack::Tile;

/// Arguments of a micro-kernel: one pass of the inner dimension, added to a micro-tile of 2 x 2 tiles, row-major.
pub(crate) struct AmxArgs {
    /// First tile of the pass in two panels of A; both are the same panel where one is left.
    pub(crate) a: [*const Tile; 2],
    /// First tile of the pass in two panels of B, as for `a`.
    pub(crate) b: [*const Tile; 2],
    /// Steps of the pass, at least 1.
    pub(crate) steps: usize,
    /// Four tiles that keep the accumulators between passes.
    pub(crate) acc: *mut Tile,
    /// Whether accumulation starts from `acc` rather than from zero.
    pub(crate) resume: bool,
    /// First of 32 rows of 32 elements that take the accumulators; null: they go back to `acc`.
    pub(crate) c: *mut f32,
    /// Elements from one row of `c` to the next.
    pub(crate) ldc: usize,
    /// Address to prefetch into the second-level cache along the way; need not be valid.
    pub(crate) prefetch: *const Tile,
}

/// Bytes that a step of [`bf16`] prefetches.
pub(crate) const BF16_PREFETCH_BYTES: usize = 4 * 64;
/// Bytes that a step of [`bf16x3`] prefetches.
pub(crate) const BF16X3_PREFETCH_BYTES: usize = 12 * 64;

/// Bytes from one row of a tile in memory to the next.
const ROW: usize = 64;

/// Bytes of a tile as the assembly below writes it out.
const _: () = assert!(size_of::<Tile>() == 1024);

/// Loads or zeroes the accumulators.
///
/// # Safety
/// As for [`bf16`].
unsafe fn load_acc(args: &AmxArgs) {
    // SAFETY: tiles are configured; four tiles lie at `acc`.
    unsafe {
        if args.resume {
            asm!(
                "tileloadd tmm0, [{acc} + {row}*1]",
                "tileloadd tmm1, [{acc} + {row}*1 + 1024]",
                "tileloadd tmm2, [{acc} + {row}*1 + 2048]",
                "tileloadd tmm3, [{acc} + {row}*1 + 3072]",
                acc = in(reg) args.acc, row = in(reg) ROW,
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

/// Stores the accumulators to `c`, or to `acc` where `c` is null.
///
/// # Safety
/// As for [`bf16`].
unsafe fn store_acc(args: &AmxArgs) {
    // SAFETY: tiles are configured; `c` has 32 rows of 32 elements, or four tiles lie at `acc`.
    unsafe {
        if args.c.is_null() {
            asm!(
                "tilestored [{acc} + {row}*1], tmm0",
                "tilestored [{acc} + {row}*1 + 1024], tmm1",
                "tilestored [{acc} + {row}*1 + 2048], tmm2",
                "tilestored [{acc} + {row}*1 + 3072], tmm3",
                acc = in(reg) args.acc, row = in(reg) ROW,
                options(nostack),
            );
        } else {
            asm!(
                "tilestored [{upper} + {row}*1], tmm0",
                "tilestored [{upper} + {row}*1 + 64], tmm1",
                "tilestored [{lower} + {row}*1], tmm2",
                "tilestored [{lower} + {row}*1 + 64], tmm3",
                upper = in(reg) args.c, lower = in(reg) args.c.add(16 * args.ldc),
                row = in(reg) args.ldc * size_of::<f32>(),
                options(nostack),
            );
        }
    }
}

/// Loop over the steps of a pass: the lines given, then panel pointers move on by `step_bytes` and the prefetch by
/// `prefetch_bytes`.
macro_rules! steps {
    ($args:ident, step_bytes = $bytes:literal, prefetch_bytes = $prefetch:literal, $($line:literal,)+) => {
        asm!(
            "2:",
            $($line,)+
            concat!("add {a0}, ", $bytes), concat!("add {a1}, ", $bytes),
            concat!("add {b0}, ", $bytes), concat!("add {b1}, ", $bytes),
            concat!("add {prefetch}, ", $prefetch),
            "dec {steps}",
            "jnz 2b",
            a0 = inout(reg) $args.a[0] => _, a1 = inout(reg) $args.a[1] => _,
            b0 = inout(reg) $args.b[0] => _, b1 = inout(reg) $args.b[1] => _,
            prefetch = inout(reg) $args.prefetch => _,
            steps = inout(reg) $args.steps => _,
            row = in(reg) ROW,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, readonly),
        )
    };
}

/// Micro-kernel of operands in [`PackFormat::Bf16`](crate::kernels::cpu::gemm::pack::PackFormat::Bf16).
///
/// # Safety
/// Tiles are configured ([`TileGuard`](crate::kernels::cpu::amx::TileGuard)); panels have `steps` steps; `acc` and `c` are
/// as large as the arguments say, used by nobody else.
pub(crate) unsafe fn bf16(args: &AmxArgs) {
    // SAFETY: as the caller promises.
    unsafe {
        load_acc(args);
        steps!(
            args,
            step_bytes = "1024",
            prefetch_bytes = "256",
            "tileloadd tmm6, [{b0} + {row}*1]",
            "tileloadd tmm4, [{a0} + {row}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "prefetcht1 [{prefetch}]",
            "prefetcht1 [{prefetch} + 64]",
            "tileloadd tmm5, [{a1} + {row}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "prefetcht1 [{prefetch} + 128]",
            "prefetcht1 [{prefetch} + 192]",
            "tileloadd tmm7, [{b1} + {row}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
        );
        store_acc(args);
    }
}

/// Micro-kernel of operands in [`PackFormat::Bf16x3`](crate::kernels::cpu::gemm::pack::PackFormat::Bf16x3).
///
/// Six of the nine products of parts are added: the other three lie below 2^-24 of the whole. Their order needs the fewest
/// loads.
///
/// # Safety
/// As for [`bf16`].
pub(crate) unsafe fn bf16x3(args: &AmxArgs) {
    // SAFETY: as the caller promises.
    unsafe {
        load_acc(args);
        steps!(
            args,
            step_bytes = "3072",
            prefetch_bytes = "768",
            // hi x lo
            "tileloadd tmm4, [{a0} + {row}*1]",
            "tileloadd tmm6, [{b0} + {row}*1 + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a1} + {row}*1]",
            "prefetcht1 [{prefetch}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{b1} + {row}*1 + 2048]",
            "prefetcht1 [{prefetch} + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // hi x hi
            "tileloadd tmm6, [{b0} + {row}*1]",
            "prefetcht1 [{prefetch} + 128]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{b1} + {row}*1]",
            "prefetcht1 [{prefetch} + 192]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // hi x mid
            "tileloadd tmm6, [{b0} + {row}*1 + 1024]",
            "prefetcht1 [{prefetch} + 256]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{b1} + {row}*1 + 1024]",
            "prefetcht1 [{prefetch} + 320]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // mid x mid
            "tileloadd tmm4, [{a0} + {row}*1 + 1024]",
            "prefetcht1 [{prefetch} + 384]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a1} + {row}*1 + 1024]",
            "prefetcht1 [{prefetch} + 448]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // mid x hi
            "tileloadd tmm6, [{b0} + {row}*1]",
            "prefetcht1 [{prefetch} + 512]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{b1} + {row}*1]",
            "prefetcht1 [{prefetch} + 576]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // lo x hi
            "tileloadd tmm4, [{a0} + {row}*1 + 2048]",
            "prefetcht1 [{prefetch} + 640]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a1} + {row}*1 + 2048]",
            "prefetcht1 [{prefetch} + 704]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
        );
        store_acc(args);
    }
}
