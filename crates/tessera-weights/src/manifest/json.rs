//! JSON as a tree that keeps what `serde_json::Value` loses: a key given twice is an error, and an
//! integer is told from a float.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// A JSON value.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    /// With a fraction or an exponent, or beyond 64 bits.
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl fmt::Display for Node {
    /// Short: this goes into error messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Null => f.write_str("null"),
            Node::Bool(b) => write!(f, "{b}"),
            Node::Unsigned(n) => write!(f, "{n}"),
            Node::Negative(n) => write!(f, "{n}"),
            Node::Float(x) => write!(f, "{x:?}"),
            Node::Text(s) => write!(f, "{}", quoted(s)),
            Node::List(v) => write!(f, "a list of {}", v.len()),
            Node::Object(v) => write!(f, "an object with {} keys", v.len()),
        }
    }
}

/// Text from a file as it may be shown: in quotes, control characters escaped, at most 80 characters.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Node, E> {
        Ok(Node::Bool(b))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Node, E> {
        Ok(Node::Unsigned(n))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Node, E> {
        Ok(u64::try_from(n).map_or(Node::Negative(n), Node::Unsigned))
    }

    fn visit_f64<E>(self, x: f64) -> Result<Node, E> {
        Ok(Node::Float(x))
    }

    fn visit_str<E>(self, s: &str) -> Result<Node, E> {
        Ok(Node::Text(s.to_owned()))
    }

    fn visit_string<E>(self, s: String) -> Result<Node, E> {
        Ok(Node::Text(s))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element()? {
            list.push(node);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut object: Vec<(String, Node)> = Vec::new();
        while let Some(entry) = map.next_entry()? {
            object.push(entry);
        }
        let mut keys: Vec<&str> = object.iter().map(|(k, _)| k.as_str()).collect();
        keys.sort_unstable();
        if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(A::Error::custom(format!("key {} is given twice in one object", quoted(pair[0]))));
        }
        Ok(Node::Object(object))
    }
}
