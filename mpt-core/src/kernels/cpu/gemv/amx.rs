//! Products of up to 16 rows with the matrix unit.
//!
//! The roles are those of a matrix product the other way round: rows of the weight are rows of the left tiles, as they lie, rows
//! of `x` are columns of the right ones. Values of the weight are split into bf16 parts one step ahead of their products, so
//! that splitting and multiplying overlap. Elements add up the products of parts in the order of
//! [`split`](crate::kernels::cpu::gemm), in the same chunks.

#![expect(unsafe_code, reason = "tile and vector instructions over memory whose bounds were checked")]

mod parts;

use std::arch::asm;
use std::arch::x86_64::*;

use parts::{Bf16, F16, F32, Nf4, Parts};

use super::TASK_ROWS;
use crate::dtype::WeightDtype;
use crate::kernels::cpu::amx::Tiles;
use crate::kernels::cpu::gemm::{Form, Mat, Packed, SIDE, Threads, Tile, split_chunk_steps};
use crate::kernels::cpu::scratch::Scratch;
use crate::storage::StoredTensor;

/// Panels of 16 rows of the weight whose sums are in tiles at once: so many that no product waits for the one before.
const PANELS: usize = TASK_ROWS / SIDE;

/// Values of a step.
const STEP: usize = 2 * SIDE;

/// Bytes that are asked for ahead in each row.
const AHEAD: usize = 1024;

/// The parts of one step of all panels: tiles `[row][word]`.
type Step = [[Tile; 3]; PANELS];

/// The `m` rows of `x` as columns of a right operand.
pub(super) fn pack(x: &[f32], m: usize) -> Packed<'static> {
    let k = x.len() / m;
    Packed::right_in(Mat::new(x, m, k, k).t(), Form::Split, Threads::Caller)
}

/// `y` `[rows, m]` = the products of the weight's rows from `first` on, at most [`TASK_ROWS`], with those of `x`.
pub(super) fn products(y: &mut [f32], x: &Packed<'_>, weight: &StoredTensor, first: usize) {
    let rows = first..first + y.len() / x.rows();
    match weight.dtype() {
        WeightDtype::F32 => task::<F32>(y, x, weight.row_range(rows)),
        WeightDtype::F16 => task::<F16>(y, x, weight.row_range(rows)),
        WeightDtype::BF16 => task::<Bf16>(y, x, weight.row_range(rows)),
        WeightDtype::Nf4 => task::<Nf4>(y, x, weight.row_range(rows)),
        _ => {
            let mut wide = Scratch::take(rows.len() * x.inner(), 0f32);
            weight.widen_rows(rows, &mut wide);
            task::<F32>(y, x, bytemuck::cast_slice(&wide));
        }
    }
}

/// [`products`] with rows whose bytes are `bytes`.
fn task<P: Parts>(y: &mut [f32], x: &Packed<'_>, bytes: &[u8]) {
    let m = x.rows();
    let source = Rows::<P>::new(bytes, y.len() / m, x.inner());
    let _tiles = Tiles::full();
    let chunk = split_chunk_steps(x.steps());
    let mut sums = [Tile::ZERO; PANELS];
    for from in (0..x.steps()).step_by(chunk) {
        let steps = from..(from + chunk).min(x.steps());
        // SAFETY: tiles are in use, this processor has the level of the matrix unit, and steps are below those of both operands.
        unsafe { chunk_sums::<P>(&mut sums, x, &source, steps) };
        let rows = sums.iter().flat_map(|tile| &tile.0);
        for (y, sums) in y.chunks_exact_mut(m).zip(rows) {
            let sums = sums.iter().map(|&sum| f32::from_bits(sum));
            y.iter_mut().zip(sums).for_each(|(y, sum)| *y = if from == 0 { sum } else { *y + sum });
        }
    }
}

/// Rows of a weight, read step by step.
struct Rows<P> {
    /// The first byte of each row; the last row stands for those that do not exist.
    rows: [*const u8; TASK_ROWS],
    /// Steps that lie in the rows as a whole.
    whole: usize,
    /// The last step of each row, padded with zeros, where it is not whole.
    edge: Vec<u8>,
    parts: std::marker::PhantomData<P>,
}

impl<P: Parts> Rows<P> {
    fn new(bytes: &[u8], count: usize, inner: usize) -> Self {
        let len = bytes.len() / count;
        let row = |i: usize| &bytes[i.min(count - 1) * len..][..len];
        let whole = inner / STEP;
        let mut edge = Vec::new();
        if !inner.is_multiple_of(STEP) {
            edge.resize(TASK_ROWS * P::STEP_BYTES, 0);
            for (i, edge) in edge.chunks_exact_mut(P::STEP_BYTES).enumerate() {
                let rest = &row(i)[P::offset(whole)..];
                edge[..rest.len()].copy_from_slice(rest);
            }
        }
        Self { rows: std::array::from_fn(|i| row(i).as_ptr()), whole, edge, parts: std::marker::PhantomData }
    }

