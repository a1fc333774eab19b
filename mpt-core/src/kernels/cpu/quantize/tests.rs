//! Quantization against bytes written by ggml, against error bounds, and repeated.

use proptest::prelude::*;

use super::*;
use crate::kernels::cpu::dequantize::dequantize;
use crate::rng::CounterRng;
use crate::testing::largest;

const GGML: [WeightDtype; 5] =
    [WeightDtype::Q8_0, WeightDtype::Q4_0, WeightDtype::Q4K, WeightDtype::Q5K, WeightDtype::Q6K];
const ALL: [WeightDtype; 6] = [
    WeightDtype::Q8_0,
    WeightDtype::Q4_0,
    WeightDtype::Q4K,
    WeightDtype::Q5K,
    WeightDtype::Q6K,
    WeightDtype::Nf4,
];

/// Output of `ggml_quantize_chunk` for one block of [`sample`].
const Q8_0: &str = "8329f2ff26d60f62d007dff629bf0261f70834e926a2f10be8043cd61e81fb11d4fc";
const Q4_0: &str = "7839b778aa25799e6588c657ab04889e5789";
const Q4_K: &str = "93218a2dfaefbbf2ffeff4e9b71a1f8fd8299b967aaf2569d6088ba4599ff859cc778bb24889f7398db67bb0287af67837aa\
    5569902568d5177b94589f0758c4567ba24788f6387c456aa02779f5677cb5677c924879d7397d466b90287ad6697da45a9a\
    085a74587db2498bf76a8f46687da2599a075a82567da0488ae6798f456ca7287b84688fb359ab077b82577f";
const Q5_K: &str = "2a1da42dfef1fdf4ffeef4e9ba0f126d67cd9366d913649912459b66dd9367d913649b765d9b46d59366d932659916c5b052\
    473ce44f5bd3bd000759b23ff0a399ef07658013fe621a7ce66031f4fce16045bbc3204bd0ab2fe638a22f0eb198cde65480\
    11fc71f99bd6504ff2fac0fa5abfd82571f4af63eb9cc72041d5acc2ec49a62400b5f8a0eb557216eed5ff7de00b65b3340e\
    b415bdfa608125fce31f8ad96e40f618d11f96b2670ef634af0f";
const Q6_K: &str = "f540848dcb71df7e0b23d3b51f21c3ddddfaa9194cb34a518fe617f17f64256fe5fa96d5aba6f9da4410c089a6059db34e06\
    42b4a21ec1e69e233524db1322d4e12bac495eb35aa291161a008f6545a008f5672a4448f70599ef307649e9502b3cf54194\
    9fec90e28e1c24f3c71121d32ec3e7a70945bd373f71cc19f0616c1c1e92695ab52852e52e92a95b85285ee592a94aa46d16\
    a17e96a54ad46d1aa17991794aa469d6a14e97b94aa46d1aa17a7447a9259eb9578af4579a2552b9648a6280a4577694ae69\
    8b585c7a9c52718fa195";

/// Values that f32 holds exactly.
fn sample(i: usize) -> f32 {
    ((i * 37 + 11) % 101) as f32 / 64.0 * (1 + i % 7) as f32 - 50.0 / 64.0 * (1 + i % 7) as f32
}

fn bytes(dtype: WeightDtype, values: &[f32]) -> Vec<u8> {
    match dtype {
        WeightDtype::Nf4 => nf4::Nf4::quantize(values).expect("finite values").blocks(),
        _ => quantize(dtype, values).expect("finite values of usual size"),
    }
}

fn dequantized(dtype: WeightDtype, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0f32; bytes.len() / dtype.block_bytes() * dtype.block_len()];
    dequantize(dtype, bytes, &mut out);
    out
}

fn round_trip(dtype: WeightDtype, values: &[f32]) -> Vec<f32> {
    dequantized(dtype, &bytes(dtype, values))
}

fn normal(n: usize, seed: u64, scale: f32) -> Vec<f32> {
    let mut rng = CounterRng::new(seed, 0);
    (0..n).map(|_| rng.normal() * scale).collect()
}

