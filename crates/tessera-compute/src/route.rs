//! Which experts a row goes through, and with what weights. Formulas: HF transformers, `modeling_mixtral.py`,
//! `modeling_qwen3_moe.py`, `modeling_deepseek_v3.py`, `modeling_llama4.py`.

use tessera_weights::arch::{Experts, Groups, Score};

/// Writes the weights of the chosen experts and 0 for the others. `logits`, `correction` and `out` have one value for
/// each expert. Of equal scores the first expert's counts more.
pub fn route(experts: &Experts, logits: &[f32], correction: Option<&[f32]>, out: &mut [f32]) {
    let scores = scores(experts.score, logits);
    let mut choice = scores.clone();
    if let Some(correction) = correction {
        choice.iter_mut().zip(correction).for_each(|(c, x)| *c += x);
    }
    if let Some(groups) = experts.groups {
        leave_groups_out(groups, &mut choice);
    }
    out.fill(0.0);
    let mut sum = 0.0;
    let chosen = best(&choice, experts.top_k);
    for &e in &chosen {
        sum += scores[e];
    }
    for e in chosen {
        let share = if experts.renormalise { scores[e] / (sum + 1e-20) } else { scores[e] };
        out[e] = share * experts.scale;
    }
}

fn scores(score: Score, logits: &[f32]) -> Vec<f32> {
    match score {
        Score::Sigmoid => logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        Score::Softmax => {
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut out: Vec<f32> = logits.iter().map(|x| (x - max).exp()).collect();
            let sum: f32 = out.iter().sum();
            out.iter_mut().for_each(|x| *x /= sum);
            out
        }
    }
}

/// Experts of groups that are not kept become the last choice.
fn leave_groups_out(groups: Groups, choice: &mut [f32]) {
    let size = choice.len() / groups.count;
    let value = |group: &[f32]| {
        let two = best(group, if groups.two_best { 2 } else { 1 });
        two.into_iter().map(|i| group[i]).sum::<f32>()
    };
    let values: Vec<f32> = choice.chunks_exact(size).map(value).collect();
    let kept = best(&values, groups.kept);
    for (g, group) in choice.chunks_exact_mut(size).enumerate() {
        if !kept.contains(&g) {
            group.fill(f32::NEG_INFINITY);
        }
    }
}

/// Indices of the `n` largest, largest first.
fn best(values: &[f32], n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    order.truncate(n);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Experts = Experts {
        count: 4,
        width: 8,
        top_k: 2,
        score: Score::Softmax,
        renormalise: true,
        scale: 1.0,
        groups: None,
        on_input: false,
    };

    fn weights(experts: Experts, logits: &[f32], correction: Option<&[f32]>) -> Vec<f32> {
        let mut out = vec![9.0; logits.len()];
        route(&experts, logits, correction, &mut out);
        out
    }

    #[test]
    fn the_best_share_one() {
        let w = weights(PLAIN, &[0.0, 2.0, 1.0, 2.0], None);
        assert_eq!(w, [0.0, 0.5, 0.0, 0.5]);
        let w = weights(Experts { renormalise: false, ..PLAIN }, &[0.0, f32::ln(3.0), 0.0, 0.0], None);
        assert!(
            (w[1] - 0.5).abs() < 1e-6 && (w[0] - 1.0 / 6.0).abs() < 1e-6 && w[2..] == [0.0, 0.0],
            "{w:?}"
        );
    }

    #[test]
    fn a_correction_chooses_and_does_not_weigh() {
        let sigmoid = Experts { score: Score::Sigmoid, top_k: 1, scale: 2.0, renormalise: false, ..PLAIN };
        assert_eq!(weights(sigmoid, &[0.0; 4], Some(&[0.0, 0.0, 0.1, 0.0])), [0.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn groups_are_chosen_first() {
        let by_best = Groups { count: 2, kept: 1, two_best: false };
        let logits = [3.0, 0.0, 2.0, 2.0];
        let grouped = |two_best| Experts { groups: Some(Groups { two_best, ..by_best }), ..PLAIN };
        let chosen = |w: Vec<f32>| w.iter().map(|x| *x > 0.0).collect::<Vec<_>>();
        assert_eq!(chosen(weights(grouped(false), &logits, None)), [true, true, false, false]);
        // Of softmax's scores the larger exceeds two smaller ones; sigmoid's are nearer.
        let sums = Experts { score: Score::Sigmoid, ..grouped(true) };
        assert_eq!(chosen(weights(sums, &logits, None)), [false, false, true, true]);
    }
}
