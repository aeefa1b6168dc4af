//! Which tensor goes into which shard, where: MLC's packing, from sizes alone.

use super::ConvertError;
use crate::arch::StoredTensor;

/// A tensor's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The tensor.
    pub tensor: StoredTensor,
    /// Bytes in the shard.
    pub nbytes: u64,
    /// First byte, from the start of the shard.
    pub offset: u64,
}

/// One `params_shard_N.bin`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shard {
    /// Length of the file.
    pub nbytes: u64,
    /// Its tensors, one after the other.
    pub records: Vec<Record>,
}

impl Shard {
    fn push(&mut self, tensor: StoredTensor, nbytes: u64) -> Result<(), ConvertError> {
        let end = self.nbytes.checked_add(nbytes);
        let end = end.ok_or_else(|| ConvertError::TooLarge { tensor: tensor.name.clone() })?;
        self.records.push(Record { tensor, nbytes, offset: self.nbytes });
        self.nbytes = end;
        Ok(())
    }
}

/// Packs tensors, in the order in which they come, into shards of less than `cap` bytes.
///
/// A tensor of half the cap or more that does not fit gets the next shard for itself at once, and thereby
/// overtakes the tensors that are waiting for their shard to fill.
pub fn pack(tensors: impl IntoIterator<Item = StoredTensor>, cap: u64) -> Result<Vec<Shard>, ConvertError> {
    let mut shards = Vec::new();
    let mut pending = Shard::default();
    for tensor in tensors {
        let n = tensor.stored_len() as u64;
        if pending.nbytes.saturating_add(n) >= cap {
            if n.saturating_mul(2) >= cap {
                let mut alone = Shard::default();
                alone.push(tensor, n)?;
                shards.push(alone);
                continue;
            }
            if pending.nbytes > 0 {
                shards.push(std::mem::take(&mut pending));
            }
        }
        pending.push(tensor, n)?;
    }
    if pending.nbytes > 0 {
        shards.push(pending);
    }
    Ok(shards)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::{DType, Encoding};

    fn packed(sizes: &[usize], cap: u64) -> Vec<Vec<usize>> {
        let tensors = sizes.iter().enumerate().map(|(i, &n)| StoredTensor {
            name: i.to_string(),
            shape: vec![n],
            dtype: DType::U8,
            encoding: Encoding::Raw,
        });
        let shards = pack(tensors, cap).unwrap();
        for shard in &shards {
            let mut end = 0;
            for record in &shard.records {
                assert_eq!(record.offset, end);
                end += record.nbytes;
            }
            assert_eq!(shard.nbytes, end);
        }
        let numbers = |s: &Shard| s.records.iter().map(|r| r.tensor.name.parse().unwrap()).collect();
        shards.iter().map(numbers).collect()
    }

    #[test]
    fn large_tensors_overtake_and_small_ones_fill() {
        assert_eq!(packed(&[10, 60, 10], 100), [vec![0, 1, 2]]);
        assert_eq!(packed(&[10, 90, 10], 100), [vec![1], vec![0, 2]]);
        assert_eq!(
            packed(&[60, 49, 10], 100),
            [vec![0], vec![1, 2]],
            "less than half: the pending shard is cut"
        );
        assert_eq!(packed(&[60, 40], 100), [vec![0], vec![1]], "a shard never reaches the cap");
        assert_eq!(packed(&[500], 100), [vec![0]]);
        assert_eq!(packed(&[], 100), Vec::<Vec<usize>>::new());
    }
}