#[test]
fn the_bytes_are_those_of_ggml() {
    for (dtype, expected) in GGML.into_iter().zip([Q8_0, Q4_0, Q4_K, Q5_K, Q6_K]) {
        let values: Vec<f32> = (0..dtype.block_len()).map(sample).collect();
        let found: String = bytes(dtype, &values).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, expected, "{dtype}");
    }
}

/// Largest distance of two neighboring codes of a dtype for this block.
fn step(dtype: WeightDtype, block: &[f32]) -> f32 {
    let top = largest(block.iter().copied()) as f32;
    let range = |group: &[f32]| {
        let (low, high) = group.iter().fold((0f32, 0f32), |(low, high), &x| (low.min(x), high.max(x)));
        high - low
    };
    let widest = |len: usize| largest(block.chunks(len).map(range)) as f32;
    match dtype {
        WeightDtype::Q8_0 => top / 127.0,
        WeightDtype::Q4_0 => top / 8.0,
        WeightDtype::Q4K => widest(32) / 15.0,
        WeightDtype::Q5K => widest(32) / 31.0,
        WeightDtype::Q6K => top / 32.0,
        _ => top * 0.304, // between the first two values of the code book
    }
}

/// Error bound of a dtype in steps.
///
/// Rounding costs half a step, and scales are rounded too. K-quants accept large errors of small values, and Q4_0 has no code for
/// the value opposite to the farthest one.
fn steps(dtype: WeightDtype) -> f32 {
    match dtype {
        WeightDtype::Q8_0 => 0.57,
        WeightDtype::Q4_0 => 1.01,
        WeightDtype::Q6K => 1.25,
        WeightDtype::Nf4 => 0.55,
        _ => 1.5,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn values_move_by_no_more_than_their_step(seed: u64, exponent in -3i32..12, uniform: bool, shift in -2f32..2.0) {
        let scale = 2f32.powi(exponent);
        let mut values = normal(512, seed, scale);
        if uniform {
            values.iter_mut().for_each(|x| *x = (*x / scale + shift).sin() * scale);
        }
        for dtype in ALL {
            let found = round_trip(dtype, &values);
            let blocks = values.chunks(dtype.block_len()).zip(found.chunks(dtype.block_len()));
            for (block, found) in blocks {
                let limit = steps(dtype) * step(dtype, block) + 1e-6;
                for (x, found) in block.iter().zip(found) {
                    prop_assert!((x - found).abs() <= limit, "{dtype}: {x} became {found}, limit {limit}");
                }
            }
        }
    }

    /// The value farthest from zero keeps its code, so the scale and all other codes stay.
    #[test]
    fn quantizing_twice_changes_nothing(seed: u64, exponent in -8i32..8) {
        let values = normal(640, seed, 2f32.powi(exponent));
        for dtype in [WeightDtype::Q8_0, WeightDtype::Q4_0] {
            let once = bytes(dtype, &values);
            prop_assert_eq!(&bytes(dtype, &dequantized(dtype, &once)), &once, "{}", dtype);
        }
        let (once, block) = (bytes(WeightDtype::Nf4, &values), nf4::BLOCK_BYTES);
        let twice = bytes(WeightDtype::Nf4, &dequantized(WeightDtype::Nf4, &once));
        for (once, twice) in once.chunks(block).zip(twice.chunks(block)) {
            prop_assert_eq!(&once[..32], &twice[..32]);
        }
    }

    /// Any bits give finite values or an error: never a panic, infinity or NaN.
    #[test]
    fn any_bits_are_quantized_or_refused(seed: u64) {
        let mut rng = CounterRng::new(seed, 0);
        let values: Vec<f32> = (0..512).map(|_| f32::from_bits(rng.bits() as u32)).collect();
        for dtype in GGML {
            let small: Vec<f32> = values.iter().map(|x| if x.abs() < 1e5 { *x } else { 0.0 }).collect();
            prop_assert!(round_trip(dtype, &small).iter().all(|x| x.is_finite()), "{dtype}");
            if let Ok(bytes) = quantize(dtype, &values) {
                prop_assert!(dequantized(dtype, &bytes).iter().all(|x| x.is_finite()), "{dtype}");
            }
        }
    }
}

/// Root mean square error relative to root mean square, for normal values.
#[test]
fn errors_are_typical_of_the_dtypes() {
    let values = normal(1 << 16, 5, 0.02);
    for (dtype, least, most) in [
        (WeightDtype::Q8_0, 0.004, 0.007),
        (WeightDtype::Q6K, 0.010, 0.020),
        (WeightDtype::Q5K, 0.025, 0.040),
        (WeightDtype::Q4K, 0.05, 0.08),
        (WeightDtype::Q4_0, 0.07, 0.10),
        (WeightDtype::Nf4, 0.07, 0.10),
    ] {
        let found = round_trip(dtype, &values);
        let squared: f64 = values.iter().zip(&found).map(|(x, y)| f64::from(x - y).powi(2)).sum();
        let squares: f64 = values.iter().map(|x| f64::from(*x).powi(2)).sum();
        let error = (squared / squares).sqrt();
        assert!((least..most).contains(&error), "{dtype}: {error}");
    }
}

#[test]
fn zeros_constants_and_the_smallest_values() {
    for dtype in ALL {
        assert!(round_trip(dtype, &[0.0; 512]).iter().all(|&x| x == 0.0), "{dtype}");
        for constant in [1.0, -3.0, 0.25] {
            let found = round_trip(dtype, &[constant; 512]);
            assert!(
                found.iter().all(|x| (x / constant - 1.0).abs() < 0.01),
                "{dtype}: {constant} became {}",
                found[0]
            );
        }
        for tiny in [f32::MIN_POSITIVE, f32::from_bits(1), -1e-40, 1e-20] {
            let found = round_trip(dtype, &[tiny; 512]);
            assert!(
                found.iter().all(|x| x.is_finite() && (x - tiny).abs() <= tiny.abs()),
                "{dtype}: {tiny:e}"
            );
        }
    }
}

#[test]
fn a_block_of_zeros_beside_others_stays_zero() {
    let mut values = normal(1024, 9, 1.0);
    values[256..512].fill(0.0);
    for dtype in ALL {
        assert!(round_trip(dtype, &values)[256..512].iter().all(|&x| x == 0.0), "{dtype}");
    }
}

#[test]
fn values_that_cannot_be_quantized_are_named() {
    let mut values = normal(3 * TASK_VALUES, 2, 1.0);
    let (first, second) = (TASK_VALUES + 5, 2 * TASK_VALUES + 1);
    values[second] = f32::INFINITY;
    values[first] = f32::NAN;
    let index = |error| match error {
        QuantizeError::NotFinite(at, _) => at,
        QuantizeError::TooLarge(..) | QuantizeError::Overflow(..) => usize::MAX,
    };
    for dtype in GGML {
        assert!(quantize(dtype, &values).map_err(index) == Err(first), "{dtype}");
    }
    assert!(nf4::Nf4::quantize(&values).map_err(index) == Err(first));
    values[first] = 0.0;
    values[second] = -3e38;
    for dtype in GGML {
        assert!(quantize(dtype, &values) == Err(QuantizeError::TooLarge(second, -3e38)), "{dtype}");
    }
    assert!(round_trip(WeightDtype::Nf4, &values)[second] < -2.5e38);
}

#[test]
fn threads_do_not_change_the_bytes() {
    let values = normal(5 * TASK_VALUES + 512, 4, 1.0);
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    for dtype in ALL {
        let one = pool(1).install(|| bytes(dtype, &values));
        assert_eq!(pool(3).install(|| bytes(dtype, &values)), one, "{dtype}");
    }
}

#[test]
fn the_map_of_scales_is_that_of_bitsandbytes() {
    let map = nf4::dynamic_map();
    let bits = [0, 1, 64, 126, 127, 128, 200, 254, 255].map(|at| map[at].to_bits());
    assert_eq!(
        bits,
        [
            0xbf7e_3333,
            0xbf7a_999a,
            0xbdc9_eb85,
            0xb513_a3b7,
            0,
            0x3513_a3b7,
            0x3e6f_3333,
            0x3f7e_3333,
            0x3f80_0000
        ]
    );
    assert_eq!(map.iter().map(|x| u64::from(x.to_bits())).sum::<u64>(), 535_306_620_548);
}
