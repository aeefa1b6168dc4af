//! Where references lead: resources by their `$id`, places in them by anchor or JSON pointer.

use super::dialect::{DRAFTS, Draft};
use super::unsupported;
use crate::grammar::GrammarError;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Where a schema is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Home {
    pub document: usize,
    /// The resource, which is what `#` means.
    pub resource: usize,
    pub draft: super::dialect::Draft,
}

/// Levels of a document that are looked at for identifiers.
const MAX_LEVELS: usize = 200;

/// A resource: a schema with a name of its own, or the whole document.
struct Resource<'a> {
    uri: String,
    root: &'a Value,
    /// Of its root in the document.
    pointer: String,
}

/// One document of a request.
pub(super) struct Document<'a> {
    /// Where the document lies in the request, for messages.
    pub base: String,
    number: usize,
    resources: Vec<Resource<'a>>,
    /// Schemas that begin a resource or an edition, by their address.
    homes: HashMap<usize, Home>,
    /// Resource, name; how often, and where the first is.
    anchors: HashMap<(usize, String), (usize, &'a Value, String)>,
    /// Names of `$dynamicAnchor`s, and how many have each; `$recursiveAnchor: true` under the empty name.
    dynamic: HashMap<String, usize>,
}

/// The sub-schemas of a schema, with the keyword and name that lead to them.
pub(super) fn children(map: &Map<String, Value>) -> impl Iterator<Item = (String, &Value)> {
    map.iter().flat_map(|(keyword, value)| -> Vec<(String, &Value)> {
        match (keyword.as_str(), value) {
            (
                "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas"
                | "dependencies",
                Value::Object(map),
            ) => map.iter().map(|(name, v)| (format!("{keyword}/{}", escaped(name)), v)).collect(),
            ("allOf" | "anyOf" | "oneOf" | "prefixItems" | "items", Value::Array(list)) => {
                list.iter().enumerate().map(|(i, v)| (format!("{keyword}/{i}"), v)).collect()
            }
            (
                "items"
                | "additionalItems"
                | "additionalProperties"
                | "contains"
                | "propertyNames"
                | "not"
                | "if"
                | "then"
                | "else"
                | "unevaluatedItems"
                | "unevaluatedProperties",
                v,
            ) => vec![(keyword.clone(), v)],
            _ => Vec::new(),
        }
    })
}

/// A name as a part of a JSON pointer.
pub(super) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn address(value: &Value) -> usize {
    std::ptr::from_ref(value) as usize
}

