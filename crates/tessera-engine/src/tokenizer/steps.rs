//! What a component of `tokenizer.json` is made of.

use serde_json::Value;

/// Every step of a component, sequences unrolled.
pub(super) fn steps<'a>(component: &'a Value, out: &mut Vec<&'a Value>) {
    let members = ["decoders", "pretokenizers"].iter().find_map(|key| component[*key].as_array());
    match members {
        Some(members) => members.iter().for_each(|member| steps(member, out)),
        None if component.is_null() => {}
        None => out.push(component),
    }
}
