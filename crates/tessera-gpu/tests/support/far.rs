//! How far apart two results are.

/// Root of the mean square of the differences, of that of the values.
pub fn far(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let off: f64 = found.iter().zip(expected).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (off / expected.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>()).sqrt()
}
