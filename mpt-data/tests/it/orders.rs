//! What must hold for every way of drawing and ordering samples, end to end: tokens come as the order says, whatever the
//! ranks, batches, stops and lengths.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use mpt_data::{
    Batching, Cursor, Error, Loader, LoaderConfig, Manifest, Mixing, Sampling, Shuffle, Split, TokenBatch,
};
use proptest::prelude::*;

use crate::corpus::Corpus;

/// Every way that goes together.
fn ways() -> Vec<Mixing> {
    let mut ways = Vec::new();
    for sampling in [Sampling::Exact, Sampling::Iid] {
        for batching in [Batching::Random, Batching::Stratified, Batching::PerSource] {
            for shuffle in [Shuffle::Global, Shuffle::Windowed, Shuffle::None] {
                let batch_group = (batching != Batching::Random).then_some(12);
                let way = Mixing { sampling, batching, batch_group, shuffle, ..Mixing::default() };
                if way.check(["web", "books", "code"].into_iter()).is_ok() {
                    ways.push(way);
                }
            }
        }
    }
    assert_eq!(ways.len(), 15);
    ways
}

fn config(manifest: &Manifest, mixing: &Mixing) -> LoaderConfig {
    LoaderConfig {
        seed: 5,
        batch_size: 12,
        mixing: mixing.clone(),
        ..LoaderConfig::new(manifest, Split::Train)
    }
}

fn loader(manifest: &Manifest, config: LoaderConfig, cursor: Option<Cursor>) -> Loader {
    Loader::new(manifest, config, cursor).expect("openable")
}

fn take(loader: &mut Loader, batches: usize) -> Vec<TokenBatch> {
    loader.take(batches).map(|batch| batch.expect("sound")).collect()
}

fn tokens(batches: &[TokenBatch]) -> Vec<u32> {
    batches.iter().flat_map(|batch| batch.tokens.iter().copied()).collect()
}

#[test]
fn stops_ranks_replicas_and_batches_change_no_token() {
    let corpus = Corpus::new();
    let manifest = corpus.build(&[]);
    for mixing in ways() {
        let whole = tokens(&take(&mut loader(&manifest, config(&manifest, &mixing), None), 40));
        let mut cursor = None;
        let mut found = Vec::new();
        let worlds = [(1, 1, 12), (4, 1, 8), (6, 2, 9), (12, 4, 30), (64, 1, 64), (1, 1, 1), (2, 1, 130)];
        for (world_size, replication, batch_size) in worlds {
            let of_rank = |rank| LoaderConfig {
                world_size,
                replication,
                rank,
                batch_size,
                ..config(&manifest, &mixing)
            };
            let mut ranks: Vec<_> =
                (0..world_size).map(|rank| loader(&manifest, of_rank(rank), cursor.clone())).collect();
            for _ in 0..2 {
                let parts: Vec<_> = ranks.iter_mut().map(|rank| take(rank, 1).remove(0)).collect();
                assert!(parts.chunks(replication).all(|same| same.iter().all(|part| part == &same[0])));
                found.extend(parts.iter().step_by(replication).flat_map(|part| part.tokens.iter().copied()));
            }
            cursor = Some(ranks[0].cursor());
            assert!(ranks.iter().all(|rank| rank.cursor() == ranks[0].cursor()));
        }
        let both = found.len().min(whole.len());
        assert!(both > 400 * 32 && found[..both] == whole[..both], "{mixing:?}");
        let text = serde_json::to_string(&cursor).expect("JSON");
        assert!(text.len() < 300, "{} bytes: {text}", text.len());
    }
}

