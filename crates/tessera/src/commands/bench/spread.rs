//! Many measurements of one thing: percentiles, and a histogram as text.

use serde_json::{Value, json};

/// Sorted measurements.
#[derive(Clone, Debug)]
pub struct Spread(Vec<f64>);

/// Lines of a histogram.
const BINS: usize = 10;
/// Characters of its longest bar.
const BAR: usize = 40;
/// Above this ratio of the largest to the smallest value bins grow by a factor, not by a sum: with even bins
/// one straggler would push all others into the first.
const WIDE: f64 = 10.0;

impl Spread {
    /// Of these values, in any order.
    pub fn new(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        Spread(values)
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The smallest value that at least `percent` of all values do not exceed (nearest rank).
    pub fn percentile(&self, percent: f64) -> Option<f64> {
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.max(1) - 1).copied()
    }

    fn mean(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.iter().sum::<f64>() / self.0.len() as f64)
    }

    /// For `--json`, each value as it is.
    pub fn json(&self) -> Value {
        json!({
            "mean": self.mean(), "min": self.0.first(), "p50": self.percentile(50.0), "p90": self.percentile(90.0),
            "p99": self.percentile(99.0), "max": self.0.last(), "n": self.0.len(),
        })
    }

    /// p50, p90, p99 and the largest, for a table.
    pub fn cells(&self) -> Vec<String> {
        let values =
            [self.percentile(50.0), self.percentile(90.0), self.percentile(99.0), self.0.last().copied()];
        values.iter().map(|v| v.map_or("-".to_owned(), number)).collect()
    }

    /// Lines `from to |bar| count`.
    pub fn histogram(&self) -> String {
        let (Some(&low), Some(&high)) = (self.0.first(), self.0.last()) else { return String::new() };
        if high <= low {
            return format!("{:>9}  all {} the same\n", number(low), self.0.len());
        }
        let by_factor = low > 0.0 && high / low > WIDE;
        let edge = |i: usize| {
            let part = i as f64 / BINS as f64;
            if by_factor { low * (high / low).powf(part) } else { low + (high - low) * part }
        };
        let mut counts = [0usize; BINS];
        for &value in &self.0 {
            // The largest value belongs to the last bin.
            let bin = (1..BINS).find(|&i| value < edge(i)).unwrap_or(BINS);
            counts[bin - 1] += 1;
        }
        let most = counts.iter().copied().max().unwrap_or(1).max(1);
        let mut text = String::new();
        for (i, &count) in counts.iter().enumerate() {
            // What is there is seen, however little.
            let bar = "█".repeat((count * BAR).div_ceil(most));
            let line = format!("{:>9} to {:>9}  {bar} {count}", number(edge(i)), number(edge(i + 1)));
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// Three significant digits.
fn number(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred = Spread::new((1..=100).rev().map(f64::from).collect());
        let at = |p| hundred.percentile(p).unwrap();
        assert_eq!((at(50.0), at(90.0), at(99.0), at(100.0), at(0.0)), (50.0, 90.0, 99.0, 100.0, 1.0));
        let two = Spread::new(vec![2.0, 1.0]);
        assert_eq!((two.percentile(50.0), two.percentile(51.0)), (Some(1.0), Some(2.0)));
        assert_eq!(Spread::new(vec![]).percentile(50.0), None);
        assert_eq!(Spread::new(vec![]).cells(), ["-"; 4]);
    }

    #[test]
    fn a_histogram_counts_everything_once() {
        for values in
            [vec![1.0, 1.5, 2.0, 2.0, 3.0], vec![0.1, 0.1, 0.2, 50.0, 1000.0], vec![0.0, 5.0, 100.0]]
        {
            let text = Spread::new(values.clone()).histogram();
            assert_eq!(text.lines().count(), BINS, "{text}");
            let counts = text.lines().map(|l| l.rsplit(' ').next().unwrap().parse::<usize>().unwrap());
            assert_eq!(counts.sum::<usize>(), values.len(), "{text}");
        }
        assert_eq!(Spread::new(vec![5.0, 5.0]).histogram(), "     5.00  all 2 the same\n");
        assert_eq!(Spread::new(vec![]).histogram(), "");
    }
}
