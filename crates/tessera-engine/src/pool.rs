//! From the hidden states of a text to its vector.

use crate::model::Pick;
use tessera_weights::embedding::Pooling;

/// A text's hidden states, as far as they were made.
#[derive(Clone, Debug)]
pub struct Pool {
    pooling: Pooling,
    /// Tokens of the text.
    len: usize,
    /// How many were taken.
    taken: usize,
    /// The sum of those that count. One after the other in f64: it does not depend on chunks.
    sum: Vec<f64>,
}

/// A hidden state with a value that is not finite: the model's weights or output are broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the hidden state of token {position} has a value that is not a finite number")]
pub struct Broken {
    /// Place of the token in its text.
    pub position: usize,
}

impl Pool {
    /// Of a text of `len` tokens.
    pub fn new(pooling: Pooling, len: usize) -> Pool {
        Pool { pooling, len, taken: 0, sum: Vec::new() }
    }

    /// Whether the first tokens' hidden states are needed, so that they cannot come from a cache.
    pub fn needs_first(&self) -> bool {
        self.pooling != Pooling::Last
    }

    /// Which rows are wanted of `n` tokens from place `from` on.
    pub fn pick(&self, from: usize, n: usize) -> Pick {
        match self.pooling {
            Pooling::Mean => Pick::All,
            Pooling::Cls if from == 0 => Pick::First,
            Pooling::Last if from + n == self.len => Pick::Last,
            Pooling::Cls | Pooling::Last => Pick::None,
        }
    }

    /// Takes the hidden state of a token; gives the vector with the last that counts. What was taken before, as after a
    /// preemption, is passed over.
    ///
    /// # Errors
    /// A value that is not finite.
    pub fn take(&mut self, position: usize, row: &[f32]) -> Result<Option<Vec<f32>>, Broken> {
        if self.pooling == Pooling::Mean && position != self.taken {
            return Ok(None);
        }
        if !row.iter().all(|x| x.is_finite()) {
            return Err(Broken { position });
        }
        if self.pooling != Pooling::Mean {
            return Ok(Some(row.to_vec()));
        }
        self.sum.resize(row.len(), 0.0);
        self.sum.iter_mut().zip(row).for_each(|(s, x)| *s += f64::from(*x));
        self.taken += 1;
        let mean = |s: &f64| (s / self.taken as f64) as f32;
        Ok((self.taken == self.len).then(|| self.sum.iter().map(mean).collect()))
    }
}

/// Divides a vector by its length; false for one that has none, or no finite one.
#[must_use]
pub fn normalize(vector: &mut [f32]) -> bool {
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if !length.is_finite() || length == 0.0 {
        return false;
    }
    vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_count() {
        let rows = [[1.0, 2.0], [3.0, -2.0], [5.0, 3.0]];
        for (pooling, picks, expected) in [
            (Pooling::Mean, [Pick::All, Pick::All], [3.0, 1.0]),
            (Pooling::Cls, [Pick::First, Pick::None], [1.0, 2.0]),
            (Pooling::Last, [Pick::None, Pick::Last], [5.0, 3.0]),
        ] {
            let mut pool = Pool::new(pooling, 3);
            assert_eq!([pool.pick(0, 2), pool.pick(2, 1)], picks);
            let picked: Vec<usize> = match pooling {
                // The second comes twice, as after a preemption.
                Pooling::Mean => vec![0, 1, 0, 1, 2],
                Pooling::Cls => vec![0],
                Pooling::Last => vec![2],
            };
            let found: Vec<_> = picked.iter().filter_map(|i| pool.take(*i, &rows[*i]).unwrap()).collect();
            assert_eq!(found, [expected], "{pooling:?}");
        }
        assert_eq!(Pool::new(Pooling::Last, 1).take(0, &[f32::NAN]), Err(Broken { position: 0 }));
    }

    #[test]
    fn of_length_one() {
        let mut vector = [3.0, 4.0];
        assert!(normalize(&mut vector) && vector == [0.6, 0.8]);
        assert!(!normalize(&mut [0.0, 0.0]) && !normalize(&mut [f32::INFINITY, 1.0]));
    }
}
