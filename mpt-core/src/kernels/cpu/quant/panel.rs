//! Byte layout of a panel: 16 rows side by side, so that a vector holds one column of all of them.
//!
//! A panel is a sequence of super-blocks of 256 columns. A super-block is a header of scales, then codes in lines of 64 bytes,
//! `[16 rows][4 columns]`; the codes of four columns are a quad. Legend: d, dmin f16; s, m 6-bit scales and minima.
//!
//! | dtype | header | codes of 32 columns |
//! |---|---|---|
//! | `Q8_0` | d `[group][row]` | 8 lines, one a quad |
//! | `Q4_0` | d `[group][row]` | 4 lines: quad l in low nibbles, quad l + 4 in high nibbles |
//! | `Q4_K` | d, dmin `[row]`; s, m as three lines of 16 bytes for four groups | as `Q4_0` |
//! | `Q5_K` | as `Q4_K` | as `Q4_0`; behind all lines one more a group: bit j is the high bit of quad j |
//! | `Q6_K` | d `[row]`, scales `[group of 16][row]` | as `Q4_0`; behind all lines two more a group: bits 2j, 2j + 1 of line l are the high bits of quad 4 l + j |

use std::ops::Range;

use super::{PANEL_ROWS, QK_K};
use crate::dtype::WeightDtype;

/// Bytes of a line of codes.
pub(super) const LINE: usize = 64;

/// Offset of the scales in a super-block of `Q4_K` or `Q5_K`.
pub(super) const K_SCALES: usize = 4 * PANEL_ROWS;
/// Offset of the minima in a super-block of `Q4_K` or `Q5_K`.
pub(super) const K_MINS: usize = K_SCALES + 6 * PANEL_ROWS;
/// Bytes of the header of a super-block of `Q4_K` or `Q5_K`.
pub(super) const K_HEADER: usize = K_MINS + 6 * PANEL_ROWS;

/// Bytes of the header of a super-block of `Q6_K`.
pub(super) const Q6_K_HEADER: usize = 2 * PANEL_ROWS + 16 * PANEL_ROWS;

/// Writes up to 16 rows of `row_bytes` bytes in ggml's order as one panel; missing rows become zero.
pub(crate) fn pack_panel(dtype: WeightDtype, rows: &[u8], row_bytes: usize, panel: &mut [u8]) {
    panel.fill(0);
    for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
        for_each_super_block(dtype, row.len(), |from, to, blocks| {
            PanelLane { dtype, lane, blocks }.write(&row[from], &mut panel[to]);
        });
    }
}

/// Writes row `lane` of a panel to `row`, in ggml's order.
pub(crate) fn unpack_row(dtype: WeightDtype, panel: &[u8], lane: usize, row: &mut [u8]) {
    for_each_super_block(dtype, row.len(), |to, from, blocks| {
        PanelLane { dtype, lane, blocks }.read(&panel[from], &mut row[to]);
    });
}

/// Calls `visit` for each super-block with its bytes in the row, its bytes in the panel and its number of blocks.
fn for_each_super_block(
    dtype: WeightDtype,
    row_bytes: usize,
    mut visit: impl FnMut(Range<usize>, Range<usize>, usize),
) {
    let super_block_bytes = QK_K / dtype.block_len() * dtype.block_bytes();
    for from in (0..row_bytes).step_by(super_block_bytes) {
        let to = (from + super_block_bytes).min(row_bytes);
        visit(from..to, from * PANEL_ROWS..to * PANEL_ROWS, (to - from) / dtype.block_bytes());
    }
}

/// One row of a super-block.
#[derive(Clone, Copy)]
struct PanelLane {
    dtype: WeightDtype,
    lane: usize,
    blocks: usize,
}

/// Position of up to 8 bits in a row or in a super-block.
#[derive(Clone, Copy)]
struct BitField {
    byte: usize,
    shift: u32,
    width: u32,
}

impl BitField {
    fn get(self, bytes: &[u8]) -> u8 {
        (bytes[self.byte] >> self.shift) & (0xff >> (8 - self.width))
    }

    /// Sets the bits, which are zero.
    fn set(self, bytes: &mut [u8], value: u8) {
        bytes[self.byte] |= value << self.shift;
    }
}

impl PanelLane {
    fn write(self, row: &[u8], block: &mut [u8]) {
        self.for_each_field(|in_row, in_block| in_block.set(block, in_row.get(row)));
    }

    fn read(self, block: &[u8], row: &mut [u8]) {
        row.fill(0);
        self.for_each_field(|in_row, in_block| in_row.set(row, in_block.get(block)));
    }

    /// Visits all bits of the row: their positions in the row and in the super-block.
    fn for_each_field(self, mut visit: impl FnMut(BitField, BitField)) {
        match self.dtype {
            WeightDtype::Q8_0 => self.small_blocks(&mut visit, 8),
            WeightDtype::Q4_0 => self.small_blocks(&mut visit, 4),
            WeightDtype::Q4K => self.k_blocks(&mut visit, 16, None),
            WeightDtype::Q5K => self.k_blocks(&mut visit, 48, Some(16)),
            WeightDtype::Q6K => self.q6_k(&mut visit),
            other => unreachable!("{other} has no int8 kernel"),
        }
    }

    /// Byte of column `column` of this row in the line of its quad.
    fn in_line(self, column: usize) -> usize {
        self.lane * 4 + column % 4
    }

