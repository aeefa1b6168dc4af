//! Whether the shapes of one operation fit.

use tessera_weights::arch::Experts;

use super::{
    Attend, DeltaHeads, Factor, Heads, Ids, Mask, MatrixId, Op, Program, Rows, SlotShape, VectorId, WkvHeads,
};

/// What does not fit, with both values.
pub(super) fn op(p: &Program, op: &Op) -> Result<(), String> {
    // `count` copies from `m` on; what they have in common.
    let copies = |m: MatrixId, count: usize| {
        let weight = p.weights.get(m.weight).ok_or_else(|| format!("no weight {}", m.weight))?;
        let (from, name, has) = (m.copy, &weight.name, weight.copies);
        let end = from.checked_add(count).filter(|end| *end <= has);
        end.map(|_| weight).ok_or_else(|| format!("{count} matrices of {name} from {from} on, it has {has}"))
    };
    let matrix = |m: MatrixId| copies(m, 1);
    let vector = |v: Option<VectorId>, width: usize| match v.map(|v| (v, p.vectors.get(v.0))) {
        None => Ok(()),
        Some((_, Some(v))) if v.len() == width => Ok(()),
        Some((_, Some(v))) => Err(format!("a vector has {} values, needed are {width}", v.len())),
        Some((v, None)) => Err(format!("no vector {}", v.0)),
    };
    match *op {
        Op::Embed { table, ids, out, .. } => {
            let (m, o) = (matrix(table)?, p.shape(out)?);
            same("width", o.width, m.cols)?;
            match ids {
                Ids::Tokens => same("vocabulary", m.rows, p.vocab)?,
                Ids::First if m.rows == 0 => return Err("a table without rows".to_owned()),
                Ids::First | Ids::Positions => {}
            }
            rows(o, Rows::All)
        }
        Op::Norm { x, each, weight, bias, out, .. } => {
            let a = alike(p, x, out)?;
            if each == 0 || !a.width.is_multiple_of(each) {
                return Err(format!("{} columns are no whole parts of {each}", a.width));
            }
            let one =
                |v: Option<VectorId>| vector(v, each).or_else(|what| vector(v, a.width).map_err(|_| what));
            one(weight)?;
            one(bias)
        }
        Op::Linear { x, weight, bias, out, .. } => {
            let (a, m, o) = (p.shape(x)?, matrix(weight)?, p.shape(out)?);
            same("input width", a.width, m.cols)?;
            same("output width", o.width, m.rows)?;
            vector(bias, m.rows)?;
            rows(a, o.rows)
        }
        Op::Add { x, out, .. } | Op::Map { x, out, .. } => alike(p, x, out).map(|_| ()),
        Op::Gate { gate, up, out, .. } => {
            alike(p, gate, out)?;
            alike(p, up, out).map(|_| ())
        }
        Op::Attend(Attend { q, k, v, heads, layer, rope, mask, out, .. }) => {
            let Heads { q: queries, kv, dim } = heads;
            let fits = queries > 0 && kv > 0 && queries % kv == 0 && dim > 0;
            fits.then_some(()).ok_or_else(|| format!("{queries} query heads, {kv} key heads of {dim}"))?;
            for (act, count) in [(q, queries), (k, kv), (v, kv)] {
                let a = p.shape(act)?;
                same("width of the heads", a.width, count * dim)?;
                rows(a, Rows::All)?;
            }
            same("output width", p.shape(out)?.width, queries * dim)?;
            let kept = p.kv.get(layer).ok_or_else(|| format!("no layer {layer}"))?;
            same("key heads", kv, kept.heads)?;
            same("width of a kept head", dim, kept.dim)?;
            if let Some(rope) = rope {
                let rope = p.ropes.get(rope).ok_or_else(|| format!("no angles {rope}"))?;
                let turns = rope.dim > 0 && rope.dim.is_multiple_of(2) && rope.dim <= dim;
                turns.then_some(()).ok_or_else(|| format!("heads of {dim}, angles for {}", rope.dim))?;
            }
            match mask {
                Mask::Window(0) | Mask::CallWindow(0) => Err("a window of no positions".to_owned()),
                Mask::Cache { window, sink } if sink >= window => {
                    Err(format!("a cache of {window} positions of which {sink} stay"))
                }
                _ => Ok(()),
            }
        }
        Op::ByPosition { x, scale, out } => {
            rows(alike(p, x, out)?, Rows::All)?;
            (scale.floor > 0.0).then_some(()).ok_or_else(|| format!("steps of {} positions", scale.floor))
        }
        Op::Conv { x, weight, kernel, state, out, .. } => {
            let a = alike(p, x, out)?;
            rows(a, Rows::All)?;
            if kernel < 2 {
                return Err(format!("a convolution over {kernel} rows"));
            }
            vector(Some(weight), a.width * kernel)?;
            state_of(p, state, (kernel - 1) * a.width)
        }
        Op::Blend { x, towards, factor, out } => {
            let a = alike(p, x, out)?;
            alike(p, towards, out)?;
            match factor {
                Factor::Columns(factor) => vector(Some(factor), a.width),
                Factor::Each(factor) => alike(p, factor, out).map(|_| ()),
            }
        }
        Op::Wkv { r, k, v, decay, bonus, heads, state, out } => {
            let WkvHeads { count, dim } = heads;
            if count == 0 || dim == 0 {
                return Err(format!("{count} heads of {dim}"));
            }
            for act in [r, k, v, decay, out] {
                let shape = p.shape(act)?;
                same("width of the heads", shape.width, count * dim)?;
                rows(shape, Rows::All)?;
            }
            vector(Some(bonus), count * dim)?;
            state_of(p, state, count * dim * dim)
        }
        Op::Delta { q, k, v, a, b, a_log, dt_bias, heads, state, out } => {
            let DeltaHeads { keys, values, key, value } = heads;
            if keys == 0 || values == 0 || !values.is_multiple_of(keys) || key == 0 || value == 0 {
                return Err(format!("{values} value heads of {value}, {keys} key heads of {key}"));
            }
            let wide = values * value;
            for (act, width) in
                [(q, keys * key), (k, keys * key), (v, wide), (a, values), (b, values), (out, wide)]
            {
                let shape = p.shape(act)?;
                same("width of the heads", shape.width, width)?;
                rows(shape, Rows::All)?;
            }
            vector(Some(a_log), values)?;
            vector(Some(dt_bias), values)?;
            state_of(p, state, values * key * value)
        }
        Op::Columns { x, from, each, count, to, out } => {
            let (a, o) = (p.shape(x)?, p.shape(out)?);
            let end = |step: usize| (count.saturating_sub(1)).saturating_mul(step).saturating_add(each);
            if each == 0 || count == 0 || to < each || end(from) > a.width || end(to) > o.width {
                let (a, o) = (a.width, o.width);
                return Err(format!(
                    "{count} parts of {each} columns, every {from} of {a} to every {to} of {o}"
                ));
            }
            if x.slot == out.slot {
                return Err(format!("slot {} is both input and output", x.slot.0));
            }
            rows(a, o.rows)
        }
        Op::PerHead { x, from, weight, count, to, out } => {
            let (a, o) = (p.shape(x)?, p.shape(out)?);
            let one = copies(weight, count)?;
            let end =
                |step: usize, each: usize| count.saturating_sub(1).saturating_mul(step).saturating_add(each);
            if one.rows > to || end(from, one.cols) > a.width || end(to, one.rows) > o.width {
                let (rows, cols, a, o) = (one.rows, one.cols, a.width, o.width);
                return Err(format!(
                    "{count} heads: {cols} of {a} columns, every {from}, to {rows} of {o}, every {to}"
                ));
            }
            if count == 0 || x.slot == out.slot {
                return Err(format!("{count} heads from slot {} to slot {}", x.slot.0, out.slot.0));
            }
            rows(a, o.rows)
        }
        Op::ByCall { x, single, out } => {
            alike(p, x, out)?;
            alike(p, single, out).map(|_| ())
        }
        Op::Route { logits, experts, correction, out } => {
            let a = alike(p, logits, out)?;
            same("number of experts", a.width, experts.count)?;
            let Experts { count, top_k, groups, .. } = experts;
            if top_k == 0 || top_k > count {
                return Err(format!("{top_k} of {count} experts"));
            }
            match groups {
                Some(g)
                    if g.count == 0 || !count.is_multiple_of(g.count) || g.kept == 0 || g.kept > g.count =>
                {
                    Err(format!("{} of {} groups of {count} experts", g.kept, g.count))
                }
                _ => vector(correction, count),
            }
        }
        Op::Experts { x, weights, gate_up, down, count, work, out, .. } => {
            let (a, b, w) = (alike(p, x, out)?, p.shape(weights)?, p.shape(work)?);
            same("number of experts", b.width, count)?;
            rows(b, a.rows)?;
            rows(w, a.rows)?;
            let (up, down) = (copies(gate_up, count)?, copies(down, count)?);
            same("rows of an expert's gate and up", up.rows, 2 * w.width)?;
            same("columns of an expert's gate and up", up.cols, a.width)?;
            same("rows of an expert's down", down.rows, a.width)?;
            same("columns of an expert's down", down.cols, w.width)
        }
        Op::Pick { x, out } => {
            let (a, o) = (p.shape(x)?, p.shape(out)?);
            same("output width", o.width, a.width)?;
            rows(a, Rows::All)?;
            rows(o, Rows::Picked)
        }
    }
}

fn state_of(p: &Program, state: usize, len: usize) -> Result<(), String> {
    let found = p.states.get(state).ok_or_else(|| format!("no state {state}"))?;
    same("values of the state", *found, len)
}

fn same(what: &str, found: usize, expected: usize) -> Result<(), String> {
    (found == expected).then_some(()).ok_or_else(|| format!("{what} is {found}, expected {expected}"))
}

fn rows(shape: SlotShape, expected: Rows) -> Result<(), String> {
    (shape.rows == expected).then_some(()).ok_or_else(|| "input and output rows differ".to_owned())
}

fn alike(p: &Program, x: super::Act, out: super::Act) -> Result<SlotShape, String> {
    let (a, o) = (p.shape(x)?, p.shape(out)?);
    same("output width", o.width, a.width)?;
    rows(a, o.rows)?;
    Ok(a)
}
