//! When two values of JSON are equal.

use serde_json::Value;

/// A text that equal values have in common.
pub(super) fn canonical(value: &Value) -> String {
    match value {
        // Minus zero is zero.
        Value::Number(n) => format!("{:?}", n.as_f64().map(|n| n + 0.0)),
        Value::Array(list) => format!("[{}]", list.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Object(map) => {
            let mut members: Vec<String> =
                map.iter().map(|(k, v)| format!("{}:{}", Value::from(k.as_str()), canonical(v))).collect();
            members.sort_unstable();
            format!("{{{}}}", members.join(","))
        }
        other => other.to_string(),
    }
}
