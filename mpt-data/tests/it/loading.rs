//! Loading: exact shares, whole epochs, any cut into batches and ranks, resuming anywhere.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use mpt_data::{Cursor, Error, Loader, LoaderConfig, Manifest, Mixing, Split, TokenBatch};
use proptest::prelude::*;

use crate::corpus::Corpus;

fn config(split: Split) -> LoaderConfig {
    LoaderConfig {
        split,
        seq_len: 32,
        seed: 5,
        mixing: Mixing::default(),
        batch_size: 4,
        world_size: 1,
        rank: 0,
        replication: 1,
        accept: Vec::new(),
    }
}

fn loader(manifest: &Manifest, config: LoaderConfig) -> Loader {
    Loader::new(manifest, config, None).expect("openable")
}

fn batches(loader: &mut Loader, count: usize) -> Vec<TokenBatch> {
    loader.take(count).map(|batch| batch.expect("sound")).collect()
}

#[test]
fn sources_are_drawn_by_their_proportions_and_once_an_epoch() {
    let manifest = Corpus::new().build_kept();
    let mut loader = loader(&manifest.1, config(Split::Train));
    let mut seen: BTreeMap<usize, Vec<Vec<u32>>> = BTreeMap::new();
    for index in 0..4000 {
        let sample = loader.sample(index).expect("sound");
        seen.entry(sample.id.source).or_default().push(sample.tokens);
    }
    assert_eq!([seen[&0].len(), seen[&1].len(), seen[&2].len()], [2000, 1200, 800]);
    for (source, samples) in seen {
        let rows = manifest.1.sources()[source].train.rows as usize;
        let mut epochs = samples.chunks_exact(rows).map(|epoch| {
            let mut sorted = epoch.to_vec();
            sorted.sort();
            sorted
        });
        let first = epochs.next().expect("a whole epoch");
        assert!(epochs.all(|epoch| epoch == first), "every epoch holds every row");
        assert_ne!(samples[..rows], samples[rows..2 * rows], "in another order");
    }
}

#[test]
fn ranks_share_batches_without_changing_them() {
    let (_corpus, manifest) = Corpus::new().build_kept();
    let whole = batches(&mut loader(&manifest, config(Split::Train)), 10);
    for world_size in [2, 4] {
        let mut ranks: Vec<_> = (0..world_size)
            .map(|rank| loader(&manifest, LoaderConfig { world_size, rank, ..config(Split::Train) }))
            .collect();
        for batch in &whole {
            let parts: Vec<_> = ranks.iter_mut().flat_map(|rank| batches(rank, 1)).collect();
            let tokens: Vec<_> = parts.iter().flat_map(|part| part.tokens.clone()).collect();
            assert_eq!(tokens, batch.tokens);
            assert!(parts.iter().all(|part| part.batch == 4 / world_size));
        }
    }
}

#[test]
fn longer_and_shorter_samples_are_the_same_stream() {
    let (_corpus, manifest) = Corpus::new().build_kept();
    for seq_len in [8, 16, 64, 96] {
        let mut loader = loader(&manifest, LoaderConfig { seq_len, ..config(Split::Train) });
        let sample = loader.sample(3).expect("sound");
        assert_eq!((sample.tokens.len(), sample.documents.len()), (seq_len, seq_len));
        for at in 1..seq_len {
            let starts = sample.tokens[at - 1] == 0;
            assert_eq!(
                sample.documents[at],
                sample.documents[at - 1] + u64::from(starts),
                "documents end with their token"
            );
        }
    }
    let error = Loader::new(&manifest, LoaderConfig { seq_len: 48, ..config(Split::Train) }, None)
        .expect_err("48 is neither");
    assert!(
        error.to_string().contains("`seq_len` is 48, expected a multiple or a divisor of the rows' 32"),
        "{error}"
    );
}

