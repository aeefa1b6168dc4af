//! A program's operations one after another over one batch, for whoever looks at what each product reads and may put
//! another matrix in its place before it is computed: calibration.

use super::Interpreter;
use super::gemm::multiply;
use crate::backend::LoadError;
use crate::batch::{BatchError, Pools, Want};
use crate::functions::activate;
use crate::program::{MatrixId, Op, Program};
use crate::step::Step;
use crate::weights::Weights;
use std::ops::Range;
use tessera_weights::quantize::decode;
use tessera_weights::tensor::Matrix;

/// One pass, on its way. Its products are computed faster than the reference's, and their sums in another order.
pub struct Walk {
    interpreter: Interpreter,
    step: Step,
}

/// A product that an operation is to compute.
#[derive(Clone, Debug, PartialEq)]
pub struct Product {
    /// Of which matrix.
    pub matrix: MatrixId,
    /// Its inputs `[rows, cols]`; no rows where nothing was routed to it.
    pub inputs: Vec<f32>,
}

/// A walk that cannot be begun.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WalkError {
    /// The program.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
}

impl Walk {
    /// Before the first operation.
    pub fn new(
        program: Program,
        weights: &mut dyn Weights,
        pools: Pools,
        step: Step,
    ) -> Result<Walk, WalkError> {
        let mut interpreter = Interpreter::new(program, weights, pools)?;
        step.with(|batch| interpreter.begin(batch))?;
        Ok(Walk { interpreter, step })
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.interpreter.program
    }

    /// A matrix as it is now.
    pub fn matrix(&self, id: MatrixId) -> &Matrix {
        &self.interpreter.weights[id]
    }

    /// Puts another matrix of the same shape in the place of one.
    pub fn replace(&mut self, id: MatrixId, matrix: Matrix) {
        let old = self.matrix(id);
        assert_eq!((matrix.rows, matrix.cols), (old.rows, old.cols), "a matrix of the same shape");
        self.interpreter.weights.replace(id, matrix);
    }

    /// Which operations make the hidden state.
    pub fn body(&self) -> Range<usize> {
        0..self.interpreter.program.head
    }

    /// In how many rounds an operation multiplies: the second reads what the first made.
    pub fn rounds(&self, op: usize) -> usize {
        match self.interpreter.program.ops[op] {
            Op::Linear { .. } => 1,
            Op::Experts { .. } => 2,
            _ => 0,
        }
    }

    /// What an operation is going to multiply in a round, by the matrices as they are. All before it have run.
    pub fn products(&self, op: usize, round: usize) -> Vec<Product> {
        let read = |act| self.interpreter.read(act);
        match self.interpreter.program.ops[op] {
            Op::Linear { x, weight, .. } => vec![Product { matrix: weight, inputs: read(x) }],
            Op::Experts { x, weights, gate_up, down, count, activation, on_input, work, .. } => {
                let (rows, routed) = (read(x), read(weights));
                let expert = |e: usize| {
                    let chosen = rows.chunks_exact(x.width).zip(routed.chunks_exact(count));
                    let chosen = chosen.filter(|(_, routed)| routed[e] != 0.0);
                    let factor = |routed: &[f32]| if on_input { routed[e] } else { 1.0 };
                    let inputs: Vec<f32> =
                        chosen.flat_map(|(x, routed)| x.iter().map(move |x| factor(routed) * x)).collect();
                    if round == 0 {
                        return Product { matrix: gate_up.after(e), inputs };
                    }
                    let matrix = self.matrix(gate_up.after(e));
                    let mut wide = vec![0.0; inputs.len() / x.width * 2 * work.width];
                    multiply(&inputs, &decode(matrix), x.width, &mut wide);
                    let gated = wide.chunks_exact(2 * work.width).flat_map(|wide| {
                        let (gate, up) = wide.split_at(work.width);
                        gate.iter().zip(up).map(|(g, u)| activate(activation, *g) * u)
                    });
                    Product { matrix: down.after(e), inputs: gated.collect() }
                };
                (0..count).map(expert).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Runs an operation.
    pub fn run(&mut self, op: usize) {
        let op = self.interpreter.program.ops[op].clone();
        let Walk { interpreter, step } = self;
        if let Op::Linear { x, weight, bias, accumulate, out } = op {
            let mut o =
                if accumulate { interpreter.read(out) } else { vec![0.0; interpreter.read(out).len()] };
            if let Some(bias) = interpreter.vector(bias) {
                for row in o.chunks_exact_mut(bias.len()) {
                    row.iter_mut().zip(bias).for_each(|(o, b)| *o += b);
                }
            }
            let weight = &interpreter.weights[weight];
            multiply(&interpreter.read(x), &decode(weight), weight.cols, &mut o);
            interpreter.write(out, &o);
            return;
        }
        step.with(|batch| interpreter.run(&op, batch));
    }

    /// The hidden states of the picked rows, when the body has run.
    pub fn hidden(&self) -> Vec<f32> {
        self.interpreter.read(self.interpreter.program.result(Want::Hidden))
    }
}