#[test]
fn every_row_comes_once_an_epoch_in_every_way() {
    let corpus = Corpus::new();
    let manifest = corpus.build(&[]);
    for mixing in ways() {
        let mut loader = loader(&manifest, config(&manifest, &mixing), None);
        let mut met: BTreeMap<(usize, u64), Vec<(String, u64)>> = BTreeMap::new();
        for index in 0..2500 {
            let source = loader.sample(index).expect("sound").id.source;
            let place = loader.location(&manifest, index);
            met.entry((source, place.epoch)).or_default().push((place.shard, place.row));
        }
        for source in 0..3 {
            let epochs: Vec<_> =
                met.iter().filter(|((of, _), _)| *of == source).map(|(_, rows)| rows).collect();
            let (_, whole) = epochs.split_last().expect("an epoch");
            assert!(!whole.is_empty(), "{mixing:?}: source {source}");
            for epoch in whole {
                let mut rows = (*epoch).clone();
                rows.sort();
                rows.dedup();
                assert_eq!(
                    (rows.len(), epoch.len() as u64),
                    (epoch.len(), manifest.sources()[source].train.rows)
                );
            }
        }
    }
}

/// The group that a run began with stays, whatever the batches are later.
#[test]
fn the_group_is_that_of_the_first_batch() {
    let corpus = Corpus::new();
    let manifest = corpus.build(&[]);
    let mixing = Mixing { batching: Batching::PerSource, ..Mixing::default() };
    let whole = take(&mut loader(&manifest, config(&manifest, &mixing), None), 20);
    assert!(
        whole.iter().all(|batch| batch.samples.iter().all(|sample| sample.source == batch.samples[0].source))
    );
    let mut first = loader(&manifest, config(&manifest, &mixing), None);
    take(&mut first, 3);
    let smaller = LoaderConfig { batch_size: 4, ..config(&manifest, &mixing) };
    let rest = take(&mut loader(&manifest, smaller.clone(), Some(first.cursor())), 30);
    assert_eq!(tokens(&rest), tokens(&whole[3..13]));
    let mixing = Mixing { batch_group: Some(4), ..mixing };
    match Loader::new(&manifest, LoaderConfig { mixing, ..smaller }, Some(first.cursor())) {
        Err(Error::Cursor { field, expected, actual }) => {
            assert_eq!((field, &*expected, &*actual), ("data.batching", "per_source:12", "per_source:4"));
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn every_change_is_refused_by_name_or_noted() {
    let corpus = Corpus::new();
    let manifest = corpus.build(&[]);
    let plain = config(&manifest, &Mixing::default());
    let mut first = loader(&manifest, plain.clone(), None);
    take(&mut first, 3);
    let with = |mixing: Mixing| LoaderConfig { mixing, ..plain.clone() };
    let stages = toml::from_str("[[stages]]\nfrom = 5\nseq_len = 64").expect("TOML");
    let changes = [
        ("data.sampling", "exact", with(Mixing { sampling: Sampling::Iid, ..Mixing::default() })),
        ("data.batching", "random", with(Mixing { batching: Batching::PerSource, ..Mixing::default() })),
        ("data.shuffle", "global", with(Mixing { shuffle: Shuffle::Windowed, ..Mixing::default() })),
        ("data.shuffle", "global", with(Mixing { shuffle: Shuffle::None, ..Mixing::default() })),
        ("data.seed", "5", LoaderConfig { seed: 6, ..plain.clone() }),
        ("data.seq_len", "32", LoaderConfig { seq_len: 64, ..plain.clone() }),
        ("mix", "", with(stages)),
    ];
    for (name, was, config) in changes {
        match Loader::new(&manifest, config.clone(), Some(first.cursor())) {
            Err(Error::Cursor { field, .. }) => assert_eq!(field, name),
            other => panic!("{name} was not refused: {other:?}"),
        }
        let short = name.strip_prefix("data.").unwrap_or(name).to_owned();
        for accept in [name.to_owned(), short.clone()] {
            let config = LoaderConfig { accept: vec![accept], ..config.clone() };
            let cursor = loader(&manifest, config.clone(), Some(first.cursor())).cursor();
            assert_eq!((cursor.sample, cursor.accepted.len()), (36, 1));
            let noted = &cursor.accepted[0];
            assert_eq!((noted.sample, &noted.field), (36, &short));
            assert!(was.is_empty() || noted.was == was, "{noted:?}");
            let again = LoaderConfig { accept: vec![], ..config };
            assert_eq!(loader(&manifest, again, Some(cursor.clone())).cursor(), cursor, "once is enough");
        }
    }
    let rows = corpus.path("out");
    std::fs::remove_dir_all(rows).expect("removable");
    let other = corpus.build(&[("seed = 3", "seed = 3\nrow_tokens = 16")]);
    match Loader::new(&other, plain, Some(first.cursor())) {
        Err(Error::Cursor { field, .. }) => assert_eq!(field, "row_tokens"),
        found => panic!("not refused: {found:?}"),
    }
}

/// Shorter samples first, then longer ones: each is consecutive tokens of its source, and none comes twice in an epoch.
#[test]
fn lengths_change_by_schedule() {
    let corpus = Corpus::new();
    let manifest = corpus.build(&[]);
    for shuffle in [Shuffle::Global, Shuffle::Windowed, Shuffle::None] {
        let mut mixing: Mixing =
            toml::from_str("[[stages]]\nfrom = 101\nseq_len = 128\n[[stages]]\nfrom = 140\nseq_len = 32")
                .expect("TOML");
        mixing.shuffle = shuffle;
        let mut loader = loader(&manifest, config(&manifest, &mixing), None);
        let batches = take(&mut loader, 20);
        let sizes: Vec<_> = batches.iter().map(|batch| (batch.batch, batch.seq)).collect();
        let expected: Vec<_> =
            [vec![(12, 32); 8], vec![(5, 32)], vec![(12, 128); 3], vec![(3, 128)], vec![(12, 32); 7]]
                .concat();
        assert_eq!(sizes, expected, "a batch ends where the length changes");
        for (step, batch) in (0..).zip(&batches) {
            let samples: Vec<_> = batch.samples.iter().map(|sample| sample.index).collect();
            assert!(loader.step_samples(step).eq(samples), "step {step}");
        }
        let mut met = BTreeMap::new();
        for index in 0..1200u64 {
            let sample = loader.sample(index).expect("sound");
            let place = loader.location(&manifest, index);
            let first = place.row * 32 + place.token as u64;
            for (token, id) in (first..).zip(&sample.tokens) {
                let before = met.insert((sample.id.source, place.epoch, token), *id);
                assert_eq!(
                    before, None,
                    "{shuffle:?}: token {token} of {sample:?} twice in epoch {}",
                    place.epoch
                );
            }
        }
        // What tokens lie where does not depend on the length they are read in.
        for ((source, epoch, token), id) in &met {
            if let Some(again) = met.get(&(*source, epoch + 1, *token)) {
                assert_eq!(again, id);
            }
        }
    }
}

#[test]
fn quotas_are_passes_over_the_data() {
    let corpus = Corpus::new();
    let quotas = [
        ("proportion = 0.5", "repeat = 1"),
        ("proportion = 0.3", "repeat = 2.5"),
        ("proportion = 0.2", "choose = 33"),
    ];
    let manifest = corpus.build(&quotas);
    let rows: Vec<_> = manifest.sources().iter().map(|source| source.train.rows).collect();
    let wanted = [rows[0], rows[1] * 5 / 2, 33];
    let mut loader = loader(&manifest, config(&manifest, &Mixing::default()), None);
    let mut counts = [0; 3];
    for index in 0..wanted.iter().sum() {
        counts[loader.sample(index).expect("sound").id.source] += 1;
    }
    assert_eq!(counts, wanted);
}

/// Data for all cases of a property.
static BUILT: LazyLock<(Corpus, Manifest)> = LazyLock::new(|| Corpus::new().build_kept());

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_run_resumes_anywhere_in_any_way(way in 0usize..15, stops in prop::collection::vec((0usize..30, 1usize..20), 1..5)) {
        let manifest = &BUILT.1;
        let mixing = &ways()[way];
        let (mut cursor, mut found) = (None, Vec::new());
        for (batches, batch_size) in stops {
            let config = LoaderConfig { batch_size, ..config(manifest, mixing) };
            let mut part = loader(manifest, config, cursor);
            found.extend(tokens(&take(&mut part, batches)));
            cursor = Some(part.cursor());
        }
        let mut whole = loader(manifest, config(manifest, mixing), None);
        let whole = tokens(&take(&mut whole, found.len().div_ceil(12 * 32)));
        prop_assert_eq!(&found[..], &whole[..found.len()]);
    }
}