#[test]
fn documents_are_those_of_the_index() {
    let (_corpus, manifest) = Corpus::new().build_kept();
    let mut loader = loader(&manifest, config(Split::Train));
    let mut index = manifest.documents().expect("there");
    for i in 0..50 {
        let sample = loader.sample(i).expect("sound");
        let id = index.id(sample.documents[0]).expect("there").to_owned();
        let prefix = ["abc", "0123456789", "p"][sample.id.source];
        assert!(
            prefix.contains(id.chars().next().expect("not empty")),
            "{id} of source {}",
            sample.id.source
        );
    }
}

#[test]
fn held_out_sequences_come_once() {
    let (_corpus, manifest) = Corpus::new().build_kept();
    let mut loader = loader(&manifest, config(Split::Eval));
    let rows: u64 = manifest.sources().iter().map(|source| source.eval.rows).sum();
    assert_eq!(loader.eval_len(), Some(rows));
    let all = batches(&mut loader, usize::MAX >> 1);
    assert_eq!(all.iter().map(|batch| batch.batch as u64).sum::<u64>(), rows);
    assert!(all[..all.len() - 1].iter().all(|batch| batch.batch == 4));
    let mut again = self::loader(&manifest, config(Split::Eval));
    assert_eq!(again.sample(rows).expect("sound").tokens, again.sample(0).expect("sound").tokens);
}

#[test]
fn a_cursor_of_another_run_is_refused_by_name() {
    let (corpus, manifest) = Corpus::new().build_kept();
    let mut first = loader(&manifest, config(Split::Train));
    batches(&mut first, 3);
    let cursor = first.cursor();
    let text = serde_json::to_string(&cursor).expect("JSON");
    assert!(text.len() < 300, "{text}");
    assert_eq!(serde_json::from_str::<Cursor>(&text).expect("a cursor"), cursor);
    let refused =
        |manifest: &Manifest, config: LoaderConfig| match Loader::new(manifest, config, Some(cursor.clone()))
        {
            Err(Error::Cursor { field, .. }) => field,
            other => panic!("not refused: {other:?}"),
        };
    assert_eq!(refused(&manifest, LoaderConfig { seed: 6, ..config(Split::Train) }), "data.seed");
    assert_eq!(refused(&manifest, LoaderConfig { seq_len: 16, ..config(Split::Train) }), "data.seq_len");
    let rebuild = |changes: &[(&str, &str)]| {
        std::fs::remove_dir_all(corpus.path("out")).expect("removable");
        corpus.build(changes)
    };
    let mix = rebuild(&[("proportion = 0.5", "proportion = 0.4"), ("proportion = 0.3", "proportion = 0.4")]);
    assert_eq!(refused(&mix, config(Split::Train)), "mix");
    assert_eq!(refused(&rebuild(&[("value = 20", "value = 41")]), config(Split::Train)), "manifest");
    let vocabulary = std::fs::read_to_string(corpus.path("tokenizer.json")).expect("readable");
    corpus.write("tokenizer.json", &format!("{vocabulary}\n"));
    assert_eq!(refused(&rebuild(&[]), config(Split::Train)), "tokenizer");
}

/// Data for all cases of a property.
static BUILT: LazyLock<(Corpus, Manifest)> = LazyLock::new(|| Corpus::new().build_kept());

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn resuming_anywhere_goes_on_exactly_there(stops in prop::collection::vec(0usize..40, 1..4), batch_size in 1usize..9) {
        let manifest = &BUILT.1;
        let config = LoaderConfig { batch_size, ..config(Split::Train) };
        let whole = batches(&mut loader(manifest, config.clone()), stops.iter().sum());
        let (mut cursor, mut found) = (None, Vec::new());
        for stop in stops {
            let mut part = Loader::new(manifest, config.clone(), cursor).expect("resumed");
            found.extend(batches(&mut part, stop));
            cursor = Some(part.cursor());
        }
        prop_assert_eq!(found, whole);
    }
}

impl Corpus {
    /// The corpus and its data: the folder lives as long as both.
    pub(crate) fn build_kept(self) -> (Self, Manifest) {
        let manifest = self.build(&[]);
        (self, manifest)
    }
}
