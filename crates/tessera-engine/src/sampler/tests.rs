use super::*;

fn params() -> SamplingParams {
    SamplingParams::default()
}

fn draws(params: SamplingParams, logits: &[f32], n: usize) -> Vec<u32> {
    // A fresh answer for every draw, so that penalties do not build up.
    let mut sampler = Sampler::new(params, &[]).unwrap();
    (0..n).map(|_| sampler.choose(logits, None).unwrap()).collect()
}

fn chi_square(tokens: &[u32], probabilities: &[f64]) -> f64 {
    let n = tokens.len() as f64;
    let counts = probabilities.iter().enumerate().map(|(t, p)| {
        let seen = tokens.iter().filter(|x| **x == t as u32).count() as f64;
        if *p == 0.0 {
            assert_eq!(seen, 0.0, "token {t} must not be drawn");
            return 0.0;
        }
        (seen - n * p).powi(2) / (n * p)
    });
    counts.sum()
}

#[test]
fn draws_follow_the_distribution() {
    let p = [0.5, 0.25, 0.15, 0.1];
    let logits: Vec<f32> = p.iter().map(|p: &f64| p.ln() as f32 + 3.0).collect();
    let plain = draws(SamplingParams { seed: 7, ..params() }, &logits, 20_000);
    // 3 degrees of freedom: 16.3 has a probability of 0.001.
    assert!(chi_square(&plain, &p) < 16.3, "{}", chi_square(&plain, &p));
    // Temperature 2 takes square roots.
    let roots: Vec<f64> = p.iter().map(|p| p.sqrt()).collect();
    let total: f64 = roots.iter().sum();
    let roots: Vec<f64> = roots.iter().map(|r| r / total).collect();
    let warm = draws(SamplingParams { temperature: 2.0, seed: 8, ..params() }, &logits, 20_000);
    assert!(chi_square(&warm, &roots) < 16.3);
    assert!(chi_square(&warm, &p) > 100.0, "the test must be able to fail");
    let top_k = draws(SamplingParams { top_k: 2, seed: 9, ..params() }, &logits, 20_000);
    assert!(chi_square(&top_k, &[2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]) < 16.3);
    // 0.5 + 0.25 < 0.8 <= 0.5 + 0.25 + 0.15
    let top_p = draws(SamplingParams { top_p: 0.8, seed: 10, ..params() }, &logits, 20_000);
    assert!(chi_square(&top_p, &[0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0.0]) < 16.3);
    // 0.25 >= 0.4 * 0.5 > 0.15
    let min_p = draws(SamplingParams { min_p: 0.4, seed: 11, ..params() }, &logits, 20_000);
    assert!(chi_square(&min_p, &[2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]) < 16.3);
}

#[test]
fn a_seed_gives_the_same_tokens_everywhere() {
    let logits: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 101) as f32 / 10.0).collect();
    let with = |seed| draws(SamplingParams { seed, top_p: 0.9, ..params() }, &logits, 8);
    assert_eq!(with(42), with(42));
    assert_ne!(with(42), with(43));
    // Pins generator and order of summing: a change here changes everybody's seeded answers.
    let numbers: Vec<u32> = draws(SamplingParams { seed: 42, ..params() }, &vec![0.0; 1 << 16], 4);
    let mut rng = Pcg64::seed_from_u64(42);
    let expected: Vec<u32> = (0..4).map(|_| (rng.next_u64() >> 48) as u32).collect();
    assert_eq!(numbers, expected);
}

#[test]
fn greedy_takes_the_lowest_id_among_equals() {
    let greedy = SamplingParams { temperature: 0.0, ..params() };
    assert_eq!(draws(greedy.clone(), &[1.0, 5.0, 5.0, f32::NEG_INFINITY], 3), [1, 1, 1]);
    assert!(Sampler::new(greedy, &[]).unwrap().is_plain_greedy());
}

