//! Intel's matrix tiles (AMX): whether they may be used, and how a thread takes them into use.
//!
//! A tile register holds 16 rows of 64 bytes. Rust has no stable intrinsics for them, so the instructions stand as
//! assembly. Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

/// Whether processor and operating system let this process use tiles of bf16 and int8.
pub(crate) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_instructions() && permitted())
}

fn has_instructions() -> bool {
    const BF16_TILE_INT8: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    __cpuid_count(0, 0).eax >= 7 && __cpuid_count(7, 0).edx & BF16_TILE_INT8 == BF16_TILE_INT8
}

/// Asks Linux for the use of tile state, which a process must do once.
///
/// Source: Linux, `Documentation/arch/x86/xstate.rst`.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: isize = 158;
    const REQUEST_PERMISSION: usize = 0x1023;
    const TILE_DATA: usize = 18;
    let answer: isize;
    #[expect(unsafe_code, reason = "the standard library has no such call")]
    // SAFETY: `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)` changes no memory of the process.
    unsafe {
        asm!("syscall", inlateout("rax") ARCH_PRCTL => answer, in("rdi") REQUEST_PERMISSION, in("rsi") TILE_DATA,
             out("rcx") _, out("r11") _, options(nostack));
    }
    answer == 0
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// The shape of the eight tile registers.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Eight full tiles of 16 rows of 64 bytes.
static FULL_TILES: TileConfig = config([(16, 64); 8]);

/// Tiles for products of `columns` bytes: sums, 16 rows of `columns`, and `columns / 4` rows of 16 words of four.
const fn group_tiles(columns: u8) -> TileConfig {
    let (sums, left, right) = ((16, 64), (16, columns as u16), (columns / 4, 64));
    config([sums, left, right, (0, 0), (0, 0), (0, 0), (0, 0), (0, 0)])
}

/// Tiles for products of 16 rows of 64 bytes with `columns` columns of 32 bits: two of sums, three of columns and three of rows.
const fn column_tiles(columns: u16) -> TileConfig {
    let (column, row) = ((16, 4 * columns), (16, 64));
    config([column, column, column, column, column, row, row, row])
}

static TILES_OF_COLUMNS: [TileConfig; 16] = {
    let mut tiles = [const { column_tiles(0) }; 16];
    let mut i = 0;
    while i < tiles.len() {
        tiles[i] = column_tiles(i as u16 + 1);
        i += 1;
    }
    tiles
};

static TILES_OF_16: TileConfig = group_tiles(16);
static TILES_OF_32: TileConfig = group_tiles(32);

/// A configuration from each tile's rows and bytes of a row.
const fn config(tiles: [(u8, u16); 8]) -> TileConfig {
    let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
    let mut i = 0;
    while i < tiles.len() {
        (rows[i], row_bytes[i]) = tiles[i];
        i += 1;
    }
    TileConfig { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
}

/// The calling thread's tiles, in use until this is dropped.
pub(crate) struct Tiles(());

impl Tiles {
    /// Takes the tiles into use, all of 16 rows of 64 bytes.
    pub(crate) fn full() -> Self {
        Self::with(&FULL_TILES)
    }

    /// Takes three tiles into use: 0 for sums, 1 for 16 rows of `columns` bytes, 2 for their weights `[columns / 4, 16, 4]`.
    pub(crate) fn of_groups(columns: usize) -> Self {
        Self::with(if columns == 16 { &TILES_OF_16 } else { &TILES_OF_32 })
    }

    /// Takes eight tiles into use: 0 and 1 for sums of 16 rows and `columns` columns, at most 16, 2 to 4 for 16 words of each column,
    /// 5 to 7 for 16 rows of 16 words.
    pub(crate) fn of_columns(columns: usize) -> Self {
        Self::with(&TILES_OF_COLUMNS[columns - 1])
    }

    /// # Panics
    /// Where [`available`] is false.
    fn with(config: &'static TileConfig) -> Self {
        assert!(available(), "this processor has no matrix tiles");
        #[expect(unsafe_code, reason = "tile instructions")]
        // SAFETY: the instruction exists and the system permits tiles, as was just checked; it reads 64 bytes.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const *config, options(nostack, readonly));
        }
        Self(())
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "tile instructions")]
        // SAFETY: tiles are in use, so the instruction exists.
        unsafe {
            asm!("tilerelease", options(nostack, nomem));
        }
    }
}
