//! From a step of training back to the documents that were in it.

use mpt_data::{Loader, LoaderConfig, Split, trace};

use crate::corpus::Corpus;

#[test]
fn the_documents_of_a_batch_are_named() {
    let corpus = Corpus::new();
    let manifest = corpus.build(&[]);
    let config = || LoaderConfig { seq_len: 64, ..LoaderConfig::new(&manifest, Split::Train) };
    let mut loader = Loader::new(&manifest, config(), None).expect("openable");
    let mut index = manifest.documents().expect("there");
    let samples = trace(&manifest, &mut loader, &mut index, 40..52).expect("traced");
    assert_eq!(samples.len(), 12);
    for (traced, number) in samples.iter().zip(40..) {
        let sample = loader.sample(number).expect("sound");
        assert_eq!((traced.index, &traced.source), (number, &manifest.sources()[sample.id.source].name));
        assert!(traced.location.shard.starts_with(&format!("train/{}/", traced.source)));
        let mut covered = 0;
        for document in &traced.documents {
            assert_eq!(document.from, covered, "documents follow each other");
            covered = document.to;
            assert!(sample.documents[document.from..document.to].iter().all(|&of| of == document.ordinal));
            assert_eq!(index.id(document.ordinal).expect("there"), document.id);
        }
        assert_eq!(covered, 64);
    }
}
