//! Judges the schema compiler on many schemas: how many are taken, why others are not, and whether a
//! validator takes what random walks through the masks write. `scripts/schema-acceptance` feeds it.
//!
//! Input: one JSON object on a line, `{"package": ..., "file": ..., "schema": ...}`.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tessera_engine::constraint::Constraint;
use tessera_engine::grammar::{GrammarConstraint, GrammarEnv, GrammarError, JsonSpacing};
use tessera_engine::tokenizer::Tokenizer;

const END: u32 = 2;
const WALKS: u64 = 12;
const STEPS: usize = 6_000;

fn main() {
    let tokenizer = include_bytes!("../tests/data/tiny-tokenizer.json");
    let lookup = |name: &str| (name == "tokenizer.json").then(|| tokenizer.to_vec());
    let tokenizer = Arc::new(Tokenizer::from_files(lookup).expect("the tests' tokenizer"));
    let env = GrammarEnv::new(tokenizer, 300, &[END]).expect("the tests' vocabulary");
    let verbose = std::env::args().any(|a| a == "--refusals");
    let (mut all, mut taken, mut walks, mut ended) = (0, 0, 0, 0);
    let (mut wrong, mut stuck, mut unjudged, mut elsewhere) = (0, 0, 0, 0);
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut slowest = Duration::ZERO;
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("standard input");
        let row: Value = serde_json::from_str(&line).expect("a JSON object on each line");
        let schema = &row["schema"];
        all += 1;
        let begun = Instant::now();
        let compiled = env.json_schema(schema, JsonSpacing::Compact);
        slowest = slowest.max(begun.elapsed());
        let mut constraint = match compiled {
            Ok(constraint) => constraint,
            Err(error) => {
                // It is no schema of its own.
                if error.to_string().contains("is outside of the schema") {
                    elsewhere += 1;
                    continue;
                }
                let why = match &error {
                    GrammarError::Schema { keyword, .. } => format!("keyword {keyword:?}"),
                    GrammarError::TooLarge { .. } => "too large".to_owned(),
                    _ => "cannot be used".to_owned(),
                };
                *reasons.entry(why).or_default() += 1;
                if verbose {
                    println!("refused {} {}: {error}", row["package"], row["file"]);
                }
                continue;
            }
        };
        taken += 1;
        let Ok(validator) = jsonschema::options().should_validate_formats(true).build(schema) else {
            unjudged += 1;
            continue;
        };
        let _ = constraint.mask();
        for seed in 0..WALKS {
            walks += 1;
            match walk(&env, constraint.clone(), &mut Random(seed + 1)) {
                Walk::Ended(text) => {
                    ended += 1;
                    let judged = serde_json::from_str::<Value>(&text);
                    // A number beyond f64 is JSON all the same.
                    if judged.as_ref().is_err_and(|e| e.to_string().starts_with("number out of range")) {
                        continue;
                    }
                    let fine = judged.as_ref().is_ok_and(|v| validator.is_valid(v));
                    if !fine {
                        wrong += 1;
                        let why =
                            judged.ok().and_then(|v| validator.validate(&v).err().map(|e| e.to_string()));
                        println!("WRONG {} {}: {text}: {why:?}", row["package"], row["file"]);
                    }
                }
                Walk::Stuck(text, why) => {
                    stuck += 1;
                    if verbose {
                        println!("stuck {} {}: {why}: {text}", row["package"], row["file"]);
                    }
                }
                Walk::Long => {}
            }
        }
    }
    let share = |n: usize, of: usize| 100.0 * n as f64 / of.max(1) as f64;
    let whole = all - elsewhere;
    println!("{elsewhere} of {all} schemas refer to other files");
    println!("{taken} of the other {whole} are taken ({:.1} %), slowest {slowest:.1?}", share(taken, whole));
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    reasons.iter().for_each(|(why, n)| println!("  refused {n:4}: {why}"));
    println!(
        "{walks} walks, {ended} came to an end, {wrong} of these are refused by the validator, {stuck} stuck"
    );
    println!("{unjudged} schemas that the validator itself refuses");
    std::process::exit(i32::from(wrong > 0));
}

enum Walk {
    Ended(String),
    /// Nothing may follow, or the work is too much: an answer that ends in an error.
    Stuck(String, String),
    Long,
}

/// Random tokens, that tend to end what is open the longer the walk is.
fn walk(env: &GrammarEnv, mut constraint: GrammarConstraint, random: &mut Random) -> Walk {
    let (mut ids, begun) = (Vec::new(), Instant::now());
    let closers: Vec<u32> = ["\"", "}", "]"]
        .iter()
        .filter_map(|t| env.tokenizer().encode_ordinary(t).ok()?.first().copied())
        .collect();
    for step in 0..STEPS {
        if begun.elapsed() > Duration::from_secs(5) {
            return Walk::Long;
        }
        let mask = match constraint.mask() {
            Ok(mask) => mask,
            Err(error) => return Walk::Stuck(env.tokenizer().decode(&ids), error.to_string()),
        };
        let allowed: Vec<u32> =
            (0..mask.len() as u32 * 32).filter(|t| mask[*t as usize / 32] >> (t % 32) & 1 == 1).collect();
        if allowed.is_empty() {
            return Walk::Stuck(env.tokenizer().decode(&ids), "nothing may follow".to_owned());
        }
        let closing: Vec<u32> =
            allowed.iter().copied().filter(|t| closers.contains(t) || *t == END).collect();
        let close = !closing.is_empty() && random.below(STEPS) < step * 8 + STEPS / 6;
        let pool = if close { &closing } else { &allowed };
        let token = pool[random.below(pool.len())];
        if token == END {
            return Walk::Ended(env.tokenizer().decode(&ids));
        }
        if let Err(error) = constraint.accept(token) {
            return Walk::Stuck(env.tokenizer().decode(&ids), error.to_string());
        }
        ids.push(token);
    }
    Walk::Long
}

/// A small generator, so that every run walks the same ways.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }
}
