//! Random matrices, the same on every machine.

use tessera_weights::bytes::Bytes;
use tessera_weights::dtype::DType;
use tessera_weights::scheme::{GroupFormat, Layout};
use tessera_weights::tensor::{Matrix, MatrixData};

/// A small generator; the same numbers on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as u32
    }

    /// About normal, standard deviation 1.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.bits() as f32 / (1u64 << 31) as f32).sum::<f32>() - 6.0
    }

    pub fn normals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.normal()).collect()
    }
}

pub fn floats(dtype: DType, values: &[f32]) -> Bytes {
    Bytes::from_vec(match dtype {
        DType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
        _ => unreachable!("a float type"),
    })
}

/// Random codes and scales; the bytes begin at an odd address.
pub fn grouped(
    r: &mut Random,
    rows: usize,
    cols: usize,
    format: GroupFormat,
    layout: Layout,
    dtype: DType,
) -> Matrix {
    let words = rows * format.words(cols);
    let mask = if format.bits == 3 { 0x3fff_ffff } else { u32::MAX };
    let mut bytes = vec![0u8];
    bytes.extend((0..words).flat_map(|_| ((r.bits() ^ (r.bits() << 16)) & mask).to_le_bytes()));
    let len = bytes.len();
    let words = Bytes::from_vec(bytes).slice(1..len).unwrap();
    let scale = 0.3 / (cols as f32).sqrt();
    let scales: Vec<f32> =
        (0..rows * format.groups(cols)).map(|_| scale * (0.5 + r.bits() as f32 / 4e9)).collect();
    let scales = floats(dtype, &scales);
    let data = MatrixData::Grouped { format, layout, words, scale_dtype: dtype, scales };
    let matrix = Matrix { rows, cols, data };
    assert!(matrix.check());
    matrix
}

pub fn dense(r: &mut Random, rows: usize, cols: usize, dtype: DType) -> Matrix {
    let scale = 1.0 / (cols as f32).sqrt();
    let values: Vec<f32> = r.normals(rows * cols).into_iter().map(|x| x * scale).collect();
    Matrix { rows, cols, data: MatrixData::Dense { dtype, bytes: floats(dtype, &values) } }
}

pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}
