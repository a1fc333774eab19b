//! Manifests that anyone can write: the hash is right, what they say is not. Each is refused, or harmless.

use std::fs;
use std::path::Path;

use mpt_data::interop::mds::MdsOptions;
use mpt_data::interop::{ExportFormat, ExportOptions, export};
use mpt_data::manifest::ManifestContents;
use mpt_data::{Loader, LoaderConfig, Manifest, NoProgress, Split, inspect};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::corpus::{Corpus, tree};

/// Writes contents as a manifest whose hash is theirs; `false` where they are not even of the right form.
fn forge(dir: &Path, contents: &Value) -> bool {
    let Ok(contents) = serde_json::from_value::<ManifestContents>(contents.clone()) else { return false };
    let sum = Sha256::digest(serde_json::to_vec(&contents).expect("writable"));
    let root: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = json!({ "root": root, "contents": contents }).to_string();
    fs::write(dir.join("manifest.json"), text).expect("writable");
    true
}

/// The places of all values, as JSON pointers.
fn places(value: &Value, place: &str, all: &mut Vec<String>) {
    all.push(place.to_owned());
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| places(value, &format!("{place}/{key}"), all))
        }
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(at, value)| places(value, &format!("{place}/{at}"), all))
        }
        _ => {}
    }
}

fn hostile() -> Vec<Value> {
    vec![
        json!(0),
        json!(1),
        json!(7),
        json!(1u64 << 40),
        json!(1u64 << 63),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e-300),
        json!(""),
        json!("../up"),
        json!("/dev/zero"),
        json!("é".repeat(32)),
        json!("0".repeat(64)),
        json!([]),
        json!([0, u64::MAX]),
        json!({}),
        json!(null),
    ]
}

/// Everything that can be done with data. Errors are answers.
fn use_all(manifest: &Manifest) {
    let _ = inspect(manifest, None);
    let _ = manifest.find_damage(&mut NoProgress);
    let _ = manifest.documents().and_then(|mut documents| documents.id(3).map(str::to_owned));
    for split in Split::ALL {
        let config = LoaderConfig { batch_size: 4, ..LoaderConfig::new(manifest, split) };
        if let Ok(loader) = Loader::new(manifest, config, None) {
            let _ = loader.take(3).collect::<Result<Vec<_>, _>>();
        }
    }
}

/// Writes it in another format: what syncs to the disk, so for few of them.
fn convert(manifest: &Manifest, out: &Path) {
    for target in
        [ExportFormat::Megatron, ExportFormat::Mds { options: MdsOptions::default(), seq_len: None }]
    {
        let _ = export(manifest, out, &ExportOptions { target, token_dtype: None }, &mut NoProgress);
        let _ = fs::remove_dir_all(out);
    }
}

#[test]
fn what_a_forged_manifest_says_is_refused_or_harmless() {
    let corpus = Corpus::new();
    let manifest = corpus.build(&[]);
    let (data, out) = (corpus.path("out"), corpus.path("exported/deep/out"));
    fs::create_dir_all(out.parent().expect("has one")).expect("creatable");
    let sound = serde_json::to_value(manifest.contents()).expect("JSON");
    assert!(forge(&data, &sound));
    Manifest::open(&data).expect("what is sound is opened");
    let outside = || tree(corpus.dir.path()).into_iter().filter(|(path, _)| !path.starts_with("out")).count();
    let before = outside();
    let mut all = Vec::new();
    places(&sound, "", &mut all);
    let (mut opened, mut refused) = (0, 0);
    // Every place gets a third of the values: neighbors get the others.
    for (number, place) in all.into_iter().enumerate() {
        for value in hostile().into_iter().skip(number % 3).step_by(3) {
            let mut contents = sound.clone();
            *contents.pointer_mut(&place).expect("a place of it") = value.clone();
            if contents == sound || !forge(&data, &contents) {
                continue;
            }
            match Manifest::open(&data) {
                Err(error) => {
                    assert!(error.to_string().contains("manifest.json: "), "{place} {value}: {error}");
                    refused += 1;
                }
                Ok(manifest) => {
                    // What is only said of the inputs is used by nothing below.
                    if !place.starts_with("/plan/sources") {
                        use_all(&manifest);
                    }
                    if opened % 16 == 0 || place.ends_with("name") {
                        convert(&manifest, &out);
                    }
                    opened += 1;
                }
            }
        }
    }
    assert_eq!(outside(), before, "nothing was written beside the output");
    assert!(refused > 200 && opened > 20, "{refused} were refused and {opened} opened");
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_not_opened() {
    let corpus = Corpus::new();
    let manifest = corpus.build(&[]);
    let shard = corpus.path("out/train/web/00000.parquet");
    fs::remove_file(&shard).expect("removable");
    std::os::unix::fs::symlink("/dev/zero", &shard).expect("linkable");
    let problems = manifest.find_damage(&mut NoProgress);
    let text = format!("{problems:?}");
    assert!(text.contains("this is no regular file"), "{text}");
}
