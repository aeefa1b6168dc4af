//! References that lead back to themselves: fine where something is read on the way and where a value can
//! end, refused elsewhere.

use super::{Normalizer, unsupported};
use crate::grammar::GrammarError;
use serde_json::Value;

/// Rounds of [`Normalizer::refuse_endless`]; real schemas need two or three.
const MAX_ROUNDS: usize = 200;

impl Normalizer {
    /// A definition that leads back to itself before anything is read has no meaning.
    pub(super) fn refuse_circles(&self) -> Result<(), GrammarError> {
        #[derive(Clone, Copy, PartialEq)]
        enum State {
            New,
            OnPath,
            Done,
        }
        let mut state = vec![State::New; self.in_place.len()];
        for start in 0..self.in_place.len() {
            if state[start] == State::Done {
                continue;
            }
            let mut path = vec![(start, 0)];
            while let Some((node, next)) = path.pop() {
                state[node] = State::OnPath;
                let Some(to) = self.in_place[node].get(next) else {
                    state[node] = State::Done;
                    continue;
                };
                path.push((node, next + 1));
                match state[*to] {
                    State::New => path.push((*to, 0)),
                    State::OnPath => {
                        let message = "a circle of references that reads nothing";
                        return Err(unsupported(&self.origins[*to], "$ref", message));
                    }
                    State::Done => {}
                }
            }
        }
        Ok(())
    }

    /// A value that needs another one of its kind inside never ends: the mask would ask for more until the
    /// context is full.
    pub(super) fn refuse_endless(&self) -> Result<(), GrammarError> {
        let mut ends = vec![false; self.definitions.len()];
        for _ in 0..MAX_ROUNDS {
            let mut changed = false;
            // Targets come after what refers to them.
            for (id, definition) in self.definitions.iter().enumerate().rev() {
                if !ends[id] && definition.as_ref().is_none_or(|schema| can_end(schema, &ends)) {
                    ends[id] = true;
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
        match ends.iter().position(|ends| !ends) {
            Some(id) => Err(unsupported(&self.origins[id], "$ref", "a value of this schema would never end")),
            None => Ok(()),
        }
    }
}

/// Whether a value of the schema can be written, given which definitions can.
fn can_end(schema: &Value, known: &[bool]) -> bool {
    let Some(map) = schema.as_object() else { return true };
    let list = |keyword: &str| map.get(keyword).and_then(Value::as_array).map(Vec::as_slice);
    let ends = |schema: Option<&Value>| schema.is_none_or(|schema| can_end(schema, known));
    let target = map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/d"));
    if target.and_then(|id| id.parse::<usize>().ok()).is_some_and(|id| !known.get(id).is_some_and(|k| *k)) {
        return false;
    }
    let all = list("allOf").unwrap_or_default().iter().all(|s| can_end(s, known));
    let any = ["anyOf", "oneOf"].iter().all(|k| list(k).is_none_or(|l| l.iter().any(|s| can_end(s, known))));
    let members = match map.get("type").and_then(Value::as_str) {
        Some("object") => list("required").unwrap_or_default().iter().filter_map(Value::as_str).all(|name| {
            let own = map.get("properties").and_then(|p| p.get(name));
            // A name may be a pattern's; then nothing is claimed.
            ends(own.or_else(|| {
                map.get("additionalProperties").filter(|_| !map.contains_key("patternProperties"))
            }))
        }),
        Some("array") => {
            let least = map.get("minItems").and_then(Value::as_u64).unwrap_or(0) as usize;
            let first = list("prefixItems").unwrap_or_default();
            first.iter().take(least).all(|s| can_end(s, known))
                && (least <= first.len() || ends(map.get("items")))
        }
        _ => true,
    };
    all && any && members
}
