//! Attention whose keys and values come from one narrow row (DeepSeek V2 and V3): HF transformers,
//! `modeling_deepseek_v3.py`. The heads are made from it and kept, each with the dimensions that turn first, which changes
//! no score; values are as wide as keys, and what lies behind them is not read.

use tessera_compute::program::{Act, NormKind, Op};
use tessera_weights::arch::{Latent, Role};

use super::{Attended, Builder, DecoderError, Work};

impl Builder<'_> {
    /// Query, key and value heads.
    pub(super) fn latent(&mut self, layer: usize, x: Act, latent: Latent) -> Result<Attended, DecoderError> {
        let Latent { q_rank, kv_rank, nope, rope, value } = latent;
        let (heads, dim, at) = (self.heads().q, nope + rope, Some(layer));
        if value > dim {
            return Err(DecoderError::Together {
                layer,
                what: "latent attention with values wider than its keys",
            });
        }
        if self.heads().kv != heads {
            return Err(DecoderError::Together { layer, what: "latent attention with shared key heads" });
        }
        let lying = self.slot(Work::LatentQuery, heads * dim);
        match q_rank {
            None => self.linear(layer, Role::Q, x, lying)?,
            Some(rank) => {
                let narrow = self.slot(Work::Query, rank);
                self.linear(layer, Role::Own("q_a_proj"), x, narrow)?;
                self.own_norm(layer, "q_a_layernorm", narrow)?;
                self.linear(layer, Role::Own("q_b_proj"), narrow, lying)?;
            }
        }
        let narrow = self.slot(Work::Latent, kv_rank + rope);
        self.linear(layer, Role::Own("kv_a_proj_with_mqa"), x, narrow)?;
        let (row, turning) = (narrow.part(0, kv_rank), narrow.part(kv_rank, rope));
        self.own_norm(layer, "kv_a_layernorm", row)?;
        let each = nope + value;
        let kv = self.slot(Work::LatentKv, heads * each);
        self.linear(layer, Role::Own("kv_b_proj"), row, kv)?;
        // The same once more, for a form of attention that is not here.
        for name in ["w_uk", "w_uv"] {
            self.weights.leave(at, Role::Own(name))?;
        }

        let wide = heads * dim;
        let all = self.slot(Work::LatentHeads, 3 * wide);
        let [q, k, v] = [0, 1, 2].map(|i| all.part(i * wide, wide));
        let after = |act: Act, from: usize| act.part(from, act.width - from);
        let mut copy = |x, from, each, out| {
            self.push(Op::Columns { x, from, each, count: heads, to: dim, out });
        };
        copy(after(lying, nope), dim, rope, q);
        copy(lying, dim, nope, after(q, rope));
        copy(turning, 0, rope, k);
        copy(kv, each, nope, after(k, rope));
        copy(after(kv, nope), each, value, v);
        if value < dim {
            copy(lying, dim, dim - value, after(v, value));
        }
        Ok(Attended { q, k, v, gate: None })
    }

    /// What attention gives, without what lies behind the values.
    pub(super) fn latent_values(&mut self, mixed: Act, latent: Latent) -> Act {
        let (heads, dim, value) = (self.heads().q, latent.nope + latent.rope, latent.value);
        if value == dim {
            return mixed;
        }
        let out = self.slot(Work::GatedMixed, heads * value);
        self.push(Op::Columns { x: mixed, from: dim, each: value, count: heads, to: value, out });
        out
    }

    fn own_norm(&mut self, layer: usize, name: &'static str, x: Act) -> Result<(), DecoderError> {
        let norm = self.weights.norm(&mut self.p, Some(layer), Role::Own(name), 0.0)?;
        let (kind, weight, bias, eps) = (NormKind::Rms, Some(norm.weight), norm.bias, self.block.latent_eps);
        self.push(Op::Norm { kind, x, each: x.width, weight, bias, eps, out: x });
        Ok(())
    }
}