#[test]
fn top_p_agrees_with_a_full_sort() {
    let logits: Vec<f32> = (0..5000u32).map(|i| (i.wrapping_mul(2654435761) >> 20) as f32 / 700.0).collect();
    let mut order: Vec<u32> = (0..5000).collect();
    order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
    let weights: Vec<f64> = logits.iter().map(|l| f64::from(*l).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut mass = 0.0;
    let nucleus = order.iter().take_while(|t| {
        let before = mass;
        mass += weights[**t as usize] / total;
        before < 0.7
    });
    let nucleus = nucleus.count();
    let params = SamplingParams { top_p: 0.7, ..params() };
    let mut sampler = Sampler::new(params, &[]).unwrap();
    sampler.choose(&logits, None).unwrap();
    assert!(nucleus > 256, "more than one portion");
    assert_eq!(sampler.keys.iter().map(|k| token_of(*k)).collect::<Vec<_>>(), order[..nucleus]);
}

#[test]
fn weights_are_exponentials() {
    for i in 0..87_000 {
        let x = i as f32 * -0.001;
        let (found, expected) = (f64::from(exp_negative(x)), f64::from(x).exp());
        assert!((found - expected).abs() <= 2e-7 * expected, "exp({x}): {found:e}, not {expected:e}");
    }
    assert_eq!((exp_negative(0.0), exp_negative(-87.5), exp_negative(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
}

#[test]
fn blocks_pick_what_one_running_sum_picks() {
    let weights: Vec<f32> = (0..3000u32)
        .map(|i| {
            if i % 7 == 0 || (512..1024).contains(&i) {
                0.0
            } else {
                (i.wrapping_mul(2654435761) >> 8) as f32
            }
        })
        .collect();
    let all = || weights.iter().zip(0u32..).map(|(w, token)| (f64::from(*w), token));
    for i in 0..5000 {
        // Whole numbers: sums are exact, in whatever order.
        let uniform = f64::from(i) / 5000.0;
        assert_eq!(pick_any(&weights, uniform), pick(all(), uniform), "{uniform}");
    }
    assert_eq!((pick_any(&[0.0; 300], 0.5), pick_any(&[], 0.5)), (None, None));
    // Rounding may leave the sum below the goal: then it is the last token that has a weight.
    assert_eq!(pick_any(&[1.0, 1.0, 0.0], 1.0), Some(1));
}

#[test]
fn keys_sort_by_logit_and_then_by_id() {
    let logits = [f32::NEG_INFINITY, -5.0, -1e-30, -0.0, 0.0, 1e-30, 5.0, f32::MAX];
    for pair in logits.windows(2).filter(|p| p[0] < p[1]) {
        assert!(key(pair[0], 0) < key(pair[1], 9), "{pair:?}");
    }
    assert!(key(-0.0, 3) > key(0.0, 4) && key(0.0, 3) > key(-0.0, 4));
    assert_eq!(token_of(key(-7.5, 128_255)), 128_255);
}

#[test]
fn penalties_follow_their_definitions() {
    let greedy = SamplingParams { temperature: 0.0, ..params() };
    // Repetition: 4 / 2 < 3, and the prompt counts; -1 * 2 = -2.
    let p = SamplingParams { repetition_penalty: 2.0, ..greedy.clone() };
    let mut sampler = Sampler::new(p, &[0]).unwrap();
    assert_eq!(sampler.sample(&[4.0, 3.0], None).unwrap(), 1);
    let p = SamplingParams { repetition_penalty: 2.0, ..greedy.clone() };
    assert_eq!(Sampler::new(p, &[0]).unwrap().sample(&[-1.0, -1.5], None).unwrap(), 1);
    // Frequency: the prompt does not count, each occurrence of the answer does.
    let p = SamplingParams { frequency_penalty: 0.5, ..greedy.clone() };
    let mut sampler = Sampler::new(p, &[0, 0, 0]).unwrap();
    let tokens: Vec<u32> = (0..5).map(|_| sampler.sample(&[4.0, 2.9], None).unwrap()).collect();
    assert_eq!(tokens, [0, 0, 0, 1, 0]);
    // Presence: once, however often.
    let p = SamplingParams { presence_penalty: 1.0, ..greedy.clone() };
    let mut sampler = Sampler::new(p, &[0]).unwrap();
    let tokens: Vec<u32> = (0..4).map(|_| sampler.sample(&[4.0, 3.5], None).unwrap()).collect();
    assert_eq!(tokens, [0, 1, 0, 0]);
    let p = SamplingParams { logit_bias: vec![(1, 9.0), (1, 5.0)], ..greedy };
    assert_eq!(Sampler::new(p.clone(), &[]).unwrap().sample(&[7.0, 0.0], None).unwrap(), 0);
    assert_eq!(Sampler::new(p, &[]).unwrap().sample(&[4.0, 0.0], None).unwrap(), 1);
}

#[test]
fn a_mask_allows_its_tokens_only() {
    let logits = vec![1.0; 70];
    let mask = [0, 1 << 3, 1 << 5];
    let mut sampler = Sampler::new(params(), &[]).unwrap();
    for _ in 0..50 {
        assert!([35, 69].contains(&sampler.sample(&logits, Some(&mask)).unwrap()));
    }
    let none = sampler.sample(&logits, Some(&[0, 0, 0])).unwrap_err();
    assert_eq!(none, SampleError::NoToken { allowed: 0, vocab_size: 70 });
    let short = sampler.sample(&logits, Some(&[1])).unwrap_err();
    assert_eq!(short, SampleError::MaskLength { expected: 3, found: 1 });
}

#[test]
fn broken_logits_are_errors() {
    let mut sampler = Sampler::new(params(), &[]).unwrap();
    assert!(matches!(sampler.sample(&[0.0, f32::NAN], None), Err(SampleError::NotANumber { token: 1, .. })));
    assert!(matches!(sampler.sample(&[f32::INFINITY], None), Err(SampleError::NotANumber { token: 0, .. })));
    assert!(matches!(sampler.sample(&[f32::NEG_INFINITY; 3], None), Err(SampleError::NoToken { .. })));
    assert!(matches!(sampler.sample(&[], None), Err(SampleError::NoToken { .. })));
    assert!(logprobs(&[f32::NAN], 1, 0).is_err());
}

#[test]
fn parameters_out_of_range_are_named() {
    for (p, field) in [
        (SamplingParams { temperature: -1.0, ..params() }, "temperature: expected 0 to 100, found -1"),
        (SamplingParams { temperature: f32::NAN, ..params() }, "temperature"),
        (SamplingParams { top_p: -0.1, ..params() }, "top_p: expected 0 to 1, found -0.1"),
        (SamplingParams { min_p: 1.5, ..params() }, "min_p"),
        (SamplingParams { repetition_penalty: 0.0, ..params() }, "repetition_penalty"),
        (SamplingParams { logit_bias: vec![(0, f32::INFINITY)], ..params() }, "logit_bias"),
    ] {
        let message = Sampler::new(p, &[]).err().unwrap().to_string();
        assert!(message.contains(field), "{message}");
    }
    let p = SamplingParams { logit_bias: vec![(9, 1.0)], ..params() };
    let error = Sampler::new(p, &[]).unwrap().sample(&[0.0; 4], None).unwrap_err();
    assert_eq!(error, SampleError::BiasToken { token: 9, vocab_size: 4 });
}

#[test]
fn a_top_p_of_zero_takes_the_likeliest_token() {
    for seed in 0..20 {
        let p = SamplingParams { top_p: 0.0, temperature: 2.0, seed, ..params() };
        assert_eq!(Sampler::new(p, &[]).unwrap().sample(&[0.1, 0.3, 0.2], None), Ok(1));
    }
}

#[test]
fn logprobs_are_of_the_raw_distribution() {
    let logits = [1.0f32, 3.0, 2.0, f32::NEG_INFINITY];
    let (top, own) = logprobs(&logits, 2, 0).unwrap();
    let norm = (1f64.exp() + 3f64.exp() + 2f64.exp()).ln();
    assert_eq!(top.iter().map(|t| t.token).collect::<Vec<_>>(), [1, 2]);
    assert!((f64::from(top[0].logprob) - (3.0 - norm)).abs() < 1e-6);
    assert!((f64::from(own.logprob) - (1.0 - norm)).abs() < 1e-6);
    assert_eq!(logprobs(&logits, 9, 3).unwrap().0.len(), 4);
}

#[test]
fn a_processor_goes_first_and_hears_of_every_token() {
    use std::sync::{Arc, Mutex};

    struct Turned(Arc<Mutex<Vec<u32>>>);
    impl LogitProcessor for Turned {
        fn process(&mut self, logits: &mut [f32]) -> Result<(), String> {
            logits.reverse();
            if self.0.lock().unwrap().len() < 3 { Ok(()) } else { Err("it has enough".to_owned()) }
        }
        fn chosen(&mut self, token: u32) {
            self.0.lock().unwrap().push(token);
        }
    }

    let heard = Arc::new(Mutex::new(Vec::new()));
    let p = SamplingParams { temperature: 0.0, logit_bias: vec![(1, 5.0)], ..SamplingParams::default() };
    let mut sampler = Sampler::new(p, &[]).unwrap().with_processor(Some(Box::new(Turned(heard.clone()))));
    assert!(!sampler.is_plain_greedy());
    // The largest is the first after it, and the bias and the mask come behind.
    assert_eq!(sampler.sample(&[1.0, 2.0, 9.0], None).unwrap(), 0);
    assert_eq!(sampler.sample(&[1.0, 5.0, 9.0], None).unwrap(), 1);
    assert_eq!(sampler.sample(&[1.0, 5.0, 9.0], Some(&[0b100])).unwrap(), 2);
    let error = sampler.sample(&[1.0, 5.0, 9.0], None).unwrap_err();
    assert_eq!(error.to_string(), "the logit processor: it has enough");
    assert_eq!(*heard.lock().unwrap(), [0, 1, 2]);
}
