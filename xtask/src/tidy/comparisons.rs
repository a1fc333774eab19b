//! Comparisons in tests that hold for results that are no numbers at all.

use std::path::Path;

/// Lines of tests that look for a largest difference with `max`, which passes over NaN.
pub(super) fn nan_blind_problems(path: &Path, text: &str) -> Vec<String> {
    let is_test_file =
        path.iter().any(|part| ["tests", "benches", "tests.rs"].iter().any(|name| part == *name));
    let tests_begin = text.lines().position(|line| line.trim() == "#[cfg(test)]");
    let from = if is_test_file { Some(0) } else { tests_begin };
    let lines = text.lines().enumerate().skip(from.unwrap_or(usize::MAX));
    let deaf = lines.filter(|(_, line)| folds_with_max(line));
    let problem = |number: usize| {
        let place = format!("{}:{}", path.display(), number + 1);
        format!(
            "{place}: `max` passes over NaN; fold with `mpt_core::testing::largest`, or ask that all values are near"
        )
    };
    deaf.map(|(number, _)| problem(number)).collect()
}

fn folds_with_max(line: &str) -> bool {
    let Some((_, fold)) = line.split_once(".fold(0") else { return false };
    ["f32::max", "f64::max", ".max("].iter().any(|max| fold.contains(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_that_pass_over_nan_are_found_in_tests_alone() {
        let line = |rest: &str| format!("    let error = differences.fold(0{rest};\n");
        let found = |path: &str, text: &str| nan_blind_problems(Path::new(path), text).len();
        for deaf in [".0, f32::max)", "f64, |top, x| top.max(x.abs()))"] {
            assert_eq!(found("mpt-core/tests/it/parity.rs", &line(deaf)), 1);
            assert_eq!(found("mpt-core/src/kernels/cpu/quantize/tests.rs", &line(deaf)), 1);
            assert_eq!(found("mpt-core/src/ops.rs", &line(deaf)), 0);
            assert_eq!(
                found("mpt-core/src/ops.rs", &format!("#[cfg(test)]\nmod tests {{\n{}}}", line(deaf))),
                1
            );
        }
        assert_eq!(found("mpt-core/tests/it/parity.rs", &line(", u64::wrapping_add)")), 0);
    }
}
