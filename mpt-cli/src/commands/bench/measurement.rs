//! Measured rates and their table, in the style of llama-bench, with the utilization of the machine.

use crate::table;

/// Median of `values`, which must not be empty; the upper one of an even number.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Measurement: a row of the table.
pub(super) struct Measurement {
    /// Test, such as `pp512`.
    pub(super) test: String,
    /// Tokens per second of each repetition.
    pub(super) rates: Vec<f64>,
    /// Median rate relative to the machine's peak.
    pub(super) utilization: f64,
    /// Description of the peak.
    pub(super) peak_text: String,
}

/// Model of a measurement.
pub(super) struct BenchModel {
    /// Name, with the dtype of its weights.
    pub(super) name: String,
    /// Bytes of the weights.
    pub(super) bytes: u64,
    /// Number of parameters.
    pub(super) parameters: u64,
}

/// Lines of the table.
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

/// Sample standard deviation; 0 for a single value.
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
