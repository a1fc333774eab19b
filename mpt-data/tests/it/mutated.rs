//! Sound files changed at random, by a seed: every reader returns.

use std::path::Path;

use crate::targets::TARGETS;

/// Changes of each sound file.
const CHANGES: u64 = 60;

/// Splitmix64: the same changes on every machine.
struct Draws(u64);

impl Draws {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((word ^ (word >> 31)) % end.max(1) as u64) as usize
    }
}

/// What hostile files are full of.
const PIECES: [&[u8]; 12] = [
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"18446744073709551615",
    b"-1",
    b"null",
    b"\"",
    b"[",
    b"}",
    b"../",
    b"\\ud800",
    b"1e999",
];

fn mutate(bytes: &mut Vec<u8>, draws: &mut Draws) {
    for _ in 0..=draws.below(3) {
        let at = draws.below(bytes.len());
        match draws.below(5) {
            0 => bytes.truncate(at),
            1 => {
                let end = (at + draws.below(16)).min(bytes.len());
                drop(bytes.drain(at..end));
            }
            2 => {
                let piece = PIECES[draws.below(PIECES.len())];
                let end = (at + piece.len()).min(bytes.len());
                drop(bytes.splice(at..end, piece.iter().copied()));
            }
            3 => drop(bytes.splice(at..at, PIECES[draws.below(PIECES.len())].iter().copied())),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = draws.below(256) as u8;
                }
            }
        }
    }
}

fn read_changed(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("there is one");
    for (number, sound) in (target.sound)().into_iter().enumerate() {
        (target.read)(&sound);
        let mut draws = Draws(number as u64);
        for _ in 0..CHANGES {
            let mut bytes = sound.clone();
            mutate(&mut bytes, &mut draws);
            (target.read)(&bytes);
        }
    }
}

#[test]
fn compressed_files_are_read_or_refused() {
    read_changed("compressed");
}

#[test]
fn json_lines_are_read_or_refused() {
    read_changed("jsonl");
}

#[test]
fn manifests_are_read_or_refused() {
    read_changed("manifest");
}

#[test]
fn shards_are_read_or_refused() {
    read_changed("shard");
}

#[test]
fn mds_indices_are_read_or_refused() {
    read_changed("mds_index");
}

#[test]
fn mds_shards_are_read_or_refused() {
    read_changed("mds_shard");
}

#[test]
fn megatron_indices_are_read_or_refused() {
    read_changed("megatron");
}

/// Written into the corpora of `mpt-data/fuzz`.
#[test]
#[ignore = "a step of `cargo xtask fuzz`"]
fn seeds_are_written() {
    for target in TARGETS {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
        std::fs::create_dir_all(&corpus).expect("a folder for the corpus");
        for (number, bytes) in (target.sound)().into_iter().enumerate() {
            std::fs::write(corpus.join(format!("sound-{number}")), bytes).expect("room for a small file");
        }
    }
}
