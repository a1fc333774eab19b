//! The order of bytes in a panel: 16 rows side by side, so that a vector holds the same column of all of them.
//!
//! A panel is a sequence of spans of 256 columns. A span holds first what scales need, then codes: a line of 64 bytes is
//! `[16 rows][4 columns]`, and four columns of codes are a quad. Legend: d, dmin f16; s, m 6-bit scales and minima.
//!
//! | format | head | codes of 32 columns |
//! |---|---|---|
//! | `Q8_0` | d `[group][row]` | 8 lines, one a quad |
//! | `Q4_0` | d `[group][row]` | 4 lines: quad l in low halves, quad l + 4 in high halves |
//! | `Q4_K` | d, dmin `[row]`; s, m as three lines of 16 bytes for four groups | as `Q4_0` |
//! | `Q5_K` | as `Q4_K` | as `Q4_0`; after all of them one line each: bit j is the highest bit of quad j |
//! | `Q6_K` | d `[row]`, scales `[group of 16][row]` | as `Q4_0`; after all of them two lines each: bits 2j, 2j + 1 of line l are the highest of quad 4 l + j |

use std::ops::Range;

use super::{LANES, SPAN};
use crate::dtype::WeightDtype;

/// Bytes of a line of codes.
pub(super) const LINE: usize = 64;

/// Where the scales and the minima of `Q4_K` and `Q5_K` begin in a span, and where the head ends.
pub(super) const K_SCALES: usize = 4 * LANES;
pub(super) const K_MINS: usize = K_SCALES + 6 * LANES;
pub(super) const K_HEAD: usize = K_MINS + 6 * LANES;

/// Where the head of a span of `Q6_K` ends.
pub(super) const Q6_K_HEAD: usize = 2 * LANES + 16 * LANES;

/// Writes the rows `rows`, at most 16 rows of `row_bytes` bytes in ggml's order, as one panel; rows that are missing become zero.
pub(crate) fn pack_panel(format: WeightDtype, rows: &[u8], row_bytes: usize, panel: &mut [u8]) {
    panel.fill(0);
    for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
        each_span(format, row.len(), |from, to, blocks| {
            Cell { format, lane, blocks }.write(&row[from], &mut panel[to]);
        });
    }
}

/// Writes row `lane` of a panel in ggml's order.
pub(crate) fn unpack_row(format: WeightDtype, panel: &[u8], lane: usize, row: &mut [u8]) {
    each_span(format, row.len(), |to, from, blocks| {
        Cell { format, lane, blocks }.read(&panel[from], &mut row[to]);
    });
}

/// Calls `visit` with the bytes of each span in the row and in the panel, and its number of blocks.
fn each_span(
    format: WeightDtype,
    row_bytes: usize,
    mut visit: impl FnMut(Range<usize>, Range<usize>, usize),
) {
    let span_bytes = SPAN / format.block_len() * format.block_bytes();
    for from in (0..row_bytes).step_by(span_bytes) {
        let to = (from + span_bytes).min(row_bytes);
        visit(from..to, from * LANES..to * LANES, (to - from) / format.block_bytes());
    }
}

/// One row's part of a span.
#[derive(Clone, Copy)]
struct Cell {
    format: WeightDtype,
    lane: usize,
    blocks: usize,
}

/// A place of some bits in a block and in a span.
#[derive(Clone, Copy)]
struct Bits {
    byte: usize,
    shift: u32,
    width: u32,
}

impl Bits {
    fn get(self, bytes: &[u8]) -> u8 {
        (bytes[self.byte] >> self.shift) & (0xff >> (8 - self.width))
    }

    /// Sets bits that are zero.
    fn set(self, bytes: &mut [u8], value: u8) {
        bytes[self.byte] |= value << self.shift;
    }
}

impl Cell {
    fn write(self, row: &[u8], span: &mut [u8]) {
        self.each(|in_row, in_span| in_span.set(span, in_row.get(row)));
    }

    fn read(self, span: &[u8], row: &mut [u8]) {
        row.fill(0);
        self.each(|in_row, in_span| in_row.set(row, in_span.get(span)));
    }

    /// Visits all bits of this row's blocks: their place in the row and in the span.
    fn each(self, mut visit: impl FnMut(Bits, Bits)) {
        match self.format {
            WeightDtype::Q8_0 => self.small_blocks(&mut visit, 8),
            WeightDtype::Q4_0 => self.small_blocks(&mut visit, 4),
            WeightDtype::Q4K => self.k_blocks(&mut visit, 16, None),
            WeightDtype::Q5K => self.k_blocks(&mut visit, 48, Some(16)),
            WeightDtype::Q6K => self.q6_k(&mut visit),
            other => unreachable!("{other} is not multiplied in integers"),
        }
    }

    /// The byte of a quad's line that belongs to column `column` of this row.
    fn in_line(self, column: usize) -> usize {
        self.lane * 4 + column % 4
    }

