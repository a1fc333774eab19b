//! MDS datasets: written and read again, the bytes of the Python package, and damage.

use std::fs;
use std::path::Path;

use mpt_data::interop::Dtype;
use mpt_data::interop::mds::{
    Algorithm, Encoding, HashAlgorithm, Image, MdsDataset, MdsOptions, MdsWriter, Numbers, Value, merge_index,
};
use proptest::prelude::*;

/// Written by mosaicml-streaming, see `mpt-data/tests/golden/make.py`: the samples of `golden_sample`.
const SHARDS: [&[u8]; 2] =
    [include_bytes!("../golden/mds/shard.00000.mds"), include_bytes!("../golden/mds/shard.00001.mds")];
const INDEX: &str = include_str!("../golden/mds/index.json");

fn encoding(text: &str) -> Encoding {
    text.parse().expect("an encoding")
}

fn column(name: &str, text: &str) -> (String, Encoding) {
    (name.to_owned(), encoding(text))
}

fn golden_sample(i: u16) -> Vec<Value> {
    let data = [1, 2, 300 + i].iter().flat_map(|id| u16::to_le_bytes(*id)).collect();
    vec![
        Value::Numbers(Numbers { dtype: Dtype::U16, shape: vec![3], data }),
        Value::Numbers(Numbers {
            dtype: Dtype::I64,
            shape: vec![],
            data: (i64::from(i) - 1).to_le_bytes().to_vec(),
        }),
        Value::Text("ü".repeat(i.into())),
    ]
}

fn golden_columns() -> Vec<(String, Encoding)> {
    vec![column("tokens", "ndarray:uint16"), column("id", "int"), column("é", "str")]
}

fn hashes(names: &[&str]) -> Vec<HashAlgorithm> {
    names.iter().map(|name| HashAlgorithm::from_name(name).expect("known")).collect()
}

fn write(dir: &Path, columns: &[(String, Encoding)], options: MdsOptions, samples: &[Vec<Value>]) {
    let mut writer = MdsWriter::create(dir, columns, options).expect("creatable");
    samples.iter().for_each(|sample| writer.push(sample).expect("written"));
    writer.finish().expect("finished");
}

/// All samples, each value in the order of the columns' names.
fn read(dir: &Path) -> mpt_data::Result<Vec<Vec<Value>>> {
    let dataset = MdsDataset::open(dir)?;
    let mut all = Vec::new();
    for shard in dataset.shards() {
        let mut samples = dataset.samples(shard, true)?;
        while let Some(sample) = samples.next_sample()? {
            all.push(
                (0..sample.columns.len())
                    .map(|column| sample.value(column))
                    .collect::<mpt_data::Result<_>>()?,
            );
        }
    }
    Ok(all)
}

#[test]
fn the_bytes_are_those_of_the_python_package() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let options = MdsOptions { codec: None, hashes: hashes(&["xxh64", "md5"]), size_limit: Some(310) };
    let samples: Vec<_> = (0..3).map(golden_sample).collect();
    write(dir.path(), &golden_columns(), options, &samples);
    for (at, shard) in SHARDS.iter().enumerate() {
        let found = fs::read(dir.path().join(format!("shard.0000{at}.mds"))).expect("there");
        assert_eq!(found, *shard, "shard {at}");
    }
    assert_eq!(fs::read_to_string(dir.path().join("index.json")).expect("there"), INDEX);
}

#[test]
fn what_the_python_package_wrote_is_read() {
    let expected: Vec<_> = (0..3)
        .map(golden_sample)
        .map(|sample| vec![sample[1].clone(), sample[0].clone(), sample[2].clone()])
        .collect();
    let written = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for name in ["mds", "mds-zstd"] {
        assert_eq!(read(&written.join(name)).expect("sound"), expected, "{name}");
    }
}

fn golden(dir: &Path) {
    for (at, shard) in SHARDS.iter().enumerate() {
        fs::write(dir.join(format!("shard.0000{at}.mds")), shard).expect("writable");
    }
    fs::write(dir.join("index.json"), INDEX).expect("writable");
}

#[test]
fn an_oversize_first_sample_follows_a_shard_of_none() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let options = MdsOptions { size_limit: Some(100), ..MdsOptions::default() };
    write(dir.path(), &[column("x", "bytes")], options, &[vec![Value::Bytes(vec![7; 3])]]);
    let dataset = MdsDataset::open(dir.path()).expect("an index");
    assert_eq!(dataset.shards().iter().map(|shard| shard.samples).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(read(dir.path()).expect("sound"), [[Value::Bytes(vec![7; 3])]]);
}

