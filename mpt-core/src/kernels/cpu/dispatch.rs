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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Passes the tests of kernels, ops and layers in a process whose kernels use no more than a level, if the processor has it.
    fn pass_at(asked: Level) {
        if asked > level() {
            return;
        }
        let (_, name) = NAMES.iter().find(|(level, _)| *level == asked).expect("every level has a name");
        let tests = std::env::current_exe().expect("this program");
        let run = Command::new(tests)
            .args(["kernels::", "ops::", "nn::", "--skip", "dispatch::tests::pass"])
            // these go through all levels themselves
            .args(["--skip", "every_level", "--skip", "how_a_prompt_is_cut"])
            .env(VARIABLE, name)
            .env("MPT_EXPECTED_LEVEL", name)
            .output()
            .expect("the tests of this program start");
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success(), "at {name}: {said}");
        let passed =
            said.split("test result: ok. ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        assert!(passed > Some(80), "at {name} {passed:?} tests ran: {said}");
    }

    #[test]
    fn pass_at_the_baseline() {
        pass_at(Level::Baseline);
    }

    #[test]
    fn pass_at_avx2() {
        pass_at(Level::Avx2);
    }

    #[test]
    fn pass_at_avx512() {
        pass_at(Level::Avx512);
    }

    #[test]
    fn pass_at_avx512_with_bf16() {
        pass_at(Level::Avx512Bf16);
    }

    /// Tests that go through all levels go up to the one in use, and that is the one asked for.
    #[test]
    fn the_level_asked_for_is_in_use() {
        assert_eq!(levels().last(), Some(level()));
        if let Ok(name) = std::env::var("MPT_EXPECTED_LEVEL") {
            assert_eq!(Some(level()), named(&name));
        }
    }

    /// A level that the processor has and `detected` does not see would never be tested.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    #[test]
    fn no_level_of_this_processor_is_passed_over() {
        let needs = [
            (Level::Avx2, "avx2 fma f16c"),
            (Level::Avx512, "avx512f avx512bw avx512dq avx512vl"),
            (Level::Avx512Bf16, "avx512_bf16 avx512_vnni"),
            (Level::Amx, "amx_tile amx_bf16 amx_int8"),
        ];
        let text = std::fs::read_to_string("/proc/cpuinfo").expect("Linux describes its processors");
        let line = text.lines().find(|line| line.starts_with("flags")).expect("a line of flags");
        let flags: Vec<_> = line.split_whitespace().collect();
        let has = |names: &str| names.split(' ').all(|name| flags.contains(&name));
        let best = needs.iter().take_while(|(_, names)| has(names)).last();
        assert_eq!(detected(), best.map_or(Level::Baseline, |&(level, _)| level));
    }
}
