//! A program for people: one line an operation, then what it writes, what it reads, and its weights.

use super::{Act, MatrixId, Program, Rows, Vector, VectorId};
use std::fmt;

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, op) in self.ops.iter().enumerate() {
            if i == self.head && self.logits.is_some() {
                writeln!(f, "head")?;
            }
            let io = op.io();
            write!(f, "{i:>4} {:<11} ", op.name())?;
            self.act(f, io.output)?;
            let mut before = if io.keeps { " += " } else { " = " };
            for x in io.inputs.into_iter().flatten() {
                f.write_str(before)?;
                self.act(f, x)?;
                before = ", ";
            }
            for (id, count) in op.matrices() {
                f.write_str(before)?;
                self.matrix(f, id, count)?;
                before = ", ";
            }
            for id in op.vectors() {
                f.write_str(before)?;
                self.vector_named(f, id)?;
                before = ", ";
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Program {
    /// `a3[0..64]` of all rows, `p3[0..64]` of the picked ones.
    fn act(&self, f: &mut fmt::Formatter<'_>, act: Act) -> fmt::Result {
        let rows = self.slots.get(act.slot.0).map(|slot| slot.rows);
        let letter = if rows == Some(Rows::Picked) { 'p' } else { 'a' };
        write!(f, "{letter}{}[{:?}]", act.slot.0, act.columns())
    }

    fn matrix(&self, f: &mut fmt::Formatter<'_>, id: MatrixId, count: usize) -> fmt::Result {
        let Some(weight) = self.weights.get(id.weight) else { return write!(f, "no weight {}", id.weight) };
        f.write_str(&weight.name)?;
        if count < weight.copies {
            write!(f, "[{:?}]", id.copy..id.copy + count)?;
        }
        write!(f, " {weight}")
    }

    fn vector_named(&self, f: &mut fmt::Formatter<'_>, id: VectorId) -> fmt::Result {
        match self.vectors.get(id.0) {
            None => write!(f, "no vector {}", id.0),
            Some(Vector::Constant(values)) => write!(f, "a constant [{}]", values.len()),
            Some(Vector::Parameter(p)) if p.plus == 0.0 => write!(f, "{} {:?}", p.name, p.shape),
            Some(Vector::Parameter(p)) => write!(f, "{} {:?} + {}", p.name, p.shape, p.plus),
        }
    }
}
