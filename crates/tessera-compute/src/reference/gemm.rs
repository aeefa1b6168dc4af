//! Products of large f32 matrices on all cores.

use super::{cores, on_threads};

/// Sums of single products are begun anew after so many, in f64: f32 would lose the small ones.
const BLOCK: usize = 1024;

/// A matrix in memory: its values, and how far apart its rows and its columns are.
#[derive(Clone, Copy)]
struct Lying<'a> {
    values: &'a [f32],
    row: usize,
    column: usize,
}

/// `out += x wᵀ` for `x` `[rows, cols]`, `w` `[outputs, cols]` and `out` `[rows, outputs]`.
pub fn multiply(x: &[f32], w: &[f32], cols: usize, out: &mut [f32]) {
    let (rows, outputs) = (x.len() / cols, w.len() / cols);
    let x = Lying { values: x, row: cols, column: 1 };
    let w = Lying { values: w, row: 1, column: cols };
    product(x, w, (rows, cols, outputs), out);
}

/// `sums += aᵀ b` for `a` and `b` `[rows, cols]` and `sums` `[cols, cols]`.
pub fn moments(a: &[f32], b: &[f32], cols: usize, sums: &mut [f64]) {
    assert_eq!((a.len(), sums.len()), (b.len(), cols * cols), "two inputs of each row");
    let mut block = vec![0.0f32; cols * cols];
    for (a, b) in a.chunks(BLOCK * cols).zip(b.chunks(BLOCK * cols)) {
        block.fill(0.0);
        let rows = a.len() / cols;
        let a = Lying { values: a, row: 1, column: cols };
        let b = Lying { values: b, row: cols, column: 1 };
        product(a, b, (cols, rows, cols), &mut block);
        sums.iter_mut().zip(&block).for_each(|(sum, x)| *sum += f64::from(*x));
    }
}

/// `out += a b` for `a` `[m, k]`, `b` `[k, n]`, `out` `[m, n]` row by row; each thread makes some of its rows.
fn product(a: Lying<'_>, b: Lying<'_>, (m, k, n): (usize, usize, usize), out: &mut [f32]) {
    let fits = |at: Lying<'_>, rows: usize, columns: usize| {
        rows == 0 || columns == 0 || (rows - 1) * at.row + (columns - 1) * at.column < at.values.len()
    };
    assert!(out.len() == m * n && fits(a, m, k) && fits(b, k, n), "matrices that fit together");
    if out.is_empty() || k == 0 {
        return;
    }
    let per = m.div_ceil(cores(m * k * n));
    let part = |first: usize, out: &mut [f32]| {
        let (rows, values) = (out.len() / n, &a.values[first * a.row..]);
        let [a_row, a_column, b_row, b_column] = [a.row, a.column, b.row, b.column].map(|x| x as isize);
        // SAFETY: by `fits` every element that the sizes name is there, from row `first` on too, and `out` has `rows`
        // rows of `n`, which no other thread has.
        unsafe {
            matrixmultiply::sgemm(
                rows,
                k,
                n,
                1.0,
                values.as_ptr(),
                a_row,
                a_column,
                b.values.as_ptr(),
                b_row,
                b_column,
                1.0,
                out.as_mut_ptr(),
                n as isize,
                1,
            );
        }
    };
    let parts = out.chunks_mut(per * n).enumerate().collect();
    on_threads(parts, &|(i, out): (usize, &mut [f32])| part(i * per, out));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(seed: usize, n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 500.0 - 1.0).collect()
    }

    #[test]
    fn both_products_are_what_they_say() {
        // The last is large enough for threads.
        for (rows, cols, outputs) in [(1, 1, 1), (3, 5, 7), (1030, 33, 65)] {
            let (x, w) = (values(1, rows * cols), values(2, outputs * cols));
            let mut out = values(3, rows * outputs);
            let before = out.clone();
            multiply(&x, &w, cols, &mut out);
            for (i, o) in out.iter().enumerate() {
                let (t, r) = (i / outputs, i % outputs);
                let exact: f64 =
                    (0..cols).map(|c| f64::from(x[t * cols + c]) * f64::from(w[r * cols + c])).sum();
                assert!(
                    (f64::from(*o) - f64::from(before[i]) - exact).abs() < 1e-4,
                    "{rows} {cols} {outputs}"
                );
            }
            let y = values(4, rows * cols);
            let mut sums = vec![1.0; cols * cols];
            moments(&x, &y, cols, &mut sums);
            for (i, sum) in sums.iter().enumerate() {
                let exact: f64 = (0..rows)
                    .map(|t| f64::from(x[t * cols + i / cols]) * f64::from(y[t * cols + i % cols]))
                    .sum();
                assert!((sum - 1.0 - exact).abs() < 1e-3 * (1.0 + exact.abs()), "{sum} {exact}");
            }
        }
    }
}
