use super::*;
use tessera_weights::bytes::Bytes;
use tessera_weights::dtype::DType;
use tessera_weights::tensor::MatrixData;

/// Why a program of these operations over three slots of one shape is refused.
fn refused(ops: impl Fn([Act; 3], MatrixId, VectorId) -> Vec<Op>) -> Option<String> {
    let mut p = Program::new(4);
    let bytes = Bytes::from_vec(vec![0; 64]);
    let square = Matrix { rows: 4, cols: 4, data: MatrixData::Dense { dtype: DType::F32, bytes } };
    let (table, vector) = (p.matrix(square), p.vector(vec![1.0; 4]));
    let acts = [(); 3].map(|()| p.slot(Rows::All, 4));
    let picked = p.slot(Rows::Picked, 4);
    let embed = Op::Embed { table, ids: Ids::Tokens, scale: 1.0, accumulate: false, out: acts[0] };
    p.ops.push(embed);
    p.ops.extend(ops(acts, table, vector));
    p.ops.push(Op::Pick { x: acts[0], out: picked });
    p.begin_head(picked);
    let out = p.logits.unwrap();
    p.ops.push(Op::Linear { x: picked, weight: table, bias: None, accumulate: false, out });
    p.check().err().map(|e| e.to_string())
}

#[test]
fn what_is_read_was_written_and_is_not_written_meanwhile() {
    assert_eq!(refused(|_, _, _| vec![]), None);
    let linear = |x, weight, accumulate, out| Op::Linear { x, weight, bias: None, accumulate, out };
    let norm = |x, weight, out| Op::Norm {
        kind: NormKind::Rms,
        x,
        each: 4,
        weight: Some(weight),
        bias: None,
        eps: 0.0,
        out,
    };
    let found = refused(|[a, ..], m, _| vec![linear(a, m, true, a)]);
    assert_eq!(found.as_deref(), Some("operation 1 (linear): slot 1 is both input and output"));
    // A norm may be made in place, but not over a part of its input.
    assert_eq!(refused(|[a, ..], _, w| vec![norm(a, w, a)]), None);
    let half = |a: Act| (a.part(0, 2), a.part(1, 2));
    let moved = |x, out| Op::Map { x, f: Function::Scale(2.0), out };
    let found = refused(|[a, ..], _, _| vec![moved(half(a).0, half(a).1)]);
    assert_eq!(found.as_deref(), Some("operation 1 (map): slot 1 is both input and output"));
    let found = refused(|[a, b, _], m, _| vec![linear(b, m, false, a)]);
    let unset = "operation 1 (linear): slot 2 is read before anything was written to it";
    assert_eq!(found.as_deref(), Some(unset));
    let found = refused(|[a, b, _], m, _| vec![linear(a, m, true, b)]);
    assert_eq!(found.as_deref(), Some(unset));
    // Half of a slot is not the slot.
    let found = refused(|[a, b, _], m, _| vec![moved(a.part(0, 2), b.part(0, 2)), linear(b, m, true, a)]);
    assert_eq!(
        found.as_deref(),
        Some("operation 2 (linear): slot 2 is read before anything was written to it")
    );
    // Each operation alone is fine.
    assert_eq!(refused(|[a, b, _], m, w| vec![norm(a, w, b), linear(b, m, true, a)]), None);
}
