use super::*;
use crate::backend::Backend;
use crate::cpu::Cpu;
use crate::reference::Reference;
use tessera_weights::dtype::DType;
use tessera_weights::scheme::{GroupFormat, Layout};
use tessera_weights::tensor::Form;

/// These operations over three slots of one shape, with a matrix and a vector that are nowhere.
fn program(ops: impl Fn([Act; 3], MatrixId, VectorId) -> Vec<Op>) -> Program {
    let mut p = Program::new(4);
    let square = Weight::stored("embed.weight".to_owned(), 4, 4, Form::Dense(DType::F32));
    let norm = Parameter { name: "norm.weight".to_owned(), shape: vec![4], plus: 1.0 };
    let (table, vector) = (p.weight(square), p.vector(Vector::Parameter(norm)));
    let acts = [(); 3].map(|()| p.slot(Rows::All, 4));
    let picked = p.slot(Rows::Picked, 4);
    let embed = Op::Embed { table, ids: Ids::Tokens, scale: 1.0, accumulate: false, out: acts[0] };
    p.ops.push(embed);
    p.ops.extend(ops(acts, table, vector));
    p.ops.push(Op::Pick { x: acts[0], out: picked });
    p.begin_head(picked);
    let out = p.logits.unwrap();
    p.ops.push(Op::Linear { x: picked, weight: table, bias: None, accumulate: false, out });
    p
}

/// Why such a program is refused.
fn refused(ops: impl Fn([Act; 3], MatrixId, VectorId) -> Vec<Op>) -> Option<String> {
    program(ops).check().err().map(|e| e.to_string())
}

fn rms(x: Act, weight: VectorId, out: Act) -> Op {
    Op::Norm { kind: NormKind::Rms, x, each: 4, weight: Some(weight), bias: None, eps: 0.0, out }
}

#[test]
fn a_program_prints_plans_and_checks_without_a_folder() {
    let p = program(|[a, b, _], m, w| {
        vec![rms(a, w, b), Op::Linear { x: b, weight: m, bias: None, accumulate: true, out: a }]
    });
    p.check().unwrap();
    let printed = "   0 embed       a1[0..4] = embed.weight [4, 4] float32
   1 norm        a2[0..4] = a1[0..4], norm.weight [4] + 1
   2 linear      a1[0..4] += a2[0..4], embed.weight [4, 4] float32
   3 pick        p4[0..4] = a1[0..4]
head
   4 linear      p0[0..4] = p4[0..4], embed.weight [4, 4] float32
";
    assert_eq!(p.to_string(), printed);
    // Five slots of 4, of which the CPU needs no more than four, an input once more, and the logits as a copy.
    assert_eq!(Reference.workspace_len(&p, 10), 10 * (5 * 4 + 4) * 4);
    assert_eq!(Cpu::default().workspace_len(&p, 10), 10 * (4 * 4 + 4 + 4) * 4);
}

#[test]
fn a_weight_that_cannot_be_is_refused_by_its_name() {
    let refused = |change: &dyn Fn(&mut Weight)| {
        let mut p = program(|_, _, _| vec![]);
        change(&mut p.weights[0]);
        p.check().unwrap_err().to_string()
    };
    let int4 = |layout| Form::Grouped { format: GroupFormat::INT4, layout, scale: DType::F16 };
    let found = refused(&|w| (w.copies, w.form) = (2, int4(Layout::Kn)));
    assert!(found.contains("embed.weight is 2 * [4, 4] int4 in groups of 32, transposed, float16 scales"));
    assert!(refused(&|w| w.form = Form::Dense(DType::U32)).contains("embed.weight is [4, 4] uint32"));
    assert!(refused(&|w| w.copies = 0).contains("embed.weight is 0 * [4, 4] float32: nothing"));
    assert!(refused(&|w| w.cols = usize::MAX).contains("more than can be counted"));
    let copy = |weight: MatrixId| weight.after(1);
    let linear = |[a, b, _]: [Act; 3], m| {
        vec![Op::Linear { x: a, weight: copy(m), bias: None, accumulate: false, out: b }]
    };
    let found = program(|acts, m, _| linear(acts, m)).check().unwrap_err().to_string();
    assert_eq!(found, "operation 1 (linear): 1 matrices of embed.weight from 1 on, it has 1");
}

#[test]
fn what_is_read_was_written_and_is_not_written_meanwhile() {
    assert_eq!(refused(|_, _, _| vec![]), None);
    let linear = |x, weight, accumulate, out| Op::Linear { x, weight, bias: None, accumulate, out };
    let norm = rms;
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