    /// Splits step `step` of the rows of panel `panel`.
    ///
    /// # Safety
    /// The processor has AVX-512, and `step` is below the number of steps.
    #[inline(always)]
    unsafe fn split(&self, tiles: &mut [Tile; 3], panel: usize, step: usize) {
        let rows = &self.rows[panel * SIDE..][..SIDE];
        for (i, &row) in rows.iter().enumerate() {
            // SAFETY: the step lies in the row, or in the padded rest of it; tiles have 16 rows of 64 bytes.
            unsafe {
                let words = if step < self.whole {
                    P::prefetch(row, step);
                    P::words(row, step)
                } else {
                    P::words(self.edge[(panel * SIDE + i) * P::STEP_BYTES..].as_ptr(), 0)
                };
                for (tile, words) in tiles.iter_mut().zip(words).take(P::COUNT) {
                    _mm512_store_si512(tile.0[i].as_mut_ptr().cast(), words);
                }
            }
        }
    }
}

/// The sums `[row][column]` of every panel over `steps`.
///
/// # Safety
/// Tiles are in use, the processor has AVX-512, and `steps` lie within both operands.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn chunk_sums<P: Parts>(
    sums: &mut [Tile; PANELS],
    x: &Packed<'_>,
    source: &Rows<P>,
    steps: std::ops::Range<usize>,
) {
    let mut room: [Step; 2] = [[[Tile::ZERO; 3]; PANELS]; 2];
    let [now, next] = &mut room;
    let (mut now, mut next) = (now, next);
    // SAFETY: the caller's promise; parts of a step are whole before it is multiplied.
    unsafe {
        for (panel, tiles) in now.iter_mut().enumerate() {
            source.split(tiles, panel, steps.start);
        }
        clear_sums();
        for step in steps.clone() {
            let x = &x.tiles()[step * 3..][..3];
            let ahead = (step + 1).min(steps.end - 1);
            let [first, second, third, fourth] = next;
            load_x(&x[0]);
            source.split(first, 0, ahead);
            if P::COUNT == 3 {
                with_third(now);
            }
            source.split(second, 1, ahead);
            with_first(now);
            with_second(now);
            load_x(&x[1]);
            source.split(third, 2, ahead);
            with_second(now);
            with_first(now);
            load_x(&x[2]);
            source.split(fourth, 3, ahead);
            with_first(now);
            std::mem::swap(&mut now, &mut next);
        }
        store_sums(sums);
    }
}

/// Bytes from one row of a tile in memory to the next.
const ROW: usize = 64;

/// Bytes of a tile and of the parts of a panel, as the assembly below writes them out.
const _: () = assert!(size_of::<Tile>() == 1024 && size_of::<[Tile; 3]>() == 3072);

unsafe fn clear_sums() {
    // SAFETY: tiles are in use.
    unsafe {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            options(nostack, nomem),
        );
    }
}

unsafe fn store_sums(sums: &mut [Tile; PANELS]) {
    // SAFETY: tiles are in use; there are four tiles.
    unsafe {
        asm!(
            "tilestored [{sums} + {row}*1], tmm0",
            "tilestored [{sums} + {row}*1 + 1024], tmm1",
            "tilestored [{sums} + {row}*1 + 2048], tmm2",
            "tilestored [{sums} + {row}*1 + 3072], tmm3",
            sums = in(reg) sums.as_mut_ptr(), row = in(reg) ROW,
            options(nostack),
        );
    }
}

/// One part of a step of `x`.
unsafe fn load_x(tile: &Tile) {
    // SAFETY: tiles are in use; there is a tile.
    unsafe {
        asm!(
            "tileloadd tmm4, [{x} + {row}*1]",
            x = in(reg) tile, row = in(reg) ROW,
            out("tmm4") _,
            options(nostack, readonly),
        );
    }
}

/// Functions that add the products of the part of `x` that was loaded last and one part of the weight, so many bytes from the
/// first one, to the sums of all panels. Registers take turns, since a load waits for the last product of its register.
macro_rules! products_with {
    ($($name:ident = $part:literal, $a:literal, $b:literal, $c:literal;)+) => {$(
        #[inline(always)]
        unsafe fn $name(parts: &Step) {
            // SAFETY: tiles are in use; there are three tiles of each of four panels.
            unsafe {
                asm!(
                    concat!("tileloadd ", $a, ", [{parts} + {row}*1 + ", $part, "]"),
                    concat!("tileloadd ", $b, ", [{parts} + {row}*1 + 3072 + ", $part, "]"),
                    concat!("tileloadd ", $c, ", [{parts} + {row}*1 + 6144 + ", $part, "]"),
                    concat!("tdpbf16ps tmm0, ", $a, ", tmm4"),
                    concat!("tileloadd ", $a, ", [{parts} + {row}*1 + 9216 + ", $part, "]"),
                    concat!("tdpbf16ps tmm1, ", $b, ", tmm4"),
                    concat!("tdpbf16ps tmm2, ", $c, ", tmm4"),
                    concat!("tdpbf16ps tmm3, ", $a, ", tmm4"),
                    parts = in(reg) parts.as_ptr(), row = in(reg) ROW,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, readonly),
                );
            }
        }
    )+};
}

products_with! {
    with_third = "2048", "tmm5", "tmm6", "tmm7";
    with_first = "0", "tmm6", "tmm7", "tmm5";
    with_second = "1024", "tmm7", "tmm5", "tmm6";
}
