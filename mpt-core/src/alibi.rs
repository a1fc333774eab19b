//! ALiBi: slopes of the linear bias on attention scores.

/// Slopes `[n_heads]`: `2^(-i * bias_max / n)` for `i` in `1..=n`, `n` the next power of two.
///
/// For other head counts the slopes of even `i` come first, then those of odd `i`, cut at `n_heads`.
///
/// Source: Press et al. 2022, section 3; llm-foundry `layers/attention.py`, `gen_slopes`.
pub fn alibi_slopes(n_heads: usize, bias_max: f64) -> Vec<f32> {
    let n = n_heads.next_power_of_two();
    let slope = |i: usize| {
        let exponent = i as f32 * (bias_max / n as f64) as f32;
        1.0 / 2f32.powf(exponent)
    };
    if n == n_heads {
        return (1..=n).map(slope).collect();
    }
    let (odd, even) = ((1..=n).step_by(2), (2..=n).step_by(2));
    even.chain(odd).take(n_heads).map(slope).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_interleave_when_heads_are_no_power_of_two() {
        assert_eq!(alibi_slopes(4, 8.0), [0.25, 0.0625, 0.015_625, 0.003_906_25]);
        assert_eq!(alibi_slopes(3, 8.0), [0.0625, 0.003_906_25, 0.25]);
    }
}
