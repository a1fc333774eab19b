//! Which instruction set the CPU kernels use: found once, at run time.
//!
//! A kernel is written once, as plain Rust that the compiler can vectorize, and [`for_each_level`] compiles it for
//! every level. Kernels use no fused multiply-add and fix the order of their sums, so all levels give the same bits.

use std::sync::OnceLock;

/// An instruction set level, lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// What every processor of the architecture has.
    Baseline,
    /// x86-64 with AVX2.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
}

/// The level in use: the best one of this processor, or less where the variable `MPT_CPU_LEVEL`
/// (`baseline`, `avx2`, `avx512`) asks for less.
pub(crate) fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let asked = match std::env::var("MPT_CPU_LEVEL").as_deref() {
            Ok("baseline") => Level::Baseline,
            Ok("avx2") => Level::Avx2,
            _ => Level::Avx512,
        };
        asked.min(detected())
    })
}

#[cfg(target_arch = "x86_64")]
fn detected() -> Level {
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx512, is_x86_feature_detected!("avx2")) {
        (true, true) => Level::Avx512,
        (_, true) => Level::Avx2,
        _ => Level::Baseline,
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
                    // SAFETY: `level` returns `Avx512` only where AVX-512 F, BW, DQ and VL were detected.
                    Level::Avx512 => return unsafe { avx512($($arg),*) },
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
