//! The frequencies of every RoPE scaling against those that Hugging Face's own code gives for the same
//! config.json. `scripts/oracle/rope.py` makes the golden file.

use serde_json::Value;
use tessera_compute::rope::{Pairs, Rope};
use tessera_weights::config::ModelConfig;

/// Both sides compute in f64; tessera's are rounded to f32 at the end (6e-8).
const BOUND: f64 = 1e-6;

#[test]
fn every_scaling_has_the_frequencies_of_transformers() {
    let golden: Value = serde_json::from_str(include_str!("data/rope.json")).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 30, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let len = case["seq_len"].as_u64().unwrap() as usize;
        let name = format!("{} at {len}", case["name"].as_str().unwrap());
        let config = match ModelConfig::from_hf(&case["config"]) {
            Ok(config) => config,
            Err(e) => {
                wrong.push(format!("{name}: {e}"));
                continue;
            }
        };
        let rope = Rope {
            dim: config.head_dim,
            theta: config.rope_theta,
            scaling: config.rope_scaling,
            context: config.context_window_size,
            pairs: Pairs::Halves,
        };
        let found = rope.frequencies(len);
        let expected: Vec<f64> =
            case["inv_freq"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        assert_eq!(found.inv_freq.len(), expected.len(), "{name}");
        // A NaN is not close to anything.
        let close = |a: f32, b: f64| (f64::from(a) - b).abs() < BOUND * b.abs();
        for (i, (a, b)) in found.inv_freq.iter().zip(&expected).enumerate() {
            if !close(*a, *b) {
                wrong.push(format!("{name}: frequency {i} is {a}, expected {b}"));
                break;
            }
        }
        let factor = case["factor"].as_f64().unwrap();
        if !close(found.factor, factor) {
            wrong.push(format!("{name}: factor {}, expected {factor}", found.factor));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
