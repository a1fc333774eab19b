//! Units run one by one by a scheduler give the bytes of a build at once.

use mpt_data::{Error, NoProgress, commit_units, plan_units, prepare_unit};

use crate::corpus::{Corpus, tree};

#[test]
fn units_in_any_order_and_at_the_same_time_are_the_build() {
    let corpus = Corpus::new();
    corpus.build(&[]);
    let expected = tree(&corpus.path("out"));
    std::fs::remove_dir_all(corpus.path("out")).expect("removable");
    let (run, tokenizer) = (corpus.run(&[]).expect("sound"), corpus.tokenizer());
    let units = plan_units(&run, &tokenizer, None, &mut NoProgress).expect("planned");
    assert!(units.len() > 1 && units.iter().all(|unit| !unit.done));

    let early = commit_units(&run, &tokenizer, None, &mut NoProgress).expect_err("nothing is made");
    assert!(matches!(early, Error::MissingUnits { missing, total, .. } if missing == total), "{early}");

    std::thread::scope(|scope| {
        for unit in units.iter().rev().chain(&units) {
            let (run, tokenizer) = (&run, &tokenizer);
            scope.spawn(move || match prepare_unit(run, tokenizer, None, &unit.id, &mut NoProgress) {
                Ok(made) => assert!(made.done && made.id == unit.id),
                // the same unit is made by another thread at this moment
                Err(error) => assert!(matches!(error, Error::Busy { .. }), "{error}"),
            });
        }
    });
    let again = plan_units(&run, &tokenizer, None, &mut NoProgress).expect("planned");
    assert!(again.iter().all(|unit| unit.done));
    commit_units(&run, &tokenizer, None, &mut NoProgress).expect("committed");
    assert!(tree(&corpus.path("out")) == expected);
    let finished = plan_units(&run, &tokenizer, None, &mut NoProgress).expect_err("finished");
    assert!(matches!(finished, Error::AlreadyBuilt { .. }), "{finished}");
}

#[test]
fn units_without_a_plan_and_inputs_that_changed_are_named() {
    let corpus = Corpus::new();
    let (run, tokenizer) = (corpus.run(&[]).expect("sound"), corpus.tokenizer());
    let unplanned = prepare_unit(&run, &tokenizer, None, "x", &mut NoProgress).expect_err("no plan");
    assert!(matches!(unplanned, Error::NoPlan { .. }), "{unplanned}");
    let units = plan_units(&run, &tokenizer, None, &mut NoProgress).expect("planned");
    let unknown = prepare_unit(&run, &tokenizer, None, "x", &mut NoProgress).expect_err("no such unit");
    assert!(matches!(unknown, Error::NoUnit { .. }), "{unknown}");
    let inputs = std::fs::read_to_string(corpus.path("out/.units/inputs.json")).expect("a plan");
    let inputs: serde_json::Value = serde_json::from_str(&inputs).expect("JSON");
    let first = inputs["sources"][0][0]["path"].as_str().expect("a path");
    let text = std::fs::read(first).expect("readable");
    std::fs::write(first, [&text[..], &text[..]].concat()).expect("writable");
    let changed = prepare_unit(&run, &tokenizer, None, &units[0].id, &mut NoProgress).expect_err("changed");
    assert!(changed.to_string().contains("bytes, was"), "{changed}");
}
