//! Attention whose keys and values come from one narrow row (DeepSeek V2 and V3): HF transformers,
//! `modeling_deepseek_v3.py`. That row is what is kept of a token. A head's key is `w_uk c` beside the dimensions that turn,
//! its value `w_uv c`, so that `q · key = (w_ukᵀ q) · c + …` and `Σ p value = w_uv Σ p c`: all heads attend to the rows
//! themselves, as to one key head, each through its own two matrices.

use tessera_compute::program::{Act, Heads, MatrixId, NormKind, Op};
use tessera_weights::arch::{Latent, Role};

use super::{Attended, Builder, DecoderError, Work};

/// The matrices of all heads that queries go through, and those that the results go through.
type Absorbed = [MatrixId; 2];

/// See [`Builder::absorbed`].
#[derive(Clone, Copy)]
pub(super) struct Through {
    all: Absorbed,
    single: Option<Absorbed>,
}

impl Builder<'_> {
    /// Query heads, and the row that is key and value of all of them: the dimensions that turn, then the latent.
    pub(super) fn latent(
        &mut self,
        layer: usize,
        x: Act,
        latent: Latent,
    ) -> Result<(Attended, Heads, Through), DecoderError> {
        let Latent { q_rank, kv_rank, nope, rope, .. } = latent;
        let (heads, dim) = (self.heads().q, nope + rope);
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

        let kept = self.slot(Work::LatentKv, rope + kv_rank);
        for (x, out) in [(turning, kept.part(0, rope)), (row, kept.part(rope, kv_rank))] {
            self.push(Op::Columns { x, from: 0, each: x.width, count: 1, to: x.width, out });
        }
        let through = self.absorbed(layer, latent)?;
        let to = rope + kv_rank;
        let q = self.slot(Work::LatentHeads, heads * to);
        let after = |act: Act, from: usize| act.part(from, act.width - from);
        let query = |b: &mut Self, [weight, _]: Absorbed, out: Act| {
            let x = after(lying, nope);
            b.push(Op::Columns { x, from: dim, each: rope, count: heads, to, out });
            b.push(Op::PerHead { x: lying, from: dim, weight, count: heads, to, out: after(out, rope) });
        };
        query(self, through.all, q);
        if let Some(matrices) = through.single {
            let single = self.slot(Work::LatentSingle, q.width);
            let out = self.slot(Work::LatentChosen, q.width);
            query(self, matrices, single);
            self.push(Op::ByCall { x: q, single, out });
            return Ok((
                Attended { q: out, k: kept, v: kept, gate: None },
                Heads { q: heads, kv: 1, dim: to },
                through,
            ));
        }
        Ok((Attended { q, k: kept, v: kept, gate: None }, Heads { q: heads, kv: 1, dim: to }, through))
    }

    /// What attention gives, as value heads.
    pub(super) fn latent_values(&mut self, mixed: Act, latent: Latent, through: Through) -> Act {
        let Latent { kv_rank, rope, value, .. } = latent;
        let (count, from) = (self.heads().q, rope + kv_rank);
        let x = mixed.part(rope, mixed.width - rope);
        let mut values = |work, [_, weight]: Absorbed| {
            let out = self.slot(work, count * value);
            self.push(Op::PerHead { x, from, weight, count, to: value, out });
            out
        };
        let all = values(Work::LatentValues, through.all);
        let Some(matrices) = through.single else { return all };
        let single = values(Work::LatentSingle, matrices);
        let out = self.slot(Work::GatedMixed, count * value);
        self.push(Op::ByCall { x: all, single, out });
        out
    }

    /// `w_uk` and `w_uv`, which MLC's folders hold beside `kv_b_proj`, of which they are the halves: no scheme quantises
    /// them. MLC itself takes `kv_b_proj` for a call of several tokens, which makes a difference where that is quantised.
    fn absorbed(&mut self, layer: usize, latent: Latent) -> Result<Through, DecoderError> {
        let at = Some(layer);
        let [keys, values] =
            ["w_uk", "w_uv"].map(|name| self.weights.planes(&mut self.p, at, Role::Own(name)));
        let halves = (self.heads().q, latent.nope);
        let role = Role::Own("kv_b_proj");
        match keys?.zip(values?) {
            None => Ok(Through { all: self.weights.halves(&mut self.p, at, role, halves)?, single: None }),
            Some(own) if self.block.absorbed && self.weights.is_quantised(at, role)? => {
                let all = self.weights.halves(&mut self.p, at, role, halves)?;
                Ok(Through { all, single: Some(own.into()) })
            }
            Some(own) => {
                self.weights.leave(at, role)?;
                Ok(Through { all: own.into(), single: None })
            }
        }
    }

    fn own_norm(&mut self, layer: usize, name: &'static str, x: Act) -> Result<(), DecoderError> {
        let norm = self.weights.norm(&mut self.p, Some(layer), Role::Own(name), 0.0)?;
        let (kind, weight, bias, eps) = (NormKind::Rms, Some(norm.weight), norm.bias, self.block.latent_eps);
        self.push(Op::Norm { kind, x, each: x.width, weight, bias, eps, out: x });
        Ok(())
    }
}
