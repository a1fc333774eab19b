//! Megatron's indexed datasets: written and read again, the bytes of the format, and damage.

use std::fs;
use std::path::Path;

use mpt_data::interop::Dtype;
use mpt_data::interop::megatron::{IndexedDataset, MegatronWriter, dtype_for};
use proptest::prelude::*;

const INTEGERS: [Dtype; 6] = [Dtype::U8, Dtype::I8, Dtype::I16, Dtype::I32, Dtype::I64, Dtype::U16];

fn write(prefix: &Path, dtype: Dtype, documents: &[Vec<u32>]) {
    let mut writer = MegatronWriter::create(prefix, dtype).expect("creatable");
    for document in documents {
        let (a, b) = document.split_at(document.len() / 2);
        writer.push(a).and_then(|()| writer.push(b)).expect("written");
        writer.end_document().expect("written");
    }
    assert_eq!(writer.finish().expect("finished"), documents.len() as u64);
}

/// The documents' tokens, as bytes.
fn read(prefix: &Path) -> mpt_data::Result<Vec<Vec<u8>>> {
    let indexed = IndexedDataset::open(prefix)?;
    let (mut documents, mut all) = (indexed.read()?, Vec::new());
    loop {
        let mut bytes = Vec::new();
        let more = documents.next_document(|piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        if !more {
            return Ok(all);
        }
        all.push(bytes);
    }
}

fn bytes(dtype: Dtype, ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|&id| u64::from(id).to_le_bytes()[..dtype.bytes()].to_vec()).collect()
}

#[test]
fn the_files_are_laid_out_as_megatron_does() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let prefix = dir.path().join("a.b_document");
    write(&prefix, Dtype::U16, &[vec![1, 2, 300], vec![7]]);
    assert_eq!(fs::read(dir.path().join("a.b_document.bin")).expect("there"), [1, 0, 2, 0, 44, 1, 7, 0]);
    let mut idx = b"MMIDIDX\0\0".to_vec();
    idx.extend(1u64.to_le_bytes());
    idx.push(8);
    [2u64, 3].iter().for_each(|count| idx.extend(count.to_le_bytes()));
    [3i32, 1].iter().for_each(|length| idx.extend(length.to_le_bytes()));
    [0i64, 6, 0, 1, 2].iter().for_each(|number| idx.extend(number.to_le_bytes()));
    assert_eq!(fs::read(dir.path().join("a.b_document.idx")).expect("there"), idx);
    assert_eq!(fs::read_dir(dir.path()).expect("listable").count(), 2, "nothing else is left");
    // Images and texts are told apart by a byte per sequence.
    idx.extend([0, 1]);
    fs::write(dir.path().join("a.b_document.idx"), idx).expect("writable");
    assert_eq!(read(&prefix).expect("sound").len(), 2);
    assert_eq!((dtype_for(65_499), dtype_for(65_500)), (Dtype::U16, Dtype::I32));
}

#[test]
fn documents_may_have_several_sequences_or_none() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let prefix = dir.path().join("x");
    write(&prefix, Dtype::U8, &[vec![1], vec![2, 3], vec![4]]);
    let path = dir.path().join("x.idx");
    let mut idx = fs::read(&path).expect("there");
    let at = idx.len() - 32;
    for (slot, entry) in [0u64, 2, 2, 3].iter().enumerate() {
        idx[at + 8 * slot..][..8].copy_from_slice(&entry.to_le_bytes());
    }
    fs::write(&path, idx).expect("writable");
    assert_eq!(read(&prefix).expect("sound"), [vec![1, 2, 3], vec![], vec![4]]);
}

#[test]
fn impossible_files_are_refused_by_name_and_field() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let prefix = dir.path().join("x");
    write(&prefix, Dtype::U16, &[vec![1, 2], vec![3]]);
    let sound = fs::read(dir.path().join("x.idx")).expect("there");
    let with = |at: usize, bytes: &[u8]| {
        let mut idx = sound.clone();
        idx[at..at + bytes.len()].copy_from_slice(bytes);
        fs::write(dir.path().join("x.idx"), idx).expect("writable");
        read(&prefix).expect_err("refused").to_string()
    };
    for (at, bytes, part) in [
        (0, &b"X"[..], "is no index of Megatron"),
        (9, &[2], "is of version 2, expected 1"),
        (17, &[9], "type code 9 at byte 17 is none of 1 to 8"),
        (17, &[7], "holds float32, which are no token ids"),
        (18, &[255; 8], "sequences and 3 document entries need"),
        (34, &(-1i32).to_le_bytes(), "sequence 0 is -1 tokens"),
        (34, &9i32.to_le_bytes(), "sequence 0 is 9 tokens from byte 0 on, but "),
        (42, &i64::MAX.to_le_bytes(), "sequence 0 is 2 tokens from byte 9223372036854775807 on"),
        (58, &1i64.to_le_bytes(), "document 0 begins at sequence 1, expected 0"),
        (66, &3i64.to_le_bytes(), "document 0 ends at sequence 3, expected one from 0 to 2"),
        (74, &1i64.to_le_bytes(), "the documents end at sequence 1, but there are 2"),
    ] {
        let error = with(at, bytes);
        assert!(error.contains("x.idx: ") && error.contains(part), "{at}: {error}");
    }
    fs::write(dir.path().join("x.idx"), &sound[..20]).expect("writable");
    assert!(
        read(&prefix)
            .expect_err("cut")
            .to_string()
            .contains("x.idx: has 20 bytes, less than the 34 of a head")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is written is read, in every type.
    #[test]
    fn documents_go_through(
        documents in prop::collection::vec(prop::collection::vec(0u32..128, 0..50), 0..20),
        dtype in prop::sample::select(INTEGERS.to_vec()),
    ) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let prefix = dir.path().join("x");
        write(&prefix, dtype, &documents);
        let expected: Vec<_> = documents.iter().map(|ids| bytes(dtype, ids)).collect();
        prop_assert_eq!(read(&prefix).expect("sound"), expected);
    }

    /// Changed or cut files are read or refused with their name.
    #[test]
    fn damage_is_survived(
        at in any::<prop::sample::Index>(),
        flip in any::<u8>(),
        cut in prop::option::of(any::<prop::sample::Index>()),
        suffix in prop::sample::select(vec!["bin", "idx"]),
    ) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let prefix = dir.path().join("x");
        write(&prefix, Dtype::I32, &[vec![1, 2, 3], vec![4], vec![5, 6]]);
        let path = dir.path().join(format!("x.{suffix}"));
        let mut bytes = fs::read(&path).expect("readable");
        *at.get_mut(&mut bytes) ^= flip;
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len() + 1)));
        fs::write(&path, bytes).expect("writable");
        if let Err(error) = read(&prefix) {
            prop_assert!(error.to_string().contains("x.idx: "), "{}", error);
        }
    }
}
