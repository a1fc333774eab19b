//! Patches with the matrix unit: 32 rows x 32 columns of sums in four of its eight tiles.

#![expect(unsafe_code, reason = "tile instructions over the pointers of a patch")]

use std::arch::asm;

use super::Patch;
use crate::kernels::cpu::gemm::pack::SIDE;

/// A patch of bf16 tiles, always 32 x 32: where it has fewer panels, one is computed twice. Tiles are in use
/// ([`Tiles`](crate::kernels::cpu::amx::Tiles)).
pub(super) unsafe fn bf16(patch: &Patch) {
    let second = |panels: usize, step: usize| if panels > 1 { step } else { 0 };
    let row_panels = patch.rows.div_ceil(SIDE);
    // SAFETY: the second panels exist or are the first; the result has 32 rows of 32 elements.
    unsafe {
        let left = [patch.left, patch.left.add(second(row_panels, patch.left_step))];
        let right = [patch.right, patch.right.add(second(patch.col_panels, patch.right_step))];
        let out = [patch.out, patch.out.add(SIDE * patch.out_step)];
        let out_bytes = patch.out_step * size_of::<f32>();
        if patch.add {
            asm!(
                "tileloadd tmm0, [{o0} + {step}*1]",
                "tileloadd tmm1, [{o0} + {step}*1 + 64]",
                "tileloadd tmm2, [{o1} + {step}*1]",
                "tileloadd tmm3, [{o1} + {step}*1 + 64]",
                o0 = in(reg) out[0], o1 = in(reg) out[1], step = in(reg) out_bytes,
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
        asm!(
            "2:",
            "tileloadd tmm6, [{r0} + {step}*1]",
            "tileloadd tmm4, [{l0} + {step}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{l1} + {step}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{r1} + {step}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {l0}, 1024", "add {l1}, 1024", "add {r0}, 1024", "add {r1}, 1024",
            "dec {tiles}",
            "jnz 2b",
            "tilestored [{o0} + {out_step}*1], tmm0",
            "tilestored [{o0} + {out_step}*1 + 64], tmm1",
            "tilestored [{o1} + {out_step}*1], tmm2",
            "tilestored [{o1} + {out_step}*1 + 64], tmm3",
            l0 = inout(reg) left[0] => _, l1 = inout(reg) left[1] => _,
            r0 = inout(reg) right[0] => _, r1 = inout(reg) right[1] => _,
            tiles = inout(reg) patch.tiles => _,
            o0 = in(reg) out[0], o1 = in(reg) out[1], out_step = in(reg) out_bytes,
            step = in(reg) SIDE * size_of::<u32>(),
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
