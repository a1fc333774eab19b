//! Intel's matrix unit (AMX): its detection, and the tile configuration of a thread. The products are beside their kernels.
//!
//! A tile register holds 16 rows of 64 bytes. Rust has no stable intrinsics for AMX, so the instructions are assembly.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

/// Whether this process may use AMX with bf16 and int8: the processor has it, and the operating system permits it.
pub(crate) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_instructions() && request_permission())
}

fn has_instructions() -> bool {
    const BF16_TILE_INT8: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    __cpuid_count(0, 0).eax >= 7 && __cpuid_count(7, 0).edx & BF16_TILE_INT8 == BF16_TILE_INT8
}

/// Requests tile state from Linux, once per process; true when it is granted.
///
/// Source: Linux, `Documentation/arch/x86/xstate.rst`.
#[cfg(target_os = "linux")]
fn request_permission() -> bool {
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
fn request_permission() -> bool {
    false
}

/// Operand of `ldtilecfg`: the shapes of the tile registers.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Eight tiles of 16 rows of 64 bytes.
static FULL: TileConfig = config([(16, 64); 8]);

/// Configuration for products over `columns` bytes of int8: accumulators, 16 rows of `columns` bytes, and their weights,
/// `columns / 4` rows of 16 words of four.
const fn int8_group_config(columns: u8) -> TileConfig {
    let (acc, x, weights) = ((16, 64), (16, columns as u16), (columns / 4, 64));
    config([acc, x, weights, (0, 0), (0, 0), (0, 0), (0, 0), (0, 0)])
}

/// Configuration for products of 16 rows of 64 bytes with `columns` columns of 32 bits: two tiles of accumulators, three of
/// columns, three of rows.
const fn gemv_config(columns: u16) -> TileConfig {
    let (column, row) = ((16, 4 * columns), (16, 64));
    config([column, column, column, column, column, row, row, row])
}

static GEMV_CONFIGS: [TileConfig; 16] = {
    let mut tiles = [const { gemv_config(0) }; 16];
    let mut i = 0;
    while i < tiles.len() {
        tiles[i] = gemv_config(i as u16 + 1);
        i += 1;
    }
    tiles
};

static INT8_GROUP_16: TileConfig = int8_group_config(16);
static INT8_GROUP_32: TileConfig = int8_group_config(32);

/// Configuration from the rows and the bytes of a row of each tile.
const fn config(tiles: [(u8, u16); 8]) -> TileConfig {
    let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
    let mut i = 0;
    while i < tiles.len() {
        (rows[i], row_bytes[i]) = tiles[i];
        i += 1;
    }
    TileConfig { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
}

/// Tile configuration of the calling thread, released on drop.
pub(crate) struct TileGuard(());

impl TileGuard {
    /// Configures eight tiles of 16 rows of 64 bytes.
    pub(crate) fn full() -> Self {
        Self::with(&FULL)
    }

    /// Configures three tiles: 0 for accumulators, 1 for 16 rows of `columns` bytes (16 or 32), 2 for weights `[columns / 4, 16, 4]`.
    pub(crate) fn for_int8_group(columns: usize) -> Self {
        Self::with(if columns == 16 { &INT8_GROUP_16 } else { &INT8_GROUP_32 })
    }

    /// Configures eight tiles: 0 and 1 for accumulators of 16 rows and `columns` columns, at most 16; 2 to 4 for 16 words of each
    /// column; 5 to 7 for 16 rows of 16 words.
    pub(crate) fn for_gemv(columns: usize) -> Self {
        Self::with(&GEMV_CONFIGS[columns - 1])
    }

    /// Loads a configuration.
    ///
    /// # Panics
    /// When [`available`] is false.
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

impl Drop for TileGuard {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "tile instructions")]
        // SAFETY: tiles are configured, so the instruction exists.
        unsafe {
            asm!("tilerelease", options(nostack, nomem));
        }
    }
}
