//! A layer of RWKV 6: a recurrence in attention's place, and an MLP that sees the token before. See "Eagle and Finch" (Peng
//! et al. 2024), section 4.

use tessera_compute::program::{Act, Factor, Function, NormKind, Op, Vector, VectorId, WkvHeads};
use tessera_weights::arch::{Place, Role, Rwkv};
use tessera_weights::config::Activation;

use super::{Builder, DecoderError, Linear, Work};

impl Builder<'_> {
    /// The whole layer.
    pub(super) fn rwkv(&mut self, layer: usize, rwkv: Rwkv) -> Result<(), DecoderError> {
        let (at, x, hidden) = (Some(layer), self.x, self.config.hidden_size);
        self.norm(at, Place::Embed, x, x)?;
        let normed = self.slot(Work::Normed, hidden);

        let y = self.norm(at, Place::PreAttention, x, normed)?;
        let gated = self.time_mix(layer, y, rwkv)?;
        self.branch(layer, Role::Out, gated, Place::PostAttention)?;

        let y = self.norm(at, Place::PreMlp, x, normed)?;
        let mixed = self.channel_mix(layer, y)?;
        self.push(Op::Add { x: mixed, scale: 1.0, out: x });
        if rwkv.rescale_every > 0 && (layer + 1).is_multiple_of(rwkv.rescale_every) {
            self.push(Op::Map { x, f: Function::Scale(0.5), out: x });
        }
        Ok(())
    }

    /// What the matrix that ends the recurrence reads.
    fn time_mix(&mut self, layer: usize, y: Act, rwkv: Rwkv) -> Result<Act, DecoderError> {
        let (at, hidden, own) = (Some(layer), self.config.hidden_size, Role::Own);
        let heads = WkvHeads { count: self.config.num_attention_heads, dim: self.config.head_dim };
        let towards = self.shift(y);
        let (mixed, share) = (self.slot(Work::Shifted, hidden), self.slot(Work::Share, hidden));

        // How much of the token before each of five rows takes goes by both tokens.
        let narrow = self.slot(Work::Shares, 5 * rwkv.mix);
        let factor = self.channels(layer, "attention.time_maa_x")?;
        self.push(Op::Blend { x: y, towards, factor: Factor::Columns(factor), out: mixed });
        let weight = self.weights.turned(&mut self.p, at, own("attention.time_maa_w1"))?;
        self.push(Op::Linear { x: mixed, weight, bias: None, accumulate: false, out: narrow });
        self.push(Op::Map { x: narrow, f: TANH, out: narrow });

        let rows = [Work::Decay, Work::Key, Work::Value, Work::Receptance, Work::RwkvGate];
        let [decay, k, v, r, gate] = rows.map(|work| self.slot(work, hidden));
        let parts = [
            ("attention.time_maa_w", "", decay),
            ("attention.time_maa_k", "attention.key", k),
            ("attention.time_maa_v", "attention.value", v),
            ("attention.time_maa_r", "attention.receptance", r),
            ("attention.time_maa_g", "attention.gate", gate),
        ];
        let widen = self.weights.turned(&mut self.p, at, own("attention.time_maa_w2"))?;
        for (i, (maa, projection, out)) in parts.into_iter().enumerate() {
            let x = narrow.part(i * rwkv.mix, rwkv.mix);
            let weight = widen.after(i);
            let bias = Some(self.channels(layer, maa)?);
            self.push(Op::Linear { x, weight, bias, accumulate: false, out: share });
            self.push(Op::Blend { x: y, towards, factor: Factor::Each(share), out: mixed });
            match projection {
                "" => self.decay(layer, mixed, rwkv, out)?,
                name => self.linear(layer, own(name), mixed, out)?,
            }
        }

        let state = self.p.states.len();
        self.p.states.push(heads.count * heads.dim * heads.dim);
        let bonus = self.weights.values(&mut self.p, at, own("attention.time_faaaa"), hidden)?;
        let out = self.slot(Work::Mixed, hidden);
        self.push(Op::Wkv { r, k, v, decay, bonus, heads, state, out });

        let norm = self.weights.norm(&mut self.p, at, own("attention.ln_x"), 0.0)?;
        let (kind, weight, bias, eps) = (NormKind::Layer, Some(norm.weight), norm.bias, rwkv.group_eps);
        self.push(Op::Norm { kind, x: out, each: heads.dim, weight, bias, eps, out });
        let gated = self.slot(Work::GatedMixed, hidden);
        self.push(Op::Gate { gate, up: out, activation: Activation::Silu, out: gated });
        Ok(gated)
    }

    /// `time_decay + tanh(x w1) w2`.
    fn decay(&mut self, layer: usize, x: Act, rwkv: Rwkv, out: Act) -> Result<(), DecoderError> {
        let (at, own) = (Some(layer), Role::Own);
        let narrow = self.slot(Work::NarrowDecay, rwkv.decay);
        let weight = self.weights.turned(&mut self.p, at, own("attention.time_decay_w1"))?;
        self.push(Op::Linear { x, weight, bias: None, accumulate: false, out: narrow });
        self.push(Op::Map { x: narrow, f: TANH, out: narrow });
        let weight = self.weights.turned(&mut self.p, at, own("attention.time_decay_w2"))?;
        let bias = Some(self.channels(layer, "attention.time_decay")?);
        self.push(Op::Linear { x: narrow, weight, bias, accumulate: false, out });
        Ok(())
    }

    /// What the MLP adds.
    fn channel_mix(&mut self, layer: usize, y: Act) -> Result<Act, DecoderError> {
        let (hidden, wide) = (self.config.hidden_size, self.config.intermediate_size);
        let towards = self.shift(y);
        let mixed = self.slot(Work::Shifted, hidden);
        let key = self.slot(Work::Gated, wide);
        let factor = Factor::Columns(self.channels(layer, "feed_forward.time_maa_k")?);
        self.push(Op::Blend { x: y, towards, factor, out: mixed });
        self.linear(layer, Role::Up, mixed, key)?;
        self.push(Op::Map { x: key, f: Function::Activation(self.block.activation), out: key });
        let value = self.slot(Work::Value, hidden);
        let Linear { weight, bias } = self.weights.linear(&mut self.p, Some(layer), Role::Down)?;
        self.push(Op::Linear { x: key, weight, bias, accumulate: false, out: value });

        let factor = Factor::Columns(self.channels(layer, "feed_forward.time_maa_r")?);
        self.push(Op::Blend { x: y, towards, factor, out: mixed });
        let gate = self.slot(Work::Receptance, hidden);
        self.linear(layer, Role::Own("feed_forward.receptance"), mixed, gate)?;
        let out = self.slot(Work::Branch, hidden);
        self.push(Op::Gate { gate, up: value, activation: Activation::Sigmoid, out });
        Ok(out)
    }

    /// From each row to the one before it in its sequence, which is zero at the beginning: their difference.
    fn shift(&mut self, x: Act) -> Act {
        let out = self.slot(Work::Shift, x.width);
        let state = self.p.states.len();
        self.p.states.push(x.width);
        let weight = self.p.vector(Vector::Constant([1.0, -1.0].repeat(x.width)));
        self.push(Op::Conv { x, weight, kernel: 2, state, activation: None, out });
        out
    }

    /// A parameter with a value for each column of the residual stream.
    fn channels(&mut self, layer: usize, name: &'static str) -> Result<VectorId, DecoderError> {
        self.weights.values(&mut self.p, Some(layer), Role::Own(name), self.config.hidden_size)
    }
}

/// `tanh`.
const TANH: Function = Function::Cap(1.0);