#[test]
fn merged_indexes_lead_into_folders() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let columns = [column("x", "str")];
    let part = |name: &str| {
        let mut writer =
            MdsWriter::create(&dir.path().join(name), &columns, MdsOptions::default()).expect("creatable");
        writer.push(&[Value::Text(name.to_owned())]).expect("written");
        (name.to_owned(), writer.finish().expect("finished"))
    };
    merge_index(dir.path(), vec![part("b"), part("a")]).expect("merged");
    assert_eq!(read(dir.path()).expect("sound"), [[Value::Text("b".into())], [Value::Text("a".into())]]);
}

#[test]
fn pickle_and_unknown_encodings_are_refused_by_name() {
    for (from, text) in [
        ("pkl", "`pkl` is Python's pickle"),
        ("list[pkl]", "`list[pkl]` is Python's pickle"),
        ("tensor", "`tensor` is no encoding"),
    ] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::write(dir.path().join("index.json"), INDEX.replace("ndarray:uint16", from)).expect("writable");
        let error = MdsDataset::open(dir.path()).expect_err("refused").to_string();
        assert!(error.contains("shard 0: column `tokens`: ") && error.contains(text), "{error}");
    }
}

#[test]
fn a_changed_byte_anywhere_is_found_and_the_shard_named() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    golden(dir.path());
    let path = dir.path().join("shard.00000.mds");
    let sound = fs::read(&path).expect("readable");
    for at in 0..sound.len() {
        let mut changed = sound.clone();
        changed[at] ^= 1 << (at % 8);
        fs::write(&path, changed).expect("writable");
        let error = read(dir.path()).expect_err("changed").to_string();
        assert!(
            error.contains("shard.00000.mds: its md5 is ") && error.contains("fetch it again"),
            "{at}: {error}"
        );
    }
    for length in 0..sound.len() {
        fs::write(&path, &sound[..length]).expect("writable");
        let error = read(dir.path()).expect_err("cut").to_string();
        assert!(error.contains("shard.00000.mds: has ") && error.contains("truncated"), "{length}: {error}");
    }
    fs::remove_file(&path).expect("removable");
    let error = read(dir.path()).expect_err("absent").to_string();
    assert!(error.contains("shard.00000.mds: the index names this shard, but it is not there"), "{error}");
}

#[test]
fn an_index_cannot_lead_out_of_its_folder() {
    for name in ["../x.mds", "/etc/passwd", "a/../../x", ""] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::write(dir.path().join("index.json"), INDEX.replace("shard.00000.mds", name)).expect("writable");
        let error = MdsDataset::open(dir.path()).expect_err("refused").to_string();
        assert!(
            error.contains("shard 0: `raw_data.basename` is ") && error.contains("out of the folder"),
            "{error}"
        );
    }
}

/// A value for an encoding.
fn value(text: &str) -> BoxedStrategy<Value> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let image = (any::<u32>(), any::<u32>(), "[A-Z]{1,4}", bytes())
        .prop_map(|(width, height, mode, data)| Value::Image(Image { width, height, mode, data }));
    let one = |dtype: Dtype| {
        prop::collection::vec(any::<u8>(), dtype.bytes())
            .prop_map(move |data| Value::Numbers(Numbers { dtype, shape: vec![], data }))
    };
    let array = |dtype: Dtype, shape: Vec<u64>| {
        let bytes = dtype.bytes() * shape.iter().product::<u64>() as usize;
        prop::collection::vec(any::<u8>(), bytes)
            .prop_map(move |data| Value::Numbers(Numbers { dtype, shape: shape.clone(), data }))
    };
    let any_shape =
        || prop_oneof![(1u64..300).prop_map(|axis| vec![axis]), prop::collection::vec(1u64..4, 1..5)];
    match text {
        "bytes" | "jpeg" | "png" => bytes().prop_map(Value::Bytes).boxed(),
        "str" | "json" | "str_int" | "str_float" | "str_decimal" => {
            any::<String>().prop_map(Value::Text).boxed()
        }
        "int" => one(Dtype::I64).boxed(),
        "pil" => image.boxed(),
        "list[pil]" => prop::collection::vec(image, 0..4).prop_map(Value::List).boxed(),
        "list[jpeg]" | "list[png]" | "jpeg_array" | "jpegarray" => {
            prop::collection::vec(bytes().prop_map(Value::Bytes), 0..4).prop_map(Value::List).boxed()
        }
        "ndarray" => (prop::sample::select(Dtype::ALL.to_vec()), any_shape())
            .prop_flat_map(move |(dtype, shape)| array(dtype, shape))
            .boxed(),
        "ndarray:float32:3,4" => array(Dtype::F32, vec![3, 4]).boxed(),
        _ => match text.strip_prefix("ndarray:") {
            Some(name) => {
                let dtype = Dtype::from_name(name).expect("a type");
                any_shape().prop_flat_map(move |shape| array(dtype, shape)).boxed()
            }
            None => one(Dtype::from_name(text).expect("a type")).boxed(),
        },
    }
}