impl<'a> Document<'a> {
    /// Reads the identifiers of a document; `base` is its JSON pointer in the request.
    pub fn new(root: &'a Value, base: &str, number: usize) -> Result<Document<'a>, GrammarError> {
        let mut document = Document {
            base: base.to_owned(),
            number,
            resources: vec![Resource { uri: String::new(), root, pointer: String::new() }],
            homes: HashMap::new(),
            anchors: HashMap::new(),
            dynamic: HashMap::new(),
        };
        let first = Home { document: number, resource: 0, draft: Draft::Unsaid };
        let mut open = vec![(root, first, String::new(), 0)];
        while let Some((value, home, pointer, level)) = open.pop() {
            let Some(map) = value.as_object() else { continue };
            if level > MAX_LEVELS {
                let what = format!("nesting at {base}{}", &pointer[..pointer.len().min(80)]);
                return Err(GrammarError::TooLarge { what, found: level, limit: MAX_LEVELS });
            }
            let home = document.identify(value, map, home, &pointer)?;
            for (step, child) in children(map) {
                open.push((child, home, format!("{pointer}/{step}"), level + 1));
            }
        }
        Ok(document)
    }

    fn identify(
        &mut self,
        value: &'a Value,
        map: &'a Map<String, Value>,
        mut home: Home,
        pointer: &str,
    ) -> Result<Home, GrammarError> {
        let before = home;
        if let Some(uri) = map.get("$schema") {
            let Some(draft) = Draft::of(uri) else {
                let message = format!("{uri} is not a known edition (known: {DRAFTS})");
                return Err(unsupported(&format!("{}{pointer}", self.base), "$schema", message));
            };
            home.draft = draft;
        }
        // Beside a reference older editions know no other keyword.
        let hidden = home.draft.only_ref() && map.contains_key("$ref") && !pointer.is_empty();
        let id = map.get(home.draft.id()).and_then(Value::as_str).filter(|_| !hidden);
        let (uri, fragment) = id.map_or(("", ""), |id| id.split_once('#').unwrap_or((id, "")));
        if !uri.is_empty() {
            let uri = join(&self.resources[home.resource].uri, uri);
            if pointer.is_empty() {
                self.resources[0].uri = uri;
            } else {
                home.resource = self.resources.len();
                self.resources.push(Resource { uri, root: value, pointer: pointer.to_owned() });
            }
        }
        let anchors = ["$anchor", "$dynamicAnchor"].map(|keyword| map.get(keyword).and_then(Value::as_str));
        let old =
            Some(fragment).filter(|f| !f.is_empty() && !f.starts_with('/') && home.draft <= Draft::Seven);
        for name in anchors.into_iter().chain([old]).flatten() {
            let known = self.anchors.entry((home.resource, name.to_owned()));
            known.or_insert_with(|| (0, value, pointer.to_owned())).0 += 1;
        }
        if let Some(name) = anchors[1] {
            *self.dynamic.entry(name.to_owned()).or_default() += 1;
        }
        if map.get("$recursiveAnchor") == Some(&Value::Bool(true)) {
            *self.dynamic.entry(String::new()).or_default() += 1;
        }
        if home != before {
            self.homes.insert(address(value), home);
        }
        Ok(home)
    }

    /// Where a sub-schema is at home.
    pub fn home(&self, value: &Value, around: Home) -> Home {
        self.homes.get(&address(value)).copied().unwrap_or(around)
    }

    /// The home of the document's root.
    pub fn root(&self) -> Home {
        let first = Home { document: self.number, resource: 0, draft: Draft::Unsaid };
        self.home(self.resources[0].root, first)
    }

    /// Whether a dynamic reference has one possible target only, so that it is like any other.
    pub fn is_static(&self, name: &str) -> bool {
        self.dynamic.get(name).is_none_or(|n| *n <= 1)
    }

    /// What a reference leads to, its home, and its pointer in the document.
    pub fn resolve(&self, reference: &str, from: Home) -> Result<(&'a Value, Home, String), String> {
        let (uri, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let resource = match uri {
            "" => from.resource,
            uri => {
                let uri = join(&self.resources[from.resource].uri, uri);
                let found = self.resources.iter().position(|r| r.uri == uri);
                found.ok_or_else(|| {
                    format!(
                        "{reference:?} is outside of the schema; only references inside of it are followed"
                    )
                })?
            }
        };
        let Resource { root, pointer, .. } = &self.resources[resource];
        let home = Home { resource, ..from };
        let fragment = percent_decoded(fragment).ok_or_else(|| format!("{reference:?} is no URI"))?;
        if !fragment.is_empty() && !fragment.starts_with('/') {
            let Some((count, value, pointer)) = self.anchors.get(&(resource, fragment)) else {
                return Err(format!("{reference:?} leads nowhere: there is no such anchor"));
            };
            if *count > 1 {
                return Err(format!("{reference:?}: {count} anchors have this name"));
            }
            return Ok((value, self.home(value, home), pointer.clone()));
        }
        let (mut value, mut home) = (*root, self.home(root, home));
        for step in fragment.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            let next = match value {
                Value::Object(map) => map.get(&step),
                Value::Array(list) => step.parse::<usize>().ok().and_then(|i| list.get(i)),
                _ => None,
            };
            value = next.ok_or_else(|| format!("{reference:?} leads nowhere"))?;
            home = self.home(value, home);
        }
        Ok((value, home, format!("{pointer}{fragment}")))
    }
}

/// A URI reference against a base, by section 5.2 of RFC 3986, as far as identifiers of schemas need it.
fn join(base: &str, reference: &str) -> String {
    let has_scheme = |uri: &str| {
        let scheme = uri.split_once(':').map_or("", |(scheme, _)| scheme);
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    if has_scheme(reference) || base.is_empty() {
        return reference.to_owned();
    }
    let (scheme, rest) =
        if has_scheme(base) { base.split_once(':').unwrap_or(("", base)) } else { ("", base) };
    let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}:") };
    if reference.starts_with("//") {
        return format!("{scheme}{reference}");
    }
    let (authority, path) = match rest.strip_prefix("//") {
        Some(after) => {
            let end = after.find('/').unwrap_or(after.len());
            (format!("//{}", &after[..end]), &after[end..])
        }
        None => (String::new(), rest),
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let merged = match (reference.strip_prefix('/'), path.rfind('/')) {
        (Some(_), _) => reference.to_owned(),
        (None, Some(at)) => format!("{}{reference}", &path[..=at]),
        (None, None) if authority.is_empty() => reference.to_owned(),
        (None, None) => format!("/{reference}"),
    };
    let mut parts: Vec<&str> = Vec::new();
    let last = merged.split('/').count() - 1;
    for (i, part) in merged.split('/').enumerate() {
        match part {
            ".." => {
                if parts.len() > 1 {
                    parts.pop();
                }
                if i == last {
                    parts.push("");
                }
            }
            "." if i == last => parts.push(""),
            "." => {}
            part => parts.push(part),
        }
    }
    format!("{scheme}{authority}{}", parts.join("/"))
}

/// A URI fragment without its `%NN`; `None` if it is broken.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| char::from(b?).to_digit(16);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::join;

    #[test]
    fn references_against_a_base() {
        for (base, reference, joined) in [
            ("http://x.org/a/b.json", "c.json", "http://x.org/a/c.json"),
            ("http://x.org/a/b.json", "/c.json", "http://x.org/c.json"),
            ("http://x.org/a/b.json", "../c/./d", "http://x.org/c/d"),
            ("http://x.org", "c", "http://x.org/c"),
            ("http://x.org/a?q/r", "c", "http://x.org/c"),
            ("http://x.org/a", "//y.org/b", "http://y.org/b"),
            ("", "c.json", "c.json"),
            ("a/b", "c", "a/c"),
            ("a", "c", "c"),
            ("urn:x:y", "urn:z", "urn:z"),
        ] {
            assert_eq!(join(base, reference), joined, "{base} {reference}");
        }
    }
}