    /// Where the low 4 bits of a column lie when codes begin at `head`.
    fn nibble(self, head: usize, column: usize) -> Bits {
        let (group, quad) = (column / 32, column % 32 / 4);
        let byte = head + (group * 4 + quad % 4) * LINE + self.in_line(column);
        Bits { byte, shift: if quad < 4 { 0 } else { 4 }, width: 4 }
    }

    fn half(self, visit: &mut impl FnMut(Bits, Bits), in_row: usize, in_span: usize) {
        for i in 0..2 {
            visit(byte(in_row + i), byte(in_span + 2 * self.lane + i));
        }
    }

    /// `Q8_0` and `Q4_0`.
    fn small_blocks(self, visit: &mut impl FnMut(Bits, Bits), width: u32) {
        let (bytes, head) = (self.format.block_bytes(), self.blocks * 2 * LANES);
        for block in 0..self.blocks {
            self.half(visit, block * bytes, block * 2 * LANES);
            for i in 0..32 {
                let column = block * 32 + i;
                if width == 8 {
                    let line = head + (column / 4) * LINE;
                    visit(byte(block * bytes + 2 + i), byte(line + self.in_line(column)));
                } else {
                    let shift = if i < 16 { 0 } else { 4 };
                    let in_row = Bits { byte: block * bytes + 2 + i % 16, shift, width: 4 };
                    visit(in_row, self.nibble(head, column));
                }
            }
        }
    }

    /// `Q4_K` and `Q5_K`: nibbles begin at `nibbles` of a block, fifth bits at `fifth`.
    fn k_blocks(self, visit: &mut impl FnMut(Bits, Bits), nibbles: usize, fifth: Option<usize>) {
        self.half(visit, 0, 0);
        self.half(visit, 2, 2 * LANES);
        for group in 0..8 {
            for (first, to) in [(0, K_SCALES), (4, K_MINS)] {
                for (in_row, part) in six_bits(group, first) {
                    visit(in_row, self.six_bits_of_four(to, group, part));
                }
            }
        }
        for column in 0..SPAN {
            let (group, i) = (column / 32, column % 32);
            let shift = if group % 2 == 0 { 0 } else { 4 };
            let in_row = Bits { byte: nibbles + group / 2 * 32 + i, shift, width: 4 };
            visit(in_row, self.nibble(K_HEAD, column));
            if let Some(fifth) = fifth {
                let line = K_HEAD + 8 * 4 * LINE + group * LINE;
                let in_span = Bits { byte: line + self.in_line(column), shift: (i / 4) as u32, width: 1 };
                visit(Bits { byte: fifth + i, shift: group as u32, width: 1 }, in_span);
            }
        }
    }

    /// Where a part of the 6 bits of `group` lies: three lines of 16 bytes hold the first three of four groups in their
    /// lower 6 bits and a third of the last one each in their upper two.
    fn six_bits_of_four(self, at: usize, group: usize, part: Part) -> Bits {
        let lines = at + group / 4 * 3 * LANES;
        if group % 4 < 3 {
            let byte = lines + group % 4 * LANES + self.lane;
            Bits { byte, shift: part.from, width: part.width }
        } else {
            let byte = lines + part.from as usize / 2 * LANES + self.lane;
            Bits { byte, shift: 6, width: part.width }
        }
    }

    fn q6_k(self, visit: &mut impl FnMut(Bits, Bits)) {
        self.half(visit, 208, 0);
        for group in 0..16 {
            visit(byte(192 + group), byte(2 * LANES + group * LANES + self.lane));
        }
        for column in 0..SPAN {
            let (half, k, i) = (column / 128, column % 128 / 32, column % 32);
            let low = Bits { byte: half * 64 + k % 2 * 32 + i, shift: k as u32 / 2 * 4, width: 4 };
            visit(low, self.nibble(Q6_K_HEAD, column));
            let high = Bits { byte: 128 + half * 32 + i, shift: 2 * k as u32, width: 2 };
            let (group, quad) = (column / 32, i / 4);
            let line = Q6_K_HEAD + 8 * 4 * LINE + (group * 2 + quad / 4) * LINE;
            visit(high, Bits { byte: line + self.in_line(column), shift: 2 * (quad as u32 % 4), width: 2 });
        }
    }
}

fn byte(byte: usize) -> Bits {
    Bits { byte, shift: 0, width: 8 }
}

/// Two bits of a 6-bit number.
#[derive(Clone, Copy)]
struct Part {
    from: u32,
    width: u32,
}

/// Where ggml keeps the 6 bits of the scale (`first` 0) or the minimum (`first` 4) of `group`, two bits at a time.
fn six_bits(group: usize, first: usize) -> [(Bits, Part); 3] {
    [0, 2, 4].map(|from| {
        let (byte, shift) = match (group < 4, from) {
            (true, _) => (4 + first + group, from),
            (false, 4) => (4 + first + group - 4, 6),
            (false, _) => (4 + 8 + group - 4, from + if first == 0 { 0 } else { 4 }),
        };
        (Bits { byte, shift, width: 2 }, Part { from, width: 2 })
    })
}
