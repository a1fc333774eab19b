//! Measurements of this process and of the machine.

use std::time::Instant;

use candle_core::{Device, Tensor};
use mpt_core::{Parameter, Precision};
use rayon::prelude::*;

use crate::exit::CliError;

/// Peak resident memory of this process, in bytes; `None` if the system does not report it.
pub(crate) fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// CPU time of the calling thread, in seconds; `None` if the system does not report it.
pub(crate) fn thread_cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    Some(nanoseconds / 1e9)
}

/// Peak FLOP/s: the best of three f32 matrix products on all threads. Utilization is relative to it.
pub(crate) fn measure_peak_flops() -> Result<f64, CliError> {
    const N: usize = 2048;
    let matrix = Tensor::rand(-1f32, 1f32, (N, N), &Device::Cpu)?;
    let mut best = f64::MAX;
    for _ in 0..3 {
        let began = Instant::now();
        mpt_core::ops::linear(&matrix, &Parameter::Tensor(matrix.clone()), Precision::F32)?;
        best = best.min(began.elapsed().as_secs_f64());
    }
    Ok(2.0 * (N as f64).powi(3) / best)
}

/// Text of [`measure_peak_flops`] for tables.
pub(crate) fn format_flops(flops: f64) -> String {
    format!("{:.0} GFLOP/s, f32 product", flops / 1e9)
}

/// Read bandwidth in bytes/s: the best of three passes of all threads over 1 GiB, which no cache holds.
pub(crate) fn measure_read_bandwidth() -> f64 {
    const WORDS: usize = 1 << 27;
    let words = vec![1u64; WORDS];
    let mut best = f64::MAX;
    for _ in 0..3 {
        let began = Instant::now();
        let sums = words.par_chunks(1 << 16).map(|chunk| chunk.iter().copied().fold(0, u64::wrapping_add));
        std::hint::black_box(sums.reduce(|| 0, u64::wrapping_add));
        best = best.min(began.elapsed().as_secs_f64());
    }
    (WORDS * size_of::<u64>()) as f64 / best
}
