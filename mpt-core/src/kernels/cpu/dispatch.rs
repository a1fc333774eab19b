//! Run-time dispatch: the instruction set level of the CPU kernels, detected once.
//!
//! Most kernels are portable Rust that the compiler vectorizes, and [`for_each_level`] compiles them for every level. They use no
//! fused multiply-add and fix the order of their sums, so all levels give the same bits. Matrix products have micro-kernels for
//! each level: those of quantized weights agree to the bit, those of floats (`gemm`) round as the level's instructions do.

use std::sync::OnceLock;

use crate::error::{Error, Result};

/// Instruction set level, lowest first; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Baseline of the architecture: SSE2, NEON.
    Baseline,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with BF16 and VNNI: products of bf16 pairs and of int8 quads.
    Avx512Bf16,
    /// Matrix tiles of bf16 and int8 (AMX) beside AVX-512.
    Amx,
}

/// Levels and their names in the variable `MPT_CPU_LEVEL`.
const NAMES: [(Level, &str); 5] = [
    (Level::Baseline, "baseline"),
    (Level::Avx2, "avx2"),
    (Level::Avx512, "avx512"),
    (Level::Avx512Bf16, "avx512bf16"),
    (Level::Amx, "amx"),
];

/// Environment variable that lowers the level.
const VARIABLE: &str = "MPT_CPU_LEVEL";

/// Level in use: the best of this processor, or a lower one that the variable `MPT_CPU_LEVEL` names.
pub(crate) fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let asked = std::env::var(VARIABLE).ok().and_then(|name| named(&name));
        asked.unwrap_or(Level::Amx).min(detected())
    })
}

/// Level of a name.
fn named(name: &str) -> Option<Level> {
    NAMES.iter().find(|(_, known)| *known == name).map(|&(level, _)| level)
}

/// Checks the environment variable `MPT_CPU_LEVEL`, which limits the instruction sets of kernels.
///
/// # Errors
/// [`Error::CpuLevel`] when it is set to an unknown level; kernels would ignore it.
pub fn check_cpu_level() -> Result<()> {
    match std::env::var(VARIABLE) {
        Ok(name) if named(&name).is_none() => {
            Err(Error::CpuLevel { name, expected: NAMES.map(|(_, name)| name).join(", ") })
        }
        _ => Ok(()),
    }
}

/// Levels of this processor, lowest first.
#[cfg(test)]
pub(crate) fn levels() -> impl Iterator<Item = Level> {
    NAMES.iter().map(|&(level, _)| level).filter(|&level| level <= self::level())
}

#[cfg(target_arch = "x86_64")]
fn detected() -> Level {
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    let bf16 = is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512vnni");
    match (avx2, avx512, bf16) {
        (false, _, _) => Level::Baseline,
        (true, false, _) => Level::Avx2,
        (true, true, false) => Level::Avx512,
        (true, true, true) if super::amx::available() => Level::Amx,
        (true, true, true) => Level::Avx512Bf16,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detected() -> Level {
    Level::Baseline
}

/// Defines functions whose bodies are compiled for every [`Level`] and selected at each call.
macro_rules! for_each_level {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block)+) => {$(
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                use $crate::kernels::cpu::dispatch::{Level, level};

                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }

                #[expect(unsafe_code, reason = "the call needs the features that `level` has found")]
                match level() {
                    // SAFETY: `level` returns `Avx512` or more only where AVX-512 F, BW, DQ and VL were detected.
                    Level::Avx512 | Level::Avx512Bf16 | Level::Amx => return unsafe { avx512($($arg),*) },
                    // SAFETY: `level` returns `Avx2` only where AVX2 was detected.
                    Level::Avx2 => return unsafe { avx2($($arg),*) },
                    Level::Baseline => {}
                }
            }
            body($($arg),*)
        }
    )+};
}
pub(crate) use for_each_level;
