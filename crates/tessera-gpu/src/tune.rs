//! Which of several kernels that make the same bits is the fastest on an adapter: tried on a model's own steps.

use crate::config::{Config, Tuned};
use crate::kernels::COLUMNS;
use std::time::Duration;

/// Rows of a matrix that a lane may read.
pub const ROWS: [usize; 3] = [1, 2, 4];
/// Rows of a step for which those of the input are many.
pub const MANY: usize = 64;
/// Another one has to be this much faster: clocks are not still.
const WORTH: f64 = 0.97;

/// The fastest. `time`: what a step of so many rows takes with a configuration; `None` ends the search with what was found
/// up to then.
pub fn choose(config: Config, mut time: impl FnMut(Config, usize) -> Option<Duration>) -> Tuned {
    let mut best = config.tuned();
    let mut try_all = |best: &mut Tuned, rows: usize, others: Vec<Tuned>| {
        let mut least = time(config.with(*best), rows)?.as_secs_f64();
        for other in others {
            let took = time(config.with(other), rows)?.as_secs_f64();
            if took < WORTH * least {
                (*best, least) = (other, took);
            }
        }
        Some(())
    };
    for (i, columns) in COLUMNS.into_iter().enumerate() {
        let with = |rows: usize| {
            let mut other = best;
            other.outputs[i] = rows;
            other
        };
        let others = ROWS.into_iter().map(with).filter(|other| *other != best).collect();
        if try_all(&mut best, columns, others).is_none() {
            return best;
        }
    }
    let staged = [None, Some(2), Some(4)].map(|staged| Tuned { staged, ..best });
    let others = staged.into_iter().filter(|other| *other != best).collect();
    // What was found up to there is kept.
    let _ = try_all(&mut best, MANY, others);
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes 10 ms, less with four rows a lane for one column, and without staging.
    fn time(config: Config, rows: usize) -> Duration {
        let slow = match rows {
            1 => config.outputs[0] != 2,
            MANY => config.staged.is_some(),
            // Too little to be sure.
            _ => return Duration::from_micros(10_000 - config.outputs[1] as u64),
        };
        Duration::from_millis(if slow { 10 } else { 9 })
    }

    #[test]
    fn the_fastest_is_found() {
        let config = Config::default();
        let found = choose(config, |config, rows| Some(time(config, rows)));
        assert_eq!(found, Tuned { outputs: [2, 2, 2, 1], staged: None });
        assert_eq!(found.to_string(), "2,2,2,1");
        assert_eq!(config.with(found).tuned(), found);
    }

    #[test]
    fn what_was_found_in_time_is_kept() {
        let mut calls = 0;
        let found = choose(Config::default(), |config, rows| {
            calls += 1;
            (calls <= 4).then(|| time(config, rows))
        });
        assert_eq!(found, Tuned { outputs: [2, 2, 2, 1], staged: Some(4) });
        assert_eq!(choose(Config::default(), |_, _| None), Config::default().tuned());
    }
}
