//! A byte-level tokenizer, and texts walked through masks.
#![allow(dead_code)]

use serde_json::Value;
use std::sync::{Arc, LazyLock};
use tessera_engine::constraint::Constraint;
use tessera_engine::grammar::{GrammarConstraint, GrammarEnv};
use tessera_engine::tokenizer::Tokenizer;
use tessera_weights::chat_config::python_json::{Style, to_string};

/// One token for each byte; `</s>`, 2, ends an answer. The model has more rows than tokens.
pub static BYTES: LazyLock<GrammarEnv> = LazyLock::new(|| {
    let lookup = |name: &str| {
        (name == "tokenizer.json").then(|| include_bytes!("../data/tiny-tokenizer.json").to_vec())
    };
    let tokenizer = Arc::new(Tokenizer::from_files(lookup).unwrap());
    GrammarEnv::new(tokenizer, ROWS, &[END]).unwrap()
});
pub const END: u32 = 2;
pub const ROWS: usize = 300;

pub fn allows(mask: &[u32], token: u32) -> bool {
    mask.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
}

pub fn allowed(mask: &[u32]) -> Vec<u32> {
    (0..mask.len() as u32 * 32).filter(|t| allows(mask, *t)).collect()
}

/// Whether the masks let a text through, and let it end.
pub fn accepts(constraint: &GrammarConstraint, text: &str) -> bool {
    let mut constraint = constraint.clone();
    for token in BYTES.tokenizer().encode_ordinary(text).unwrap() {
        // A mask that cannot be made allows nothing.
        let Ok(mask) = constraint.mask() else { return false };
        if !allows(mask, token) {
            return false;
        }
        constraint.accept(token).unwrap();
    }
    constraint.mask().is_ok_and(|mask| allows(mask, END))
}

/// A value as Python's `json.dumps` writes it.
pub fn spaced(value: &Value) -> String {
    to_string(value, Style::TEMPLATE)
}

/// The value with the members of its objects in each order, as long as that is few.
pub fn orders(value: &Value) -> Vec<Value> {
    let Value::Object(map) = value else { return vec![value.clone()] };
    if map.len() > 4 {
        return vec![value.clone()];
    }
    let mut out = vec![Vec::new()];
    for member in map {
        let longer = |list: Vec<(String, Value)>| {
            let member = (member.0.clone(), member.1.clone());
            (0..=list.len()).map(move |at| {
                let mut list = list.clone();
                list.insert(at, member.clone());
                list
            })
        };
        out = out.into_iter().flat_map(longer).collect();
    }
    out.into_iter().map(|members| Value::Object(members.into_iter().collect())).collect()
}

/// A small generator, so that every run walks the same ways.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }
}
