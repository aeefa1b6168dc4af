//! How a program is run on an adapter.

use crate::tune::ROWS;
use std::fmt;
use std::str::FromStr;

/// How a program is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether keys and values are kept as halves, and not in f32.
    pub halves: bool,
    /// Rows of the matrix that a lane of a product reads, for 1, 2, 4 and 8 rows of the input at once.
    pub outputs: [usize; 4],
    /// Whether norms and gates are made by the products beside them.
    pub folded: bool,
    /// If rows of the input go through the workgroup's memory eight at a time: rows of the matrix that a lane reads then.
    pub staged: Option<usize>,
    /// Whether the positions that a few rows see are split among workgroups.
    pub split: bool,
    /// Rows whose logits are made at once, at most.
    pub head_rows: usize,
}

impl Config {
    /// With nothing that only makes it faster.
    pub const PLAIN: Config =
        Config { halves: true, outputs: [1; 4], folded: false, staged: None, split: false, head_rows: 64 };
}

impl Default for Config {
    fn default() -> Config {
        Config {
            halves: true,
            outputs: [4, 2, 2, 1],
            folded: true,
            staged: Some(4),
            split: true,
            head_rows: 64,
        }
    }
}

/// What of a [`Config`] is a matter of speed only, and of the adapter: the same sums are made in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tuned {
    /// As there.
    pub outputs: [usize; 4],
    /// As there.
    pub staged: Option<usize>,
}

impl Config {
    /// What of it can be tuned.
    pub const fn tuned(&self) -> Tuned {
        Tuned { outputs: self.outputs, staged: self.staged }
    }

    /// The same, tuned so.
    pub const fn with(self, tuned: Tuned) -> Config {
        Config { outputs: tuned.outputs, staged: tuned.staged, ..self }
    }
}

impl FromStr for Tuned {
    type Err = String;

    /// `4,2,2,1/4`, or `4,2,2,1` without staging.
    fn from_str(text: &str) -> Result<Tuned, String> {
        let (outputs, staged) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let rows = |text: &str| text.parse().ok().filter(|rows| ROWS.contains(rows));
        let outputs: Vec<usize> = outputs.split(',').filter_map(rows).collect();
        let staged = staged.map(|text| rows(text).ok_or(())).transpose();
        match (outputs.try_into(), staged) {
            (Ok(outputs), Ok(staged)) if text.matches(',').count() == 3 => Ok(Tuned { outputs, staged }),
            _ => Err(format!(
                "{text:?} is not `plain`, or like 4,2,2,1/4: rows of a matrix a lane (1, 2 or 4) where a step has \
                 1, 2, 4 and more rows, and behind / for many rows through the workgroup's memory"
            )),
        }
    }
}

impl fmt::Display for Tuned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.outputs;
        write!(f, "{a},{b},{c},{d}")?;
        self.staged.map_or(Ok(()), |rows| write!(f, "/{rows}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tuned_is_read_as_it_is_written() {
        for text in ["4,2,2,1/4", "1,1,1,1", "4,4,4,4/2"] {
            assert_eq!(text.parse::<Tuned>().unwrap().to_string(), text);
        }
        for text in ["", "4,2,2", "4,2,2,1,1", "4,2,2,3", "4,2,2,1/", "4,2,2,1/3", "4,,2,2,1", "fast"] {
            assert!(text.parse::<Tuned>().is_err(), "{text}");
        }
    }
}
