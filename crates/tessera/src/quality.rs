//! How far a model's predictions are from a text, and from another model's.

use anyhow::Context;
use tessera_compute::batch::Want;
use tessera_engine::kv::Sequence;
use tessera_engine::model::{Feed, Model, Pick};
use tessera_engine::sampler::logprobs;

/// Tokens of one step: their logits are held of two models.
const CHUNK: usize = 64;

/// Sums over predicted tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Tokens that were predicted.
    pub predicted: usize,
    /// Negative log-likelihood, in nats.
    pub nll: f64,
    /// The other model's.
    pub base_nll: f64,
    /// `KL(other || model)`, in nats.
    pub kl: f64,
    /// Tokens whose likeliest successor is the same in both.
    pub same: usize,
}

impl Sums {
    /// A sum as a mean over what was predicted.
    pub fn mean(&self, sum: f64) -> f64 {
        sum / self.predicted.max(1) as f64
    }

    /// Part of the tokens whose likeliest successor is the same.
    pub fn top1(&self) -> f64 {
        self.same as f64 / self.predicted.max(1) as f64
    }
}

/// Reads texts, each begun anew; every token but a text's first is predicted from those before it. With a base its
/// predictions are compared. `on` is told of each token that was read.
pub fn measure(
    model: &mut Model,
    mut base: Option<&mut Model>,
    texts: &[&[u32]],
    on: &mut dyn FnMut(usize) -> anyhow::Result<()>,
) -> anyhow::Result<Sums> {
    let mut sums = Sums::default();
    for text in texts {
        let (mut sequence, mut other) = (Sequence::default(), Sequence::default());
        let read = read(model, base.as_deref_mut(), text, (&mut sequence, &mut other), &mut sums, on);
        model.release(sequence);
        if let Some(base) = &mut base {
            base.release(other);
        }
        read?;
    }
    Ok(sums)
}

fn read(
    model: &mut Model,
    mut base: Option<&mut Model>,
    text: &[u32],
    (sequence, other): (&mut Sequence, &mut Sequence),
    sums: &mut Sums,
    on: &mut dyn FnMut(usize) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for (chunk, tokens) in text.chunks(CHUNK).enumerate() {
        let call = 0..text.len();
        let vocab = model.config.vocab_size;
        let feed = Feed { sequence, tokens, call: call.clone(), drafts: 0, pick: Pick::All };
        let logits = &model.forward(&mut [feed], Want::Logits)?.logits;
        let of_base = match &mut base {
            Some(base) => {
                let feed = Feed { sequence: other, tokens, call, drafts: 0, pick: Pick::All };
                base.forward(&mut [feed], Want::Logits)?.logits.as_slice()
            }
            None => &[],
        };
        let next = &text[chunk * CHUNK + 1..];
        let mut of_base = of_base.chunks_exact(vocab);
        for (row, &token) in logits.chunks_exact(vocab).zip(next) {
            sums.predicted += 1;
            sums.nll -= f64::from(logprobs(row, 0, token)?.1.logprob);
            if let Some(base) = of_base.next() {
                sums.base_nll -= f64::from(logprobs(base, 0, token)?.1.logprob);
                let (kl, same) = apart(base, row).context("a row without numbers")?;
                sums.kl += kl;
                sums.same += usize::from(same);
            }
        }
        on(tokens.len())?;
    }
    Ok(())
}

/// `KL(p || q)` of two rows of logits, and whether their likeliest tokens are the same; `None` of empty rows.
fn apart(p: &[f32], q: &[f32]) -> Option<(f64, bool)> {
    let best = |row: &[f32]| {
        let first = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
        first.map(|(i, x)| (i, f64::from(*x)))
    };
    let ((i, top_p), (j, top_q)) = (best(p)?, best(q)?);
    let total =
        |row: &[f32], top: f64| row.iter().map(|x| (f64::from(*x) - top).exp()).sum::<f64>().ln() + top;
    let (total_p, total_q) = (total(p, top_p), total(q, top_q));
    let terms = p.iter().zip(q).map(|(p, q)| {
        let (p, q) = (f64::from(*p) - total_p, f64::from(*q) - total_q);
        p.exp() * (p - q)
    });
    Some((terms.sum(), i == j))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_apart_is_as_far_as_it_is() {
        let ln = |p: [f32; 3]| p.map(f32::ln);
        let (p, q) = (ln([0.5, 0.25, 0.25]), ln([0.25, 0.5, 0.25]));
        let (kl, same) = apart(&p, &q).unwrap();
        assert!((kl - (0.5 * 2f64.ln() - 0.25 * 2f64.ln())).abs() < 1e-6 && !same, "{kl}");
        // A constant changes nothing.
        let (kl, same) = apart(&p, &p.map(|x| x + 7.0)).unwrap();
        assert!(kl.abs() < 1e-6 && same, "{kl}");
    }
}
