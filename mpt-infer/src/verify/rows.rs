//! Rows of token ids to verify a model on.

use mpt_core::MptConfig;
use mpt_core::rng::CounterRng;

/// Lengths of the short built-in rows, on both sides of the sizes at which kernels switch.
const LENGTHS: [usize; 5] = [1, 2, 7, 33, 100];
/// Number of tokens by which the last built-in row exceeds `max_seq_len`.
const BEYOND: usize = 8;
/// Longest `max_seq_len` that the last built-in row fills; a longer one would take minutes.
const FILLED: usize = 4096;

/// Rows of ids drawn uniformly from the vocabulary by `seed`. The last one exceeds `max_seq_len`, or has exactly that
/// length where positions are learned; a `max_seq_len` above 4096 is not filled.
pub fn builtin_rows(config: &MptConfig, seed: u64) -> Vec<Vec<u32>> {
    let limit = if config.learned_pos_emb { config.max_seq_len } else { config.max_seq_len + BEYOND };
    let mut lengths: Vec<usize> = LENGTHS.into_iter().filter(|&length| length < limit).collect();
    if config.max_seq_len <= FILLED {
        lengths.push(limit);
    }
    let row = |(row, length): (usize, usize)| {
        let mut rng = CounterRng::named(seed, &format!("verify row {row}"));
        (0..length).map(|_| (rng.bits() % config.vocab_size as u64) as u32).collect()
    };
    lengths.into_iter().enumerate().map(row).collect()
}

/// Windows of at most `seq` ids over one text. They overlap by one id, so that each id but the first is predicted once.
///
/// # Panics
/// When `seq` is below 2.
pub fn windows(ids: &[u32], seq: usize) -> Vec<Vec<u32>> {
    assert!(seq >= 2, "a window predicts one token at least");
    let starts = (0..ids.len().saturating_sub(1)).step_by(seq - 1);
    starts.map(|start| ids[start..ids.len().min(start + seq)].to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_rows_lie_in_the_vocabulary_and_go_beyond_the_context() {
        let mut config = MptConfig::mpt(32, 2, 4, 50, 16).unwrap();
        let rows = builtin_rows(&config, 0);
        assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2, 7, 24]);
        assert!(rows.iter().flatten().all(|&id| id < 50));
        assert_eq!(rows, builtin_rows(&config, 0));
        assert_ne!(rows, builtin_rows(&config, 1));
        config.learned_pos_emb = true;
        assert_eq!(builtin_rows(&config, 0).last().unwrap().len(), 16);
        config.max_seq_len = 65536;
        assert_eq!(builtin_rows(&config, 0).last().unwrap().len(), 100);
    }

    #[test]
    fn windows_predict_every_token_but_the_first_once() {
        let ids: Vec<u32> = (0..41).collect();
        for seq in [2, 7, 16, 41, 100] {
            let windows = windows(&ids, seq);
            let predicted: Vec<u32> = windows.iter().flat_map(|row| row[1..].to_vec()).collect();
            assert_eq!(predicted, ids[1..], "windows of {seq}");
            assert!(windows.iter().all(|row| (2..=seq).contains(&row.len())), "windows of {seq}");
        }
        assert!(windows(&ids[..1], 8).is_empty());
    }
}
