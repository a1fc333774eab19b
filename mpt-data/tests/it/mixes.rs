//! The tables of a mix, before and after building.

use mpt_data::{NoProgress, inspect, plan};

use crate::corpus::Corpus;

#[test]
fn the_plan_says_what_the_data_will_hold() {
    let corpus = Corpus::new();
    let planned = plan(&corpus.run(&[]).expect("sound"), &corpus.tokenizer(), Some(320_000), &mut NoProgress)
        .expect("planned");
    let built = inspect(&corpus.build(&[]), Some(320_000)).expect("inspected");
    assert_eq!(planned, built);
    assert_eq!((built.token_budget, built.sources.len()), (320_000, 3));
    for row in &built.sources {
        assert!((row.proportion_obtained - row.proportion).abs() < 1e-9, "{row:?}");
        assert!((row.epochs * row.tokens as f64 - row.effective_tokens as f64).abs() < 1.0);
    }
    assert_eq!(built.sources.iter().map(|row| row.effective_tokens).sum::<u64>(), 320_000);
}

#[test]
fn the_default_budget_is_all_there_is() {
    let table = inspect(&Corpus::new().build(&[]), None).expect("inspected");
    let tokens: u64 = table.sources.iter().map(|row| row.tokens).sum();
    assert!(table.token_budget <= tokens && tokens < table.token_budget + 32);
}
