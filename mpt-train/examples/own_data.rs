//! Train on batches of your own: no run file, no shards.
//!
//! ```text
//! cargo run --release -p mpt-train --no-default-features --example own_data
//! ```

#![expect(clippy::print_stdout, reason = "an example speaks to people")]

use candle_core::Device;
use mpt_core::{MptConfig, Params, Precision};
use mpt_train::{OptimizerConfig, Result, StepConfig, TokenRows, Trainer};

const SEQ: usize = 32;
const BATCH: usize = 4;
const STEPS: u64 = 30;

fn main() -> Result<()> {
    // A model like MPT-30B at another size, with the weights that training from scratch begins with.
    let config = MptConfig::mpt(64, 2, 4, 128, SEQ)?;
    let params = Params::init(&config, 17, &Device::Cpu)?;
    let optimizer = OptimizerConfig::Lion { lr: 1e-3, betas: [0.9, 0.99], weight_decay: 0.0 };
    let step = StepConfig {
        steps: STEPS,
        batch_size: BATCH,
        microbatch_size: Some(2), // less memory, the same result up to rounding
        precision: Precision::F32,
        clip_norm: 1.0,
        seed: 17,
        activation_checkpointing: None,
        eval_every: 0,
        eval_samples: None,
    };
    let mut trainer = Trainer::new(&config, params, &optimizer, &step)?;

    // Rows of tokens with the document of each; here each row counts, from another number on.
    let tokens: Vec<u32> = (0..BATCH * SEQ).map(|at| ((at / SEQ * 31 + at % SEQ) % 128) as u32).collect();
    let documents: Vec<u64> = (0..BATCH * SEQ).map(|at| (at / SEQ) as u64).collect();
    let rows = TokenRows { tokens: &tokens, documents: &documents, seq: SEQ };
    let mut losses = Vec::new();
    for step in 1..=STEPS {
        let outcome = trainer.step(rows, 1.0, step)?;
        println!("step {step}: loss {:.3}, gradient {:.3}", outcome.loss, outcome.grad_norm);
        losses.push(outcome.loss);
    }
    assert!(losses[losses.len() - 1] < losses[0] / 2.0, "it learns to count");
    Ok(())
}
