//! References that lead back to themselves: fine where something is read on the way and where a value can
//! end, refused elsewhere.

use super::unsupported;
use crate::grammar::GrammarError;
use serde_json::Value;

/// Rounds of [`refuse_endless`]; real schemas need two or three.
const MAX_ROUNDS: usize = 200;

/// A value that needs another one of its kind inside never ends: the mask would ask for more until the
/// context is full.
pub(super) fn refuse_endless(definitions: &[Value], origins: &[String]) -> Result<(), GrammarError> {
    let mut ends = vec![false; definitions.len()];
    for _ in 0..MAX_ROUNDS {
        let mut changed = false;
        // Targets come after what refers to them.
        for (id, definition) in definitions.iter().enumerate().rev() {
            if !ends[id] && can_end(definition, &ends) {
                ends[id] = true;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    match ends.iter().position(|ends| !ends) {
        Some(id) => Err(unsupported(&origins[id], "$ref", "a value of this schema would never end")),
        None => Ok(()),
    }
}

/// How many definitions are being read at once at most, where each is read when it is first met.
pub(super) fn longest_chain(definitions: &[Value]) -> usize {
    fn targets(schema: &Value, out: &mut Vec<usize>) {
        match schema {
            Value::Object(map) => {
                let target =
                    map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/d"));
                out.extend(target.and_then(|id| id.parse::<usize>().ok()));
                map.values().for_each(|value| targets(value, out));
            }
            Value::Array(list) => list.iter().for_each(|value| targets(value, out)),
            _ => {}
        }
    }
    let of = |id: usize| {
        let mut out = Vec::new();
        definitions.get(id).into_iter().for_each(|definition| targets(definition, &mut out));
        out.into_iter()
    };
    let (mut met, mut longest) = (vec![false; definitions.len()], 0);
    for start in 0..definitions.len() {
        if std::mem::replace(&mut met[start], true) {
            continue;
        }
        let mut path = vec![of(start)];
        while !path.is_empty() {
            longest = longest.max(path.len());
            let Some(next) = path.last_mut().and_then(Iterator::next) else {
                path.pop();
                continue;
            };
            if next < met.len() && !std::mem::replace(&mut met[next], true) {
                path.push(of(next));
            }
        }
    }
    longest
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
