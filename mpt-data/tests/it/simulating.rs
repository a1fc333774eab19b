//! The simulator against what the order really does, and what it says of shuffles.

use mpt_data::order::{OrderConfig, OrderSource};
use mpt_data::simulate::{SimulateConfig, simulate};
use mpt_data::{Mixing, PrepareRun, Share, Shuffle, plan_from_mix};

const ROW: u64 = 2048 * 2 + 16 + 2048 / 8;
const CHUNK: u64 = ROW * 2048;

fn config(shuffle: Shuffle, window: Option<u64>, cache_bytes: u64) -> SimulateConfig {
    let source = OrderSource { name: "web".into(), share: Share::Proportion(1.0), tokens: 40 * 2048 * 2048 };
    let mixing = Mixing { shuffle, shuffle_window: window, ..Mixing::default() };
    let order =
        OrderConfig { sources: vec![source], row_tokens: 2048, seq_len: 2048, seed: 1, mixing, group: 64 };
    SimulateConfig {
        order,
        vocab_size: 50_277,
        start: 0,
        samples: 40 * 2048,
        batch_size: 64,
        world_size: 4,
        nodes: 1,
        cache_bytes,
        price_per_1000: 0.0004,
    }
}

#[test]
fn an_epoch_in_order_reads_everything_once() {
    let found = simulate(&config(Shuffle::None, None, 2 * CHUNK)).expect("simulated");
    assert_eq!((found.chunk_mode.requests, found.chunk_mode.bytes), (40, 40 * CHUNK));
    assert_eq!((found.row_mode.requests, found.row_mode.bytes), (2 * 40 * 2048, 40 * CHUNK));
    assert!((found.chunk_mode.cost - 40.0 * 0.0004 / 1000.0).abs() < 1e-12);
    assert_eq!((found.sources[0].epochs, found.sources[0].chunks), (1.0, 40));
    assert!(found.sources[0].spread.entropy < 0.1);
}

#[test]
fn windows_need_a_cache_of_a_window() {
    let enough = simulate(&config(Shuffle::Windowed, Some(8), 9 * CHUNK)).expect("simulated");
    assert_eq!(enough.chunk_mode.requests, 40);
    assert_eq!(enough.row_mode.cache_hit_rate, 0.0, "no row comes twice in an epoch");
    let little = simulate(&config(Shuffle::Windowed, Some(8), 2 * CHUNK)).expect("simulated");
    assert!(little.chunk_mode.requests > 10_000, "{}", little.chunk_mode.requests);
}

#[test]
fn machines_have_caches_of_their_own() {
    let one = simulate(&config(Shuffle::Windowed, Some(8), 9 * CHUNK)).expect("simulated");
    let two = SimulateConfig { nodes: 2, ..config(Shuffle::Windowed, Some(8), 9 * CHUNK) };
    let two = simulate(&two).expect("simulated");
    assert_eq!(two.chunk_mode.requests, 2 * one.chunk_mode.requests);
    assert_eq!(two.row_mode.requests, one.row_mode.requests);
    let error =
        simulate(&SimulateConfig { nodes: 3, ..config(Shuffle::Global, None, 0) }).expect_err("3 of 4");
    assert!(
        error.to_string().contains("`nodes` is 3, expected a divisor of `world_size`, which is 4"),
        "{error}"
    );
}

/// Global: within a hundredth of a true shuffle. Windowed, with a cache of the window alone: at least nine tenths.
#[test]
fn shuffles_are_nearly_as_good_as_a_true_one() {
    let share = |shuffle, window| {
        let found = simulate(&config(shuffle, window, 0)).expect("simulated");
        found.sources[0].spread.entropy / found.sources[0].spread.entropy_of_true_shuffle
    };
    let (global, windowed) = (share(Shuffle::Global, None), share(Shuffle::Windowed, Some(16)));
    assert!((global - 1.0).abs() < 0.01, "{global}");
    assert!(windowed > 0.9, "{windowed}");
}

/// The table of the model card of MPT-30B: tokens of each source, what a run of 10^12 tokens takes of it, and how often.
#[test]
fn the_mix_of_mpt_30b_is_that_of_its_card() {
    let text = include_str!("../../../docs/runs/mpt-30b-mix.toml");
    let run = PrepareRun::parse(text, std::path::Path::new("mix.toml")).expect("sound");
    let table =
        plan_from_mix(&run, Some(1_000_000_000_000)).expect("planned").expect("all sources say their tokens");
    let card = [
        (2417.99, 0.335, 335.0, 0.1385),
        (100.42, 0.299, 299.0, 2.977),
        (878.45, 0.085, 85.0, 0.0968),
        (463.78, 0.1, 100.0, 0.2156),
        (4.87, 0.04, 40.0, 8.214),
        (107.07, 0.045, 45.0, 0.4203),
        (48.95, 0.033, 33.0, 0.6742),
        (26.02, 0.03, 30.0, 1.153),
        (28.10, 0.019, 19.0, 0.6762),
        (20.54, 0.014, 14.0, 0.6816),
    ];
    assert_eq!((table.token_budget, table.sources.len()), (1_000_000_000_000, card.len()));
    for (row, (tokens, proportion, effective, epochs)) in table.sources.iter().zip(card) {
        assert_eq!(row.tokens, (tokens * 1e9_f64).round() as u64, "{}", row.source);
        assert!((row.proportion - proportion).abs() < 1e-12, "{}", row.source);
        // Within one sample of the card, at the end as at any moment.
        assert!((row.effective_tokens as f64 - effective * 1e9).abs() < 2048.0, "{row:?}");
        assert!((row.epochs / epochs - 1.0).abs() < 5e-4, "{row:?}");
    }
}
