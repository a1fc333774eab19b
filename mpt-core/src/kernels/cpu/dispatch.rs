//! Which instruction set the CPU kernels use: found once, at run time.
//!
//! Most kernels are written once, as plain Rust that the compiler can vectorize, and [`for_each_level`] compiles them for
//! every level: they use no fused multiply-add and fix the order of their sums, so all levels give the same bits. Matrix
//! products have innermost loops of their own for each level; those of quantized weights agree to the bit, those of floats
//! (`gemm`) round as each level's instructions do.

use std::sync::OnceLock;

use crate::error::{Error, Result};

/// An instruction set level, lowest first; each holds all of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// What every processor of the architecture has: SSE2, NEON.
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

/// Every level with its name in the variable `MPT_CPU_LEVEL`.
const NAMES: [(Level, &str); 5] = [
    (Level::Baseline, "baseline"),
    (Level::Avx2, "avx2"),
    (Level::Avx512, "avx512"),
    (Level::Avx512Bf16, "avx512bf16"),
    (Level::Amx, "amx"),
];

/// The variable that asks for a lower level.
const VARIABLE: &str = "MPT_CPU_LEVEL";

/// The level in use: the best one of this processor, or less where the variable `MPT_CPU_LEVEL` asks for less.
pub(crate) fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let asked = std::env::var(VARIABLE).ok().and_then(|name| named(&name));
        asked.unwrap_or(Level::Amx).min(detected())
    })
}

fn named(name: &str) -> Option<Level> {
    NAMES.iter().find(|(_, known)| *known == name).map(|&(level, _)| level)
}

/// Whether the variable `MPT_CPU_LEVEL`, which asks kernels for less than the processor has, names a level where it is set.
///
/// # Errors
/// [`Error::CpuLevel`] when it does not: kernels would use the best level, as if it were not set.
pub fn check_cpu_level() -> Result<()> {
    match std::env::var(VARIABLE) {
        Ok(name) if named(&name).is_none() => {
            Err(Error::CpuLevel { name, expected: NAMES.map(|(_, name)| name).join(", ") })
        }
        _ => Ok(()),
    }
}

/// Every level this processor has, lowest first.
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

/// Defines functions whose bodies are compiled once for every [`Level`] and chosen at each call.
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
