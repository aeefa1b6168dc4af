//! Every family on an adapter against the logits of others: MLC's own for MLC's meaning, those of Hugging Face's code for
//! the authors'. The folders are those of tessera-engine's test of the same name.

mod support;

use std::path::PathBuf;
use support::{backend, cases, run};

/// Root of the mean square of the differences, of that of the logits: f32 all the way.
const GPU: f64 = 1e-3;

#[test]
fn every_family_agrees_with_mlc_and_with_hugging_face() {
    let mut failed = Vec::new();
    for case in cases() {
        let mut worst = 0.0f64;
        let mut far = [0.0f64; 2];
        match run(&case, &backend(false)) {
            Err(what) => failed.push(format!("{}: {what}", case.name)),
            Ok(found) => {
                for (found, step) in found.iter().zip(&case.steps) {
                    for (found, expected) in found.iter().zip(&step.logits) {
                        far[0] += (f64::from(*found) - expected).powi(2);
                        far[1] += expected * expected;
                    }
                }
                let off = (far[0] / far[1]).sqrt();
                worst = if off <= worst { worst } else { off };
                println!("{}: {worst:.1e}", case.name);
                if !(off < case.bound(GPU)) {
                    failed.push(format!("{}: {off:.2e}", case.name));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(PathBuf::from(env!("CARGO_MANIFEST_DIR")).exists());
}