fn all_encodings() -> Vec<String> {
    let named = "bytes str json str_int str_float str_decimal int pil jpeg png list[pil] list[jpeg] list[png] \
                 jpeg_array jpegarray ndarray ndarray:float32:3,4";
    let numbers = Dtype::ALL
        .into_iter()
        .flat_map(|dtype| [dtype.name().to_owned(), format!("ndarray:{}", dtype.name())]);
    named.split(' ').filter(|name| !name.is_empty()).map(str::to_owned).chain(numbers).collect()
}

fn samples() -> impl Strategy<Value = Vec<Vec<Value>>> {
    prop::collection::vec(all_encodings().iter().map(|name| value(name)).collect::<Vec<_>>(), 0..4)
}

fn options() -> impl Strategy<Value = MdsOptions> {
    let codecs: Vec<_> =
        Algorithm::ALL.iter().map(|family| family.name().parse().ok()).chain([None]).collect();
    let hashes = prop::sample::subsequence(HashAlgorithm::all().collect::<Vec<_>>(), 0..4);
    let limits = prop::option::of(prop::sample::select(vec![1, 5000, 8000, 1 << 26]));
    (prop::sample::select(codecs), hashes, limits).prop_map(|(codec, hashes, size_limit)| MdsOptions {
        codec,
        hashes,
        size_limit,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is written is read, whatever the encoding, codec, hashes and size of shards.
    #[test]
    fn samples_go_through_every_encoding(samples in samples(), options in options()) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut columns: Vec<_> = all_encodings().iter().map(|name| column(name, name)).collect();
        write(dir.path(), &columns, options, &samples);
        let mut order: Vec<_> = (0..columns.len()).collect();
        order.sort_by_key(|&at| columns[at].0.clone());
        columns.sort_by_key(|column| column.0.clone());
        let expected: Vec<Vec<_>> =
            samples.iter().map(|sample| order.iter().map(|&at| sample[at].clone()).collect()).collect();
        prop_assert_eq!(read(dir.path()).expect("sound"), expected);
    }

    /// Bytes that are no value are refused in words, for every encoding, and never end the process.
    #[test]
    fn any_bytes_are_a_value_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        for name in all_encodings() {
            let encoding = encoding(&name);
            if let Ok(value) = encoding.decode(&bytes) {
                let mut again = Vec::new();
                encoding.encode(&value, &mut again).expect("what was read can be written");
                prop_assert_eq!(again.len(), bytes.len());
            }
        }
    }

    /// Changed or cut shards without hashes are read or refused with their name, compressed or not.
    #[test]
    fn damage_without_hashes_is_survived(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
        codec in prop::sample::select(vec!["", "br", "bz2", "gz", "snappy", "zstd"]),
    ) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let options = MdsOptions { codec: codec.parse().ok(), ..MdsOptions::default() };
        write(dir.path(), &golden_columns(), options, &(0..3).map(golden_sample).collect::<Vec<_>>());
        let name = if codec.is_empty() { "shard.00000.mds".to_owned() } else { format!("shard.00000.mds.{codec}") };
        let path = dir.path().join(&name);
        let mut bytes = fs::read(&path).expect("readable");
        for (at, flip) in flips {
            *at.get_mut(&mut bytes) ^= flip;
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len() + 1)));
        // The index agrees with the length, so that what is behind is looked at.
        let index = fs::read_to_string(dir.path().join("index.json")).expect("readable");
        let mut index: serde_json::Value = serde_json::from_str(&index).expect("JSON");
        let file = if codec.is_empty() { "raw_data" } else { "zip_data" };
        index["shards"][0][file]["bytes"] = bytes.len().into();
        fs::write(dir.path().join("index.json"), index.to_string()).expect("writable");
        fs::write(&path, bytes).expect("writable");
        if let Err(error) = read(dir.path()) {
            prop_assert!(error.to_string().contains(&format!("{name}: ")), "{}", error);
        }
    }

    /// Any change to the text of an index is read or refused with its name.
    #[test]
    fn a_damaged_index_is_survived(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        golden(dir.path());
        let mut text = INDEX.as_bytes().to_vec();
        *at.get_mut(&mut text) = byte;
        fs::write(dir.path().join("index.json"), text).expect("writable");
        let _ = read(dir.path());
    }
}
