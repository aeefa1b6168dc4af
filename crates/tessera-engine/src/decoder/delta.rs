//! A layer whose place of attention a gated delta net takes (Qwen3.5): see the spec in HF transformers,
//! `modeling_qwen3_next.py`, `Qwen3NextGatedDeltaNet`.

use tessera_compute::program::{Act, DeltaHeads, Function, NormKind, Op};
use tessera_weights::arch::{DeltaNet, Role};
use tessera_weights::config::Activation;

use super::{Builder, DecoderError, Work};

/// Added to the sum of the squares of a query or key head.
const EPS: f32 = 1e-6;

impl Builder<'_> {
    /// What the layer's last matrix reads.
    pub(super) fn delta(&mut self, layer: usize, x: Act, net: DeltaNet) -> Result<Act, DecoderError> {
        let DeltaNet { key_heads: keys, value_heads: values, key_dim, value_dim, kernel, eps } = net;
        let (at, own) = (Some(layer), Role::Own);
        let (narrow, wide) = (keys * key_dim, values * value_dim);
        let channels = 2 * narrow + wide;
        let (input, past) = (self.slot(Work::DeltaIn, channels), self.slot(Work::DeltaPast, channels));
        let (z, gates) = (self.slot(Work::DeltaZ, wide), self.slot(Work::DeltaGates, 2 * values));
        let (a, b) = (gates.part(0, values), gates.part(values, values));
        for (name, out) in [("in_proj_qkv", input), ("in_proj_z", z), ("in_proj_a", a), ("in_proj_b", b)] {
            self.linear(layer, own(name), x, out)?;
        }

        let state = self.p.states.len();
        self.p.states.extend([(kernel - 1) * channels, values * key_dim * value_dim]);
        let weight = self.weights.values(&mut self.p, at, own("conv1d"), channels * kernel)?;
        let activation = Activation::Silu;
        self.push(Op::Conv { x: input, weight, kernel, state, activation: Some(activation), out: past });

        // Query and key heads of length 1: x / sqrt(sum of squares + EPS).
        let both = past.part(0, 2 * narrow);
        let n = key_dim as f32;
        let (kind, weight, bias) = (NormKind::Rms, None, None);
        self.push(Op::Norm { kind, x: both, each: key_dim, weight, bias, eps: EPS / n, out: both });
        self.push(Op::Map { x: both, f: Function::Scale(n.sqrt().recip()), out: both });

        let (q, k, v) = (past.part(0, narrow), past.part(narrow, narrow), past.part(2 * narrow, wide));
        let a_log = self.weights.values(&mut self.p, at, own("A_log"), values)?;
        let dt_bias = self.weights.values(&mut self.p, at, own("dt_bias"), values)?;
        let heads = DeltaHeads { keys, values, key: key_dim, value: value_dim };
        let mixed = self.slot(Work::DeltaOut, wide);
        self.push(Op::Delta { q, k, v, a, b, a_log, dt_bias, heads, state: state + 1, out: mixed });

        let norm = self.weights.norm(&mut self.p, at, own("norm"), 0.0)?;
        let (weight, bias) = (Some(norm.weight), norm.bias);
        self.push(Op::Norm { kind, x: mixed, each: value_dim, weight, bias, eps, out: mixed });
        let out = self.slot(Work::Mixed, wide);
        self.push(Op::Gate { gate: z, up: mixed, activation, out });
        Ok(out)
    }
}