    /// Low 4 bits of a column when the codes begin at `header`.
    fn nibble(self, header: usize, column: usize) -> BitField {
        let (group, quad) = (column / 32, column % 32 / 4);
        let byte = header + (group * 4 + quad % 4) * LINE + self.in_line(column);
        BitField { byte, shift: if quad < 4 { 0 } else { 4 }, width: 4 }
    }

    /// Visits an f16 of the row.
    fn f16(self, visit: &mut impl FnMut(BitField, BitField), in_row: usize, in_block: usize) {
        for i in 0..2 {
            visit(byte(in_row + i), byte(in_block + 2 * self.lane + i));
        }
    }

    /// Fields of `Q8_0` and `Q4_0`, whose codes have `width` bits.
    fn small_blocks(self, visit: &mut impl FnMut(BitField, BitField), width: u32) {
        let (bytes, header) = (self.dtype.block_bytes(), self.blocks * 2 * PANEL_ROWS);
        for block in 0..self.blocks {
            self.f16(visit, block * bytes, block * 2 * PANEL_ROWS);
            for i in 0..32 {
                let column = block * 32 + i;
                if width == 8 {
                    let line = header + (column / 4) * LINE;
                    visit(byte(block * bytes + 2 + i), byte(line + self.in_line(column)));
                } else {
                    let shift = if i < 16 { 0 } else { 4 };
                    let in_row = BitField { byte: block * bytes + 2 + i % 16, shift, width: 4 };
                    visit(in_row, self.nibble(header, column));
                }
            }
        }
    }

    /// Fields of `Q4_K` and `Q5_K`: nibbles begin at byte `nibbles` of a block, fifth bits at byte `fifth`.
    fn k_blocks(self, visit: &mut impl FnMut(BitField, BitField), nibbles: usize, fifth: Option<usize>) {
        self.f16(visit, 0, 0);
        self.f16(visit, 2, 2 * PANEL_ROWS);
        for group in 0..8 {
            for (first, to) in [(0, K_SCALES), (4, K_MINS)] {
                for (in_row, pair) in six_bits(group, first) {
                    visit(in_row, self.packed_six_bits(to, group, pair));
                }
            }
        }
        for column in 0..QK_K {
            let (group, i) = (column / 32, column % 32);
            let shift = if group % 2 == 0 { 0 } else { 4 };
            let in_row = BitField { byte: nibbles + group / 2 * 32 + i, shift, width: 4 };
            visit(in_row, self.nibble(K_HEADER, column));
            if let Some(fifth) = fifth {
                let line = K_HEADER + 8 * 4 * LINE + group * LINE;
                let in_block =
                    BitField { byte: line + self.in_line(column), shift: (i / 4) as u32, width: 1 };
                visit(BitField { byte: fifth + i, shift: group as u32, width: 1 }, in_block);
            }
        }
    }

    /// Position of a bit pair of the 6-bit number of `group` in a super-block.
    ///
    /// Three lines of 16 bytes hold four groups: the first three in their lower 6 bits, and a bit pair of the last one each in
    /// their upper two.
    fn packed_six_bits(self, at: usize, group: usize, pair: BitPair) -> BitField {
        let lines = at + group / 4 * 3 * PANEL_ROWS;
        if group % 4 < 3 {
            let byte = lines + group % 4 * PANEL_ROWS + self.lane;
            BitField { byte, shift: pair.from, width: pair.width }
        } else {
            let byte = lines + pair.from as usize / 2 * PANEL_ROWS + self.lane;
            BitField { byte, shift: 6, width: pair.width }
        }
    }

    /// Fields of `Q6_K`.
    fn q6_k(self, visit: &mut impl FnMut(BitField, BitField)) {
        self.f16(visit, 208, 0);
        for group in 0..16 {
            visit(byte(192 + group), byte(2 * PANEL_ROWS + group * PANEL_ROWS + self.lane));
        }
        for column in 0..QK_K {
            let (half, k, i) = (column / 128, column % 128 / 32, column % 32);
            let low = BitField { byte: half * 64 + k % 2 * 32 + i, shift: k as u32 / 2 * 4, width: 4 };
            visit(low, self.nibble(Q6_K_HEADER, column));
            let high = BitField { byte: 128 + half * 32 + i, shift: 2 * k as u32, width: 2 };
            let (group, quad) = (column / 32, i / 4);
            let line = Q6_K_HEADER + 8 * 4 * LINE + (group * 2 + quad / 4) * LINE;
            visit(
                high,
                BitField { byte: line + self.in_line(column), shift: 2 * (quad as u32 % 4), width: 2 },
            );
        }
    }
}

/// A whole byte.
fn byte(byte: usize) -> BitField {
    BitField { byte, shift: 0, width: 8 }
}

/// Two bits of a 6-bit number, from bit `from` on.
#[derive(Clone, Copy)]
struct BitPair {
    from: u32,
    width: u32,
}

/// Positions in a row of the 6 bits of the scale (`first` 0) or the minimum (`first` 4) of `group`, in bit pairs.
fn six_bits(group: usize, first: usize) -> [(BitField, BitPair); 3] {
    [0, 2, 4].map(|from| {
        let (byte, shift) = match (group < 4, from) {
            (true, _) => (4 + first + group, from),
            (false, 4) => (4 + first + group - 4, 6),
            (false, _) => (4 + 8 + group - 4, from + if first == 0 { 0 } else { 4 }),
        };
        (BitField { byte, shift, width: 2 }, BitPair { from, width: 2 })
    })
}
