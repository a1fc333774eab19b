//! Measured rates, and the table they are shown in: in the style of llama-bench, with the share of what the machine can do.

use crate::table;

/// The middle one of `values`, which are not empty; of an even number the upper.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// What was measured: one row of the table.
pub(super) struct Measurement {
    /// What was done, such as `pp512`.
    pub(super) test: String,
    /// Tokens a second of every repetition.
    pub(super) rates: Vec<f64>,
    /// The median's share of what the machine can do.
    pub(super) utilization: f64,
    /// What it is a share of.
    pub(super) peak_text: String,
}

/// The model that was measured, as the table names it.
pub(super) struct BenchModel {
    /// Its name with the form of its weights.
    pub(super) name: String,
    /// Bytes of its weights.
    pub(super) bytes: u64,
    /// Number of its weights.
    pub(super) parameters: u64,
}

/// The lines of the table.
pub(super) fn table(bench_model: &BenchModel, rows: &[Measurement]) -> Vec<String> {
    let header = ["model", "size", "params", "threads", "test", "t/s", "share", "of"];
    let cells = |row: &Measurement| {
        vec![
            bench_model.name.clone(),
            format!("{:.2} GB", bench_model.bytes as f64 / 1e9),
            format!("{:.1} M", bench_model.parameters as f64 / 1e6),
            rayon::current_num_threads().to_string(),
            row.test.clone(),
            format!("{:.2} ± {:.2}", median(&row.rates), standard_deviation(&row.rates)),
            format!("{:.0} %", 100.0 * row.utilization),
            row.peak_text.clone(),
        ]
    };
    table::lines(&header, &rows.iter().map(cells).collect::<Vec<_>>())
}

/// The standard deviation; 0 of a single value.
fn standard_deviation(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (n - 1.0).max(1.0)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn middle_and_spread() {
        assert_eq!((median(&[3.0]), standard_deviation(&[3.0])), (3.0, 0.0));
        assert_eq!((median(&[9.0, 1.0, 2.0]), standard_deviation(&[1.0, 2.0, 3.0])), (2.0, 1.0));
    }

    #[test]
    fn a_row_says_what_was_measured() {
        let bench_model =
            BenchModel { name: "tiny f32".to_owned(), bytes: 497_000_000, parameters: 124_200_000 };
        let row = Measurement {
            test: "pp8".to_owned(),
            rates: vec![10.0, 12.0],
            utilization: 0.5,
            peak_text: "2 GB/s".to_owned(),
        };
        let lines = table(&bench_model, &[row]);
        for cell in ["tiny f32", "0.50 GB", "124.2 M", "pp8", "12.00 ± 1.41", "50 %", "2 GB/s"] {
            assert!(lines[1].contains(cell), "{cell}: {lines:?}");
        }
    }
}
