//! Recurrences in plain f32: what a row does to a sequence's state. Formulas: HF transformers, `modeling_qwen3_next.py`
//! (`torch_recurrent_gated_delta_rule`, `causal_conv1d_update`); "Eagle and Finch" (Peng et al. 2024), section 4, for RWKV 6.

/// What a state is multiplied by, and how much of a new value it takes: `exp(-exp(a_log) softplus(a + dt_bias))` and
/// `sigmoid(b)`.
pub fn delta_gates(a: f32, b: f32, a_log: f32, dt_bias: f32) -> (f32, f32) {
    let x = a + dt_bias;
    let softplus = if x > 20.0 { x } else { x.exp().ln_1p() };
    ((-a_log.exp() * softplus).exp(), 1.0 / (1.0 + (-b).exp()))
}

/// One row of one value head: `S *= decay`, `S += k ⊗ beta (v - Sᵀ k)`, `out = Sᵀ q / √key`, with `S [key, value]`.
pub fn delta_row(
    state: &mut [f32],
    (q, k, v): (&[f32], &[f32], &[f32]),
    (decay, beta): (f32, f32),
    out: &mut [f32],
) {
    let width = v.len();
    let mut held = vec![0.0f32; width];
    for (row, k) in state.chunks_exact_mut(width).zip(k) {
        for (s, held) in row.iter_mut().zip(&mut held) {
            *s *= decay;
            *held = k.mul_add(*s, *held);
        }
    }
    let change: Vec<f32> = v.iter().zip(&held).map(|(v, held)| (v - held) * beta).collect();
    out.fill(0.0);
    for ((row, k), q) in state.chunks_exact_mut(width).zip(k).zip(q) {
        for ((s, d), o) in row.iter_mut().zip(&change).zip(out.iter_mut()) {
            *s = k.mul_add(*d, *s);
            *o = q.mul_add(*s, *o);
        }
    }
    let scale = 1.0 / (k.len() as f32).sqrt();
    out.iter_mut().for_each(|o| *o *= scale);
}

/// One row of one head of RWKV 6: `out = Σ_j r[j] (bonus[j] k[j] v + S[j])`, then `S[j] = k[j] v + keep[j] S[j]`, with
/// `S [key, value]` and `keep` what [`wkv_keep`] makes of the decay.
pub fn wkv_row(
    state: &mut [f32],
    (r, k, v): (&[f32], &[f32], &[f32]),
    (keep, bonus): (&[f32], &[f32]),
    out: &mut [f32],
) {
    out.fill(0.0);
    for (j, row) in state.chunks_exact_mut(v.len()).enumerate() {
        let (r, k, bonus, keep) = (r[j], k[j], bonus[j], keep[j]);
        for ((s, v), o) in row.iter_mut().zip(v).zip(out.iter_mut()) {
            let new = k * v;
            *o = r.mul_add(bonus.mul_add(new, *s), *o);
            *s = keep.mul_add(*s, new);
        }
    }
}

/// `exp(-exp(decay))`.
pub fn wkv_keep(decay: f32) -> f32 {
    (-decay.exp()).exp()
}

/// `Σ_j weight[j] * seen[j]`, `j` ascending: one column of one row of a causal convolution.
pub fn conv(weight: &[f32], seen: impl Iterator<Item = f32>) -> f32 {
    weight.iter().zip(seen).fold(0.0, |sum, (w, x)| sum + w * x)
}
